"""The bytes of a data set's images: each start looks at each file once, and reads it only if it has changed."""

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch

from dassl.data import digests
from dassl.data.dataset import Dataset, Datum
from dassl.data.digests import ImageFiles
from dassl.utils.errors import DataError, UserError
from tests.utils.test_files import full_disk

NAMES = ("a.png", "b.png", "ü\udce9.png")


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    for name in NAMES:
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / name).write_bytes(os.fsencode(name))
    items = tuple(Datum(name, 0) for name in NAMES)
    return Dataset("Three", tmp_path / "root", items[:2], (), items[2:], ("x", "y"))


@pytest.fixture
def n_read(monkeypatch) -> list[str]:
    """The names of all files that are read."""
    read, read_bytes = [], digests.read_bytes
    monkeypatch.setattr(digests, "read_bytes", lambda path: read.append(Path(path).name) or read_bytes(path))
    return read


def test_the_digests_are_those_of_the_bytes(dataset):
    contents = ImageFiles(dataset).contents("train")
    assert [bytes(row).hex() for row in contents.digests.numpy()] == [
        hashlib.sha256(name.encode()).hexdigest() for name in ("a.png", "b.png")]


def test_a_part_of_the_train_images_is_that_part_without_a_look_or_a_reading(dataset, n_read, monkeypatch):
    """Its paths, stamps and hashes are those that the part would have on its own."""
    files = ImageFiles(dataset)
    alone = ImageFiles(dataclasses.replace(dataset, train=dataset.train[1:]))
    expected = alone.contents("train")
    files.contents("train")
    n_read.clear()
    monkeypatch.setattr(digests, "_stamps", lambda _: pytest.fail("it was looked at again"))
    part = files.keeping([1])
    found = part.contents("train")
    assert (found.paths, found.sha256, found.digests.tolist()) == (expected.paths, expected.sha256, expected.digests.tolist())
    assert part.digest() == alone.digest() and part.dataset.train == dataset.train[1:] and n_read == []


@pytest.mark.parametrize("n_threads", [1, 3])
def test_files_are_read_once(dataset, tmp_path, n_read, n_threads):
    """The second start takes all from the folder."""
    first = ImageFiles(dataset, tmp_path / "cache", n_threads=n_threads)
    before = [first.contents(split).sha256 for split in ("train", "test")]
    assert sorted(n_read) == sorted(NAMES)
    second = ImageFiles(dataset, tmp_path / "cache")
    assert [second.contents(split).sha256 for split in ("train", "test")] == before
    assert sorted(n_read) == sorted(NAMES) and second.digest() == first.digest()


@pytest.mark.parametrize("change", [
    lambda path: path.write_bytes(b"other"),
    lambda path: (path.write_bytes(b"B.png"), os.utime(path, ns=(10**18, 10**18))),
    lambda path: (shutil.copyfile(path, path.with_name("copy")), os.replace(path.with_name("copy"), path)),
    lambda path: os.utime(path, ns=(10**18, 10**18)),
    lambda path: path.chmod(0o600)])
def test_a_file_that_has_changed_in_any_way_is_read_again_alone(dataset, tmp_path, n_read, change):
    """Row 8: size, time of change, the file system's own time of change, number on the disk."""
    os.utime(dataset.root / "b.png", ns=(10**18, 10**18))
    ImageFiles(dataset, tmp_path / "cache").contents("train")
    n_read.clear()
    change(dataset.root / "b.png")
    contents = ImageFiles(dataset, tmp_path / "cache").contents("train")
    assert n_read == ["b.png"]
    assert bytes(contents.digests[1].numpy()) == hashlib.sha256((dataset.root / "b.png").read_bytes()).digest()
    ImageFiles(dataset, tmp_path / "cache").contents("train")
    assert n_read == ["b.png"]


def test_each_file_is_looked_at_once(dataset, tmp_path, monkeypatch):
    """There is one pass a start, however often the hashes are needed."""
    for split in ("train", "test"):
        ImageFiles(dataset, tmp_path / "cache").contents(split)
    looked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looked.append(os.fspath(path)) or stat(path, **options))
    files = ImageFiles(dataset, tmp_path / "cache")
    for _ in range(2):
        files.digest(), [files.contents(split) for split in ("train", "test")]
    monkeypatch.undo()
    assert sorted(path for path in looked if str(path).startswith(str(dataset.root))) == sorted(
        str(dataset.root / name) for name in NAMES)


