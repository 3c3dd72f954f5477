"""Features extracted by several workers: the same bits as those of a run, through kills, on local processes and on Ray."""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dassl.data.feature_blocks import Blocks
from dassl.utils.held import Held
from scripts import extract
from scripts.experiments import backends, cell, local, shard
from scripts.experiments.schedule import WorkerDied
from scripts.experiments.shard import run_task, shards, source_of
from tests import commands

PROJECT = Path(__file__).parents[2]


def words(cache: Path, root: Path) -> list[str]:
    return ["--config-file", str(PROJECT / "configs" / "quickstart.yaml"), "--root", str(root), "CACHE_DIR", str(cache),
            "DATALOADER.TEST.BATCH_SIZE", "32"]


def banks(cache: Path) -> dict[str, torch.Tensor]:
    return {path.name: load_file(path)["features"] for path in cache.glob("*.safetensors")}


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root):
    """The features of train and test, each extracted by one process in one go."""
    from dassl.data.feature_bank import load_bank

    cache = tmp_path_factory.mktemp("cache")
    for split in ("train", "test"):
        load_bank(*source_of(cell.configured(words(cache, root)), Held(), split, "features"))
    return banks(cache)


class InProcess:
    """A worker in this process; each of `deaths` is the number of a shard after which it dies, work done or not."""

    def __init__(self, deaths: set[int] = frozenset(), *, before: bool = True):
        self.n_run, self.deaths, self.before, self.held = 0, deaths, before, Held()

    def run(self, words, *, wait):
        self.n_run += 1
        if self.n_run in self.deaths and self.before:
            raise WorkerDied("killed")
        outcome = run_task(words, self.held)
        if self.n_run in self.deaths:
            raise WorkerDied("killed")
        return outcome

    def stop(self):
        pass


@pytest.mark.parametrize("before", [True, False])
def test_shards_make_the_bits_of_a_single_pass(tmp_path, root, whole, monkeypatch, capsys, before):
    """This includes workers that die before or after writing their shard."""
    worker = InProcess({1, 3}, before=before)
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [worker])
    assert extract.main([*words(tmp_path, root), "--shard-images", "300"]) == 0
    assert same(banks(tmp_path), whole) and worker.n_run == 5 + 2 + 2
    assert "Digits train: features of 1,197 images, 128 numbers each, 1,197 of them extracted now" in capsys.readouterr().out
    assert extract.main([*words(tmp_path, root), "--shard-images", "300"]) == 0 and worker.n_run == 9
    assert "450 images, 128 numbers each, 0 of them" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.blocks"))


def test_workers_that_write_before_they_die_do_not_count_against_a_shard(tmp_path, root, whole, monkeypatch):
    """Preempted machines: each death leaves another block, so that the shard is done in the end."""
    monkeypatch.setattr("dassl.data.feature_blocks.BLOCK_SECONDS", 0.0)
    make, n_deaths = Blocks._add, []

    def add(blocks, rows, features):
        make(blocks, rows, features)
        if len(n_deaths) < 5:
            n_deaths.append(rows)
            raise WorkerDied("preempted")

    class Preempted(InProcess):
        def run(self, words, *, wait):
            self.held = Held()
            outcome = run_task(words, self.held)
            if "preempted" in outcome.error:
                raise WorkerDied("preempted")
            return outcome

    monkeypatch.setattr(Blocks, "_add", add)
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [Preempted()])
    assert extract.main([*words(tmp_path, root), "--splits", "test"]) == 0
    expected = {name: own for name, own in whole.items() if "_test_" in name}
    assert len(n_deaths) == 5 and same(banks(tmp_path), expected)


def test_what_was_written_before_a_kill_is_not_extracted_anew(tmp_path, root, whole, monkeypatch):
    """The same command continues with the missing shards, and a run accepts the result as its own."""
    stopped = InProcess()

    def stop(words, *, wait):
        if stopped.n_run == 2:
            raise KeyboardInterrupt
        return InProcess.run(stopped, words, wait=wait)

    stopped.run = stop
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [stopped])
    assert extract.main([*words(tmp_path, root), "--shard-images", "320"]) == 130
    worker = InProcess()
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [worker])
    assert extract.main([*words(tmp_path, root), "--shard-images", "320"]) == 0
    assert worker.n_run == 2 + 2 and same(banks(tmp_path), whole)


def test_a_shard_that_fails_is_named_and_the_others_are_kept(tmp_path, root, monkeypatch, capsys):
    def run(words, *, wait):
        return cell.Outcome(cell.FAILED, "the disk is full") if words[3].startswith("320") else run_task(words, worker.held)

    worker = InProcess()
    worker.run = run
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [worker])
    assert extract.main([*words(tmp_path, root), "--shard-images", "320", "--splits", "train"]) == 1
    assert "extract.py: train features 320:640: the disk is full" in capsys.readouterr().err
    assert len(list(tmp_path.glob("*.blocks/*"))) == 3


