"""From a config node to the data set of a run, and what is reported about it."""

import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from yacs.config import CfgNode

import datasets  # noqa: F401  registers the data sets
from dassl.data import places, scan
from dassl.data.build import build_dataset, check_labeled, classname_problems
from dassl.data.dataset import UNLABELED, Dataset, Datum
from dassl.utils.errors import ConfigError, DataError
from dassl.utils.files import write_json
from dassl.utils.paths import open_file


def item(path: str, label: int) -> list:
    return [path, label, f"class {label}"]


@pytest.fixture
def node(tmp_path) -> CfgNode:
    """DTD's layout: four classes of six train, two val and two test images each."""
    content = {split: [item(f"c{label}/{split}{row}.png", label) for label in range(4) for row in range(count)]
               for split, count in (("train", 6), ("val", 2), ("test", 2))}
    for rows in content.values():
        for path, label, _ in rows:
            (tmp_path / "dtd" / "images" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), label, np.uint8)).save(tmp_path / "dtd" / "images" / path)
    write_json(tmp_path / "dtd" / "split_zhou_DescribableTextures.json", content)
    return CfgNode({"NAME": "DTD", "ROOT": str(tmp_path), "NUM_SHOTS": -1, "SUBSAMPLE_CLASSES": "all", "CORRUPT": "error",
                    "DTD": CfgNode({"SPLIT": "published"})})


def test_the_whole_set_is_the_default(node):
    dataset = build_dataset(node, seed=1)
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [24, 8, 8]


def test_shots_and_base_classes_are_applied_together(node):
    node.NUM_SHOTS, node.SUBSAMPLE_CLASSES = 3, "new"
    dataset = build_dataset(node, seed=1)
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [6, 4, 4]
    assert dataset.classnames == ("class 2", "class 3")
    assert {datum.path.split("/")[2] for datum in dataset.train if datum.label == 0} == {"c2"}


@pytest.mark.parametrize("part", ["base", "new"])
def test_half_of_the_classes_is_said(node, caplog, part):
    """Row 31 of the faults table: a run on a part of the classes must not look like one on all."""
    node.SUBSAMPLE_CLASSES = part
    with caplog.at_level(logging.INFO):
        build_dataset(node, seed=1)
    assert f"DTD: 2 of 4 classes, {part}" in caplog.text


def test_zero_shots_are_a_config_error(node):
    node.NUM_SHOTS = 0
    with pytest.raises(ConfigError, match="NUM_SHOTS is 0"):
        build_dataset(node, seed=1)


def test_all_missing_images_are_in_one_report(node):
    """Row 2 of the faults table."""
    for name in ("c0/train0.png", "c3/test1.png"):
        (Path(node.ROOT) / "dtd" / "images" / name).unlink()
    with pytest.raises(DataError, match=r"(?s)2 image files are missing.*c0/train0.png.*c3/test1.png"):
        build_dataset(node, seed=1)


def test_a_moved_data_root_gives_the_same_ids(node, tmp_path):
    """Row 29 of the faults table."""
    first = build_dataset(node, seed=1)
    (tmp_path / "moved").symlink_to(tmp_path)
    node.ROOT = str(tmp_path / "moved")
    assert build_dataset(node, seed=1).train == first.train


def test_corrupt_images_are_left_out_with_a_count_where_that_is_asked_for(node, caplog):
    """Row 1 of the faults table: policy skip."""
    for name, content in (("c0/train0.png", b""), ("c3/test1.png", b"text")):
        (Path(node.ROOT) / "dtd" / "images" / name).write_bytes(content)
    node.CORRUPT = "skip"
    dataset = build_dataset(node, seed=1, n_threads=2)
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [23, 8, 7]
    assert "2 of 40 images cannot be decoded and are left out" in caplog.text
    assert "c0/train0.png: empty file" in caplog.text