def test_a_copied_root_has_the_same_contents(dataset, tmp_path):
    """Row 29: inode numbers and times differ, but the bytes are the same."""
    shutil.copytree(dataset.root, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = ImageFiles(dataclasses.replace(dataset, root=tmp_path / "copy"), tmp_path / "cache")
    own = ImageFiles(dataset, tmp_path / "cache")
    assert own.contents("train").sha256 == copied.contents("train").sha256 and own.digest() != copied.digest()


@pytest.mark.parametrize("damage", [lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: b"",
                                    lambda content: content[:40]])
def test_a_damaged_table_is_made_anew(dataset, tmp_path, damage):
    """Row 8: otherwise a run would be refused as one on other images."""
    before = ImageFiles(dataset, tmp_path / "cache").contents("train")
    table = next((tmp_path / "cache").glob("*.digests"))
    table.write_bytes(damage(table.read_bytes()))
    after = ImageFiles(dataset, tmp_path / "cache").contents("train")
    assert after.sha256 == before.sha256 and torch.equal(after.digests, before.digests)


def test_all_files_that_are_missing_are_in_one_error(dataset):
    """Row 2: a folder or a pipe in place of an image is not an image."""
    for name in NAMES:
        (dataset.root / name).unlink()
    (dataset.root / "b.png").mkdir()
    os.mkfifo(dataset.root / NAMES[2])
    with pytest.raises(DataError, match=r"(?s)3 image files are missing.*a\.png.*b\.png"):
        ImageFiles(dataset)


def test_a_file_that_cannot_be_read_is_named(dataset, monkeypatch):
    def failing(path):
        raise DataError(f"cannot read {path}: Input/output error")

    monkeypatch.setattr(digests, "read_bytes", failing)
    with pytest.raises(DataError, match=r"cannot read .*a\.png: Input/output error"):
        ImageFiles(dataset).contents("train")


def test_a_disk_without_room_for_the_table_is_named_with_bytes_and_the_way_out(dataset, tmp_path):
    """Row 11: needed are 32 bytes of hash and 32 of stamp for each of two files, and one hash of everything."""
    with full_disk(50), pytest.raises(UserError, match=r"cannot write .*\.digests: .*; it takes 160 bytes; CACHE_DIR names"):
        ImageFiles(dataset, tmp_path / "cache").contents("train")


def test_numbers_on_the_disk_beyond_63_bits_are_kept(dataset, monkeypatch):
    """Network and overlay file systems use such inode numbers."""
    stat = os.stat

    def far(path, **options):
        found = stat(path, **options)
        return os.stat_result([found[0], 2**64 - 1, *found[2:10]], {
            name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns")})

    monkeypatch.setattr(digests.os, "stat", far)
    assert ImageFiles(dataset).contents("train").stamps[:, 3].tolist() == [2**63 - 1] * 2


def test_images_that_change_after_their_hashing_are_named(dataset, tmp_path, n_read):
    """Row 8: before anything is kept of them. A file that is merely touched is read again and found to be the same."""
    files = ImageFiles(dataset)
    files.contents("train")
    n_read.clear()
    files.check("train", [0, 1, 1])
    assert n_read == []
    os.utime(dataset.root / "a.png", ns=(1, 1))
    files.check("train", [1, 0])
    assert n_read == ["a.png"]
    (dataset.root / "b.png").write_bytes(b"B.png")
    files.check("train", [0])
    with pytest.raises(DataError, match=r"^Three: 1 images have changed since this was started; .*\n  .*b\.png$"):
        files.check("train", [0, 1, 1])
    (dataset.root / "b.png").unlink()
    with pytest.raises(DataError, match=r"^cannot read .*b\.png"):
        files.check("train", [1])


def test_features_of_an_image_that_has_changed_are_not_passed_on(dataset):
    """Those of images before it are, whatever the parts."""
    files, features = ImageFiles(dataset), torch.arange(2.0)[:, None]
    assert torch.equal(torch.cat(list(files.checked("train", [0, 1], features.split(1)))), features)
    (dataset.root / "b.png").write_bytes(b"B.png")
    parts = files.checked("train", [0, 1], features.split(1))
    assert next(parts) == 0
    with pytest.raises(DataError, match=r"b\.png"):
        next(parts)