def test_a_worker_on_another_kind_of_machine_is_refused(tmp_path, root, monkeypatch, capsys):
    """Its features would have another key: a run on this machine would not find them, and make its own."""
    worker, own = InProcess(), shard.source_of

    def source_of(*arguments):
        source = own(*arguments)
        return source._replace(key=source.key | {"device": "cuda sm_90"})

    monkeypatch.setattr(shard, "source_of", source_of)
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [worker])
    assert extract.main([*words(tmp_path, root), "--shard-images", "320"]) == 1
    error = capsys.readouterr().err
    assert "(device cuda sm_90 instead of cpu)" in error and "give the command where workers run" in error
    assert worker.n_run == 1 and not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.blocks"))


@pytest.mark.starts
def test_two_processes_extract_what_one_does(tmp_path, root, whole, monkeypatch):
    """Each has one of two cores."""
    monkeypatch.setattr(local.subprocess, "Popen", commands.popen)
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert extract.main([*words(tmp_path, root), "--shard-images", "200", "--workers", "2"]) == 0
    assert same(banks(tmp_path), whole)


@pytest.mark.starts
def test_two_actors_of_ray_one_killed(tmp_path, root, whole, monkeypatch):
    """Another actor extracts the shard of the killed one."""
    ray = pytest.importorskip("ray")
    killed, build = [], backends.build_workers

    def watched(arguments, folder, n):
        workers = build(arguments, folder, n)
        threading.Thread(target=kill, args=(workers[0],), daemon=True).start()
        return workers

    def kill(worker) -> None:
        while worker._actor is None or not list(tmp_path.glob("*.blocks/*")):
            time.sleep(0.01)
        ray.kill(worker._actor)
        killed.append(True)

    monkeypatch.setattr(extract, "build_workers", watched)
    try:
        assert extract.main([*words(tmp_path, root), "--shard-images", "96", "--workers", "2", "--backend", "ray"]) == 0
    finally:
        ray.shutdown()
    assert killed and same(banks(tmp_path), whole)


def test_a_split_without_images_is_left_out(tmp_path, capsys):
    """Photographs in class folders have no val, unless somebody made one."""
    for label in "ab":
        (tmp_path / "photos" / "train" / label).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((32, 32, 3), 20 * number + ord(label), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / "train" / label / f"{number}.png")
    shutil.copytree(tmp_path / "photos" / "train", tmp_path / "photos" / "test")
    own = words(tmp_path / "cache", tmp_path / "photos")
    assert extract.main([*own, "DATASET.NAME", "ImageFolder", "--splits", "val"]) == 0
    assert "images, " not in capsys.readouterr().out


def test_a_wrong_word_is_one_line(tmp_path, capsys):
    for own, said in ((["--backend", "cloud"], "invalid choice"), (["--shard-images", "0"], "whole number from 1"),
                      (["--splits", "all"], "invalid choice"), (["DATASET.NAME", "Nothing"], "Nothing")):
        assert extract.main(own) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1


@pytest.mark.parametrize(("missing", "expected"), [
    ([], []), ([0, 1, 2], [range(3)]), ([2, 5, 6, 7, 12], [range(2, 3), range(5, 8), range(12, 13)]),
    (range(10), [range(4), range(4, 8), range(8, 10)])])
def test_shards_hold_all_that_is_missing(missing, expected):
    assert list(shards(missing, 4)) == expected


def test_ctrl_c_ends_it(tmp_path, root):
    """It works as with other commands."""
    process = commands.popen([sys.executable, str(PROJECT / "scripts" / "extract.py"), *words(tmp_path, root)])
    while not list(tmp_path.glob("*")):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(240) == 130


def half(cache: Path, root: Path) -> list[str]:
    return [*words(cache, root), "MODEL.FEATURES", "float16", "--splits", "train"]


def keep_shards(cache: Path, root: Path, monkeypatch) -> Path:
    """Extract the train split in float16 into shards alone; return their folder."""
    monkeypatch.setattr(extract, "build_workers", lambda arguments, folder, n: [InProcess()])
    assert extract.main([*half(cache, root), "--shard-images", "320", "--keep-shards"]) == 0
    folder, = cache.glob("*.blocks")
    return folder