def test_images_that_cannot_be_read_this_time_are_not_left_out(node, monkeypatch):
    """Row 1: a disk that fails for a moment, or a lack of memory, must not make the data set smaller."""
    bad = Path(node.ROOT) / "dtd" / "images" / "c0" / "train0.png"

    def failing(path):
        if Path(path) == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_file(path)

    monkeypatch.setattr(places, "open_file", failing)
    node.CORRUPT = "skip"
    with pytest.raises(DataError, match=r"(?s)1 image files cannot be read, .*c0/train0.png: Input/output error"):
        build_dataset(node, seed=1)


def test_an_image_that_is_refused_only_once_stays(node, monkeypatch, caplog):
    """Row 1: under load a decoder may report a lack of memory as a broken file. The second attempt runs alone."""
    refused, inspect = [], scan.inspect

    def once(path):
        if path.name == "train1.png" and path not in refused:
            refused.append(path)
            return scan.FileReport(path, error=f"cannot decode {path}: broken data stream", is_refused=True)
        return inspect(path)

    monkeypatch.setattr(scan, "inspect", once)
    node.CORRUPT = "skip"
    assert len(build_dataset(node, seed=1, n_threads=2).train) == 24
    assert len(refused) == 4 and "left out" not in caplog.text


def test_empty_classes_are_said_aloud_and_keep_their_labels(node, caplog):
    """Row 3 of the faults table."""
    rows = [item("c1/train0.png", 1), item("c3/train0.png", 3)]
    everything = [item(f"c{label}/test0.png", label) for label in range(4)]
    write_json(Path(node.ROOT) / "dtd" / "split_zhou_DescribableTextures.json", {"train": rows, "val": [], "test": everything})
    dataset = build_dataset(node, seed=1)
    assert dataset.labels("train").tolist() == [1, 3]
    assert "2 classes have no train image: class 0, class 2" in caplog.text


def test_an_image_in_train_and_test_is_said_aloud(node, caplog):
    """Row 5 of the faults table."""
    rows = [item("c0/train0.png", 0)]
    write_json(Path(node.ROOT) / "dtd" / "split_zhou_DescribableTextures.json", {"train": rows, "val": [], "test": rows})
    build_dataset(node, seed=1)
    assert "1 images stand in both train and test" in caplog.text


def test_an_empty_val_split_is_said(node, caplog):
    """Row 31 of the faults table."""
    rows = [item("c0/train0.png", 0)]
    write_json(Path(node.ROOT) / "dtd" / "split_zhou_DescribableTextures.json", {"train": rows, "val": [], "test": rows})
    with caplog.at_level(logging.INFO):
        build_dataset(node, seed=1)
    assert "no validation split" in caplog.text


@pytest.mark.parametrize(("names", "problem"), [
    (("a", "a"), "is the name of 2 classes"), (("sea_lion", "Sea Lion"), "differ only in"),
    (("\u00e9", "e\u0301"), "differ only in"),
    ((" a",), "starts or ends with a space"), (("_",), "is blank"), (("na\u00efve",), "is not ASCII")])
def test_odd_class_names_are_found(names, problem):
    """Row 27 of the faults table; two classes of one name keep their own labels."""
    assert any(problem in line for line in classname_problems(names))


def test_ordinary_class_names_raise_nothing():
    assert classname_problems(("polka-dotted", "colt's foot", "2012 Audi A5 Coupe", "outdoor apartment_building")) == []


def test_a_pool_without_labels_cannot_be_simulated():
    pool = Dataset("Toy", Path("."), (Datum("a", UNLABELED), Datum("b", 0)), (), (Datum("c", 0),), ("x",))
    with pytest.raises(DataError, match="1 of 2 train images have no label"):
        check_labeled(pool)


def test_unlabeled_images_are_for_train_alone():
    with pytest.raises(DataError, match="1 test labels lie outside"):
        Dataset("Toy", Path("."), (Datum("a", 0),), (), (Datum("b", UNLABELED),), ("x",))
