"""A run on kept views is gone on with as if it had never been stopped, and repeats from scratch."""

import dataclasses
import itertools
import shutil
from pathlib import Path

import pytest
from PIL import Image

import active.verify
import train
from active.record.results import MEASURED, RunResult
from active.verify import main
from tests import commands


def test_a_run_on_kept_views_goes_on_and_repeats(root, tmp_path, capsys, monkeypatch):
    """Bit for bit, whatever the bank held before: nothing, the views of the first round, or all of them."""
    monkeypatch.setattr(active.verify.subprocess, "run", commands.run)
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(root), "OPTIM.MAX_EPOCH", "2", "VERBOSE", "false",
             "INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']", "INPUT.VIEWS", "3"]

    def rounds(name: str, n_rounds: int) -> list[dict]:
        assert train.main([*words, "--output-dir", str(tmp_path / name), "CACHE_DIR", str(tmp_path / "cache"), "ACTIVE.ROUNDS",
                           str(n_rounds)]) == 0
        records = RunResult.read(tmp_path / name / "results.json").rounds
        return [{key: value for key, value in dataclasses.asdict(own).items() if key not in MEASURED} for own in records]

    rounds("stopped", 1)
    assert rounds("stopped", 2) == (whole := rounds("whole", 2))
    views = list((tmp_path / "cache").glob("*_views_*/*.safetensors"))
    assert len(views) == 2 and whole[1]["n_labeled"] > whole[0]["n_labeled"]  # one file of each round's new images
    assert main([str(tmp_path / "whole" / "results.json"), "--fresh"]) == 0 and "equal: 2 rounds" in capsys.readouterr().out


@pytest.mark.parametrize(("views", "changing"), [("0", "dassl.engine.predict"), ("3", "active.loop")])
def test_nothing_is_kept_of_images_that_change_under_a_run(tmp_path, capsys, monkeypatch, views, changing):
    """Row 8: the run stops; once the images are back, another one on the same cache is as if nothing had happened.

    They change while features are extracted, or, with kept views, after their features and before their views.
    """
    root, kept, changed = tmp_path / "images", tmp_path / "kept", []
    for split, label, number in itertools.product(("train", "test"), "abc", range(6)):
        path = root / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), tuple(40 * number if label == other else 90 for other in "abc")).save(path)
    shutil.copytree(root, kept)
    words = ["--config-file", "configs/quickstart.yaml", "DATASET.NAME", "ImageFolder", "OPTIM.MAX_EPOCH", "2",
             "ACTIVE.ROUNDS", "1", "ACTIVE.QUERY_SIZE", "4", "VERBOSE", "false", "DATALOADER.TEST.BATCH_SIZE", "8",
             "INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']", "INPUT.VIEWS", views]

    def run(name: str, images: Path, cache: str) -> int:
        return train.main([*words, "--root", str(images), "--output-dir", str(tmp_path / name),
                           "CACHE_DIR", str(tmp_path / cache)])

    def change(*_: object) -> None:
        for path in () if changed else root.rglob("*.png"):
            Image.new("RGB", (9, 9)).save(path)
        changed.append(1)

    assert run("whole", kept, "other") == 0
    with monkeypatch.context() as own:
        own.setattr(f"{changing}.{'event' if views == '0' else '_warm_start'}", change)
        assert run("stopped", root, "cache") == 1
    assert "have changed since this was started" in capsys.readouterr().err and changed
    shutil.copytree(kept, root, dirs_exist_ok=True)
    assert run("again", root, "cache") == 0
    whole, again = (RunResult.read(tmp_path / name / "results.json").rounds[0] for name in ("whole", "again"))
    assert (again.query_hash, again.metrics, again.files) == (whole.query_hash, whole.metrics, whole.files)