def test_shards_are_kept_with_an_index_and_a_run_elsewhere_joins_them(tmp_path, root, whole, monkeypatch, capsys):
    """Shards are float16: each number is the rounded float32 one. The index describes each shard."""
    from dassl.data.feature_bank import load_bank

    folder = keep_shards(tmp_path / "cache", root, monkeypatch)
    assert "features of 1,197 images in 4 shards, 128 numbers each, 1,197 of them extracted now" in capsys.readouterr().out
    index = json.loads((folder / "index.json").read_text())
    assert [(own["file"][:11], own["first"], own["rows"], own["dtype"], own["width"]) for own in index["shards"]] == [
        (f"{first:010d}-", first, min(320, 1197 - first), "F16", 128) for first in (0, 320, 640, 960)]
    assert index["key"]["features"] == "float16" and not list((tmp_path / "cache").glob("*.safetensors"))
    shutil.copytree(tmp_path / "cache", tmp_path / "there")
    monkeypatch.setattr("dassl.data.feature_blocks.Blocks._add", None)  # nothing is extracted
    bank = load_bank(*source_of(cell.configured(half(tmp_path / "there", root)[:-2]), Held(), "train", "features"))
    expected, = (own for name, own in whole.items() if "_train_" in name)
    assert bank.features.dtype == torch.float16 and torch.equal(bank.features, expected.half())
    assert not list((tmp_path / "there").glob("*.blocks"))


def shard_from(folder: Path, first: int) -> Path:
    path, = folder.glob(f"{first:010d}-*.safetensors")
    return path


def without_shard(folder: Path) -> None:
    shard_from(folder, 320).unlink()


def with_cut_shard(folder: Path) -> None:
    path = shard_from(folder, 320)
    path.write_bytes(path.read_bytes()[:-9])


def with_altered_shard(folder: Path) -> None:
    path = shard_from(folder, 320)
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def with_other_rows(folder: Path) -> None:
    """Put another shard's content under a shard's name, valid in itself."""
    shutil.copyfile(shard_from(folder, 640), shard_from(folder, 320))


def with_other_index(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text().replace('"rows": 320', '"rows": 321', 1))


def with_damaged_index(folder: Path) -> None:
    (folder / "index.json").write_text("[")


def with_number_as_file(folder: Path) -> None:
    path = folder / "index.json"
    path.write_text(path.read_text().replace(f'"file": "{shard_from(folder, 320).name}"', '"file": 320', 1))


@pytest.mark.parametrize(("damage", "n_anew", "said"), [
    (with_number_as_file, 0, "320 is missing, which index.json lists: its images are extracted anew"),
    (without_shard, 320, "0000000320.safetensors is missing, which index.json lists: its images are extracted anew"),
    (with_cut_shard, 320, "0000000320.safetensors is not what index.json lists (first unreadable, not 320"),
    (with_altered_shard, 320, "0000000320.safetensors does not hold what its name says and is made anew"),
    (with_other_rows, 320, "0000000320.safetensors is not what index.json lists (first 640, not 320"),
    (with_other_index, 320, "0000000000.safetensors is not what index.json lists (rows 320, not 321) and is made anew"),
    (with_damaged_index, 0, "is not used: shards say themselves what they hold")])
def test_shards_that_are_not_what_the_index_says_are_named_and_made_anew(
        tmp_path, root, whole, monkeypatch, caplog, capsys, damage, n_anew, said):
    """Row 50: each has its line. The others are kept, and the bank is that of a single pass."""
    damage(keep_shards(tmp_path, root, monkeypatch))
    capsys.readouterr()
    assert extract.main(half(tmp_path, root)) == 0
    lines = [re.sub(r"-[0-9a-f]{8}\.safetensors", ".safetensors", own.getMessage()) for own in caplog.records]
    assert any(said in line and "\n" not in line for line in lines)
    assert f"{n_anew:,} of them extracted now" in capsys.readouterr().out
    found, = banks(tmp_path).values()
    expected, = (own for name, own in whole.items() if "_train_" in name)
    assert torch.equal(found, expected.half()) and not list(tmp_path.glob("*.blocks"))


@pytest.mark.parametrize(("n_images", "said"), [
    (30, "30 images in 2 shards, 4 numbers each"),
    (42, "30 images in 2 shards, 4 numbers each; the other 12 are in an earlier bank, which does not move with them")])
def test_shards_that_do_not_hold_all_images_say_so(monkeypatch, n_images, said):
    """Those that an earlier bank holds are not extracted again, and would be missed where the shards are moved to."""
    shards = [{"rows": 20, "width": 4}, {"rows": 10, "width": 4}]
    monkeypatch.setattr("dassl.data.feature_bank.list_shards", lambda source: shards)
    source = SimpleNamespace(contents=SimpleNamespace(paths=[str(number) for number in range(n_images)]))
    assert extract.kept(source, joins=False) == said
