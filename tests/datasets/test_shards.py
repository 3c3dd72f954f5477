"""WebDataset shards: tar files with images and their classes, which are not unpacked."""

import io
import json
import tarfile
from pathlib import Path

import pytest

import datasets  # noqa: F401  registers the data sets
from dassl.config.setup import setup_config
from dassl.data.build import build_dataset, load_dataset
from dassl.data.dataset import DATASETS, SPLITS, UNLABELED
from dassl.data.images import read_bytes
from dassl.utils.errors import DataError
from datasets.check import check
from tests.datasets.made import encoded


def write_shard(file: Path, members: dict[str, bytes], **options) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file


def samples(rows) -> dict[str, bytes]:
    return {name: content for row in rows for name, content in {
        f"s{row:04d}.png": encoded(row), f"s{row:04d}.cls": str(row % 2).encode()}.items()}


def build(root: Path, **parameters):
    return DATASETS["WebDataset"].build(root, **parameters)


@pytest.fixture
def shards(tmp_path) -> Path:
    """Return shards like those of CLIP benchmark: two train shards and a test shard, with the class names next to them."""
    write_shard(tmp_path / "train" / "0.tar", samples(range(4)))
    write_shard(tmp_path / "train" / "1.tar", samples(range(4, 7)))
    write_shard(tmp_path / "test" / "0.tar", samples(range(7, 10)))
    (tmp_path / "classnames.txt").write_text("cat\ndog\nbird\n")
    return tmp_path


def test_shards_are_a_data_set(shards):
    dataset = build(shards)
    assert dataset.classnames == ("cat", "dog", "bird")
    assert [[(datum.path, datum.label) for datum in dataset.split(split)] for split in SPLITS] == [
        [(f"train/s{row:04d}.png", row % 2) for row in range(7)], [],
        [(f"test/s{row:04d}.png", row % 2) for row in range(7, 10)]]
    assert [read_bytes(file) for file in dataset.files("train")] == [encoded(row) for row in range(7)]


def test_they_are_called_by_their_own_name(shards):
    cfg = setup_config([], [("DATASET.NAME", "WebDataset"), ("DATASET.ROOT", str(shards))], (DATASETS,))
    assert len(load_dataset(cfg.DATASET).train) == 7


@pytest.mark.parametrize("label", ["label", "cls", "what"])
def test_json_says_the_class(tmp_path, label):
    """The column is configurable, names may contain dots and folders, and tar formats with long names are read too."""
    for split, rows in (("train", range(6)), ("test", range(6, 8))):
        write_shard(tmp_path / f"set-{split}-000.tar", {name: content for row in rows for name, content in {
            f"{'deep/' * 40}{row}.v1.png": encoded(row),
            f"{'deep/' * 40}{row}.v1.json": json.dumps({label: ["cat", "dog"][row % 2], "size": [1, 2]}).encode()}.items()})
    dataset = build(tmp_path, label="" if label != "what" else label)
    assert dataset.classnames == ("cat", "dog")
    assert [datum.label for datum in dataset.train] == [0, 1] * 3
    assert [read_bytes(file) for file in dataset.files("test")] == [encoded(6), encoded(7)]


def test_samples_without_a_class_are_the_pool_and_without_an_image_are_none(tmp_path):
    write_shard(tmp_path / "pool.tar", {"a.png": encoded(0), "b.txt": b"a caption", "c.png": encoded(1), "._c.png": b"Mac"})
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    dataset = build(tmp_path)
    assert [(datum.path, datum.label) for datum in dataset.train] == [("a.png", UNLABELED), ("c.png", UNLABELED)]


def test_images_in_shards_are_checked_as_files_are(tmp_path):
    write_shard(tmp_path / "train.tar", samples(range(4)) | {"s9.png": b"not an image", "s9.cls": b"1"})
    write_shard(tmp_path / "test.tar", samples([1]))
    report = check(build(tmp_path), n_threads=2)
    assert report["leaks"] == ["train train/s0001.png = test test/s0001.png"]
    assert len(report["corrupt"]) == 1 and "train.tar/train/s9.png: not an image" in report["corrupt"][0]


def test_a_damaged_image_can_be_left_out(tmp_path):
    """The others of the shard stay."""
    write_shard(tmp_path / "train.tar", samples(range(4)) | {"s9.png": b"", "s9.cls": b"1"})
    write_shard(tmp_path / "test.tar", samples(range(4, 6)))
    keys = [("DATASET.NAME", "Table"), ("DATASET.ROOT", str(tmp_path)), ("DATASET.CORRUPT", "skip")]
    cfg = setup_config([], keys, (DATASETS,))
    assert len(build_dataset(cfg.DATASET, seed=1).train) == 4


@pytest.mark.parametrize(("content", "message"), [
    (b"", "cannot read .*train.tar: "), (b"x" * 2000, "cannot read .*train.tar: "),
    ({"a.png": b"1", "a.jpg": b"2"}, "the sample a holds two images, a.png and a.jpg"),
    ({"a.png": b"1", "a.json": b"[1]"}, "a.json is not a JSON object"),
    ({"a.png": b"1", "a.json": b"{"}, "cannot read a.json")])
def test_a_shard_that_is_none_is_named(tmp_path, content, message):
    if isinstance(content, dict):
        write_shard(tmp_path / "train.tar", content)
    else:
        (tmp_path / "train.tar").write_bytes(content)
    with pytest.raises(DataError, match=message):
        build(tmp_path)


def test_a_shard_that_is_cut_off_or_compressed_is_named(shards):
    file = shards / "train" / "0.tar"
    content = file.read_bytes()
    file.write_bytes(content[:700])
    with pytest.raises(DataError, match=r"cannot read .*0\.tar: unexpected end of data"):
        build(shards)
    import gzip

    file.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="a shard is a tar file that is not compressed"):
        build(shards)
