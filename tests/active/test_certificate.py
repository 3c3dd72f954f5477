"""The hashes of config, code and data: what moves them and what does not."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import active.certificate
from active.certificate import code_hash, config_hash, data_hash
from dassl.config.setup import as_dict
from dassl.data.dataset import Dataset, Datum
from tests.active.toy import toy_config


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Three images of two classes, which nobody decodes."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).write_bytes(name.encode())
    return Dataset("Three", tmp_path / "root", (Datum("a.png", 0), Datum("b.png", 1)), (), (Datum("c.png", 1),), ("x", "y"))


def test_the_config_hash_follows_what_a_run_computes_and_not_where(tmp_path):
    """A learning rate moves it; folders and worker processes do not."""
    config = as_dict(toy_config(tmp_path))
    assert config_hash(as_dict(toy_config(tmp_path, OPTIM__LR=0.5))) != config_hash(config)
    assert config_hash(as_dict(toy_config(tmp_path / "b", DATALOADER__NUM_WORKERS=9, DATASET__ROOT="c"))) == config_hash(config)


def test_the_code_hash_follows_every_file_and_the_plugins(tmp_path, monkeypatch):
    """One changed byte in the project or in a plug-in is another code; the working folder is none of it."""
    for path in ("train.py", "active/a.py", "dassl/data/b.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x = 1\n")
    plugin = tmp_path / "plugin.py"
    plugin.write_text("y = 1\n")
    monkeypatch.setattr(active.certificate, "PROJECT", tmp_path)
    hashes = [code_hash(), code_hash([str(plugin)])]
    for path in ("train.py", "active/a.py", "dassl/data/b.py"):
        (tmp_path / path).write_text("x = 2\n")
        hashes.append(code_hash())
    plugin.write_text("y = 2\n")
    hashes.append(code_hash([str(plugin)]))
    monkeypatch.setitem(sys.modules, "some.plugin", SimpleNamespace(__file__=str(plugin)))
    hashes.append(code_hash(["some.plugin"]))
    assert hashes.pop() == hashes[-1]
    assert len(set(hashes)) == len(hashes)
    monkeypatch.chdir(tmp_path)
    assert code_hash() == hashes[-2]


def test_the_data_hash_follows_bytes_labels_classes_and_split(dataset, tmp_path):
    """A changed byte of one image, a label, a class name, the template and an image's split each move it."""
    def hashed(changed: Dataset) -> str:
        return data_hash(changed, tmp_path / "cache")

    first, second = dataset.train
    hashes = [hashed(dataset), hashed(dataclasses.replace(dataset, classnames=("x", "z"))),
              hashed(dataclasses.replace(dataset, train=(first, Datum("b.png", 0)))),
              hashed(dataclasses.replace(dataset, train=(first,), val=(second,))),
              hashed(dataclasses.replace(dataset, template="a drawing of a {}."))]
    path = dataset.root / "b.png"
    before = path.stat().st_mtime_ns
    path.write_bytes(b"B.png")
    os.utime(path, ns=(before + 1, before + 1))
    assert len({*hashes, hashed(dataset)}) == 6


def test_a_moved_data_root_has_the_same_data_hash(dataset, tmp_path):
    """Copied with other times of change to another folder, the data are the same."""
    shutil.copytree(dataset.root, tmp_path / "moved", copy_function=shutil.copyfile)
    moved = dataclasses.replace(dataset, root=tmp_path / "moved")
    assert data_hash(moved, tmp_path / "other cache") == data_hash(dataset, tmp_path / "cache")


def test_images_are_read_once(dataset, tmp_path, monkeypatch):
    """The second time their hashes come from the folder."""
    first = data_hash(dataset, tmp_path / "cache")
    monkeypatch.setattr(active.certificate, "sha256_of", lambda path: pytest.fail(f"{path} was read again"))
    assert data_hash(dataset, tmp_path / "cache") == first


def test_kept_hashes_of_which_a_digit_changed_are_made_anew(dataset, tmp_path):
    """Row 8 of the faults table: else a run would be refused as one on other images."""
    first = data_hash(dataset, tmp_path / "cache")
    for file in Path(tmp_path / "cache").glob("*.json"):
        kept = json.loads(file.read_text())
        kept["sha256"] = kept["sha256"][1:] + kept["sha256"][:1]
        file.write_text(json.dumps(kept))
    assert data_hash(dataset, tmp_path / "cache") == first


@pytest.mark.parametrize("text", ["", "[1]", '{"files": "other", "sha256": "0"}', '{"files": 1}'])
def test_kept_hashes_that_are_damaged_are_made_anew(dataset, tmp_path, text):
    """Row 8 of the faults table: cut off, of another form, or of other files."""
    first = data_hash(dataset, tmp_path / "cache")
    files = list(Path(tmp_path / "cache").glob("*.json"))
    assert len(files) == 2
    for file in files:
        file.write_text(text)
    assert data_hash(dataset, tmp_path / "cache") == first
    assert all(file.read_text() != text for file in files)
