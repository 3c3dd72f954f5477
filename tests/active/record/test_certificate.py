"""The hashes of config, code and data: what moves them and what does not."""

import dataclasses
import os
import runpy
import shutil

import pytest

import active.record.certificate
from active.record.certificate import CODE, code_hash, config_hash
from dassl.config.setup import as_dict, load_plugin
from dassl.data.dataset import Dataset, Datum
from dassl.data.digests import ImageFiles, data_hash
from dassl.utils import environment
from tests.active.toy import toy_config
from tests.data.test_feature_bank import make_dataset


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Three images of two classes that are never decoded."""
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "root" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "root" / name).write_bytes(name.encode())
    return Dataset("Three", tmp_path / "root", (Datum("a.png", 0), Datum("b.png", 1)), (), (Datum("c.png", 1),), ("x", "y"))


def test_the_config_hash_follows_what_a_run_computes_and_not_where(tmp_path):
    """A learning rate moves it; folders and worker processes do not."""
    config = as_dict(toy_config(tmp_path))
    assert config_hash(as_dict(toy_config(tmp_path, OPTIM__LR=0.5))) != config_hash(config)
    assert config_hash(as_dict(toy_config(tmp_path / "b", DATALOADER__NUM_WORKERS=9, DATASET__ROOT="c"))) == config_hash(config)


@pytest.fixture
def other_code(tmp_path, monkeypatch):
    """A folder that stands for the project; code that is read afterwards is the real project's."""
    monkeypatch.setattr(environment, "PROJECT", tmp_path)
    yield tmp_path
    environment.code.cache_clear()


def test_the_code_hash_is_that_of_the_imported_files(tmp_path, other_code):
    """Row 32: a process that starts after a byte has changed is other code; one that has imported it before is not."""
    hash_now = code_hash()
    hashes = {hash_now}
    for path in ("train.py", "active/a.py", "dassl/data/b.py"):
        for text in ("x = 1\n", "x = 2\n"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
            (tmp_path / "train.py").touch()
            environment.code.cache_clear()  # as in a process that has just started
            hashes.add(runpy.run_path(active.record.certificate.__file__)["code_hash"]())
    assert len(hashes) == 7 and code_hash() == hash_now


@pytest.mark.parametrize("by", ["path", "name"])
def test_the_code_hash_is_that_of_the_imported_plugins(tmp_path, monkeypatch, by):
    """Row 32: each plug-in counts with the bytes that it had when it was loaded; one without a file counts for nothing."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "empty_package").mkdir()
    names = [f"first_by_{by}", f"second_by_{by}"]
    plugins = [str(tmp_path / f"{name}.py") if by == "path" else name for name in names]
    for index, name in enumerate(names):
        (tmp_path / f"{name}.py").write_text(f"y = {index}\n")
    for plugin in (*plugins, "empty_package"):
        load_plugin(plugin)
    hashes = [code_hash(), code_hash(plugins[:1]), code_hash(plugins[1:]), code_hash(plugins)]
    (tmp_path / f"{names[0]}.py").write_text("y = 2\n")
    load_plugin(plugins[0])
    assert len(set(hashes)) == 4 and code_hash(plugins) == hashes[3] and code_hash(["empty_package"]) == hashes[0]


def test_the_data_hash_follows_bytes_labels_classes_and_split(dataset, tmp_path):
    """A change of an image's bytes, a label, a class name, the template, or an image's split changes it."""
    def hashed(changed: Dataset) -> str:
        return data_hash(ImageFiles(changed, tmp_path / "cache"))

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


def test_the_data_hash_follows_the_bytes_of_further_files(dataset, tmp_path):
    """Descriptions are data too. Without any, the hash covers only the images."""
    files = ImageFiles(dataset, tmp_path / "cache")
    (tmp_path / "texts.json").write_text("one")
    hashes = [data_hash(files), data_hash(files, [tmp_path / "texts.json"])]
    (tmp_path / "texts.json").write_text("two")
    assert len({*hashes, data_hash(files, [tmp_path / "texts.json"])}) == 3


def test_a_moved_data_root_has_the_same_data_hash(dataset, tmp_path):
    """Copied with other times of change to another folder, the data are the same."""
    shutil.copytree(dataset.root, tmp_path / "moved", copy_function=shutil.copyfile)
    moved = dataclasses.replace(dataset, root=tmp_path / "moved")
    assert data_hash(ImageFiles(moved, tmp_path / "other cache")) == data_hash(ImageFiles(dataset, tmp_path / "cache"))


def test_the_data_hash_is_that_of_former_versions(tmp_path):
    """Otherwise their runs could not be continued. This value was computed by the earlier code."""
    dataset = make_dataset(tmp_path / "data")
    assert data_hash(ImageFiles(dataset)) == "7f75718d869a4bcd3e87e9a276eb1304a147fae7f24eecbf99f63e2bb5cd1cfb"


def test_the_code_is_all_that_a_run_imports_of_the_project():
    """Samplers, learners, data sets, what they stand on, and the command."""
    assert {name.partition("/")[0] for name in CODE} == {"active", "dassl", "datasets", "trainers", "train.py"}
    assert {"active/samplers/badge.py", "datasets/digits.py", "trainers/coop.py", "dassl/data/images.py"} <= CODE.keys()
