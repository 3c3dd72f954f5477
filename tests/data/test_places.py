"""Images that are parts of another file are images like any others, wherever images are read."""

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from active.oracles.contact_sheet import contact_sheet
from active.oracles.labeling.pictures import picture
from dassl.data.dataset import Dataset, Datum
from dassl.data.digests import ImageFiles
from dassl.data.images import Undecodable, read_image
from dassl.data.loader import image_batches
from dassl.data.places import Span, content_of, holder
from dassl.data.store import ImageStore
from dassl.utils.errors import DataError
from scripts.predicting.outputs import sorted_into
from scripts.predicting.rows import Row
from tests.data.test_loader import PREPROCESSING

N, VIEW = 5, PREPROCESSING.transform()


def png(color: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    """Five images in one file, one after the other."""
    contents = [png((50 * row, 0, 0)) for row in range(N)]
    file, parts, start = tmp_path / "all.bin", {}, 0
    file.write_bytes(b"".join(contents))
    for row, content in enumerate(contents):
        parts[f"{row}.png"] = Span(str(file), f"{row}.png", start, len(content))
        start += len(content)
    items = [Datum(path, row % 2) for row, path in enumerate(parts)]
    return Dataset("Parts", tmp_path, tuple(items[:3]), (), tuple(items[3:]), ("a", "b"), parts=parts)


def test_a_part_is_its_bytes_and_no_file(dataset):
    """Code that opens paths itself fails in it, with its name, and never reads the file that holds it."""
    part = dataset.place("1.png")
    assert content_of(part) == png((50, 0, 0))
    assert holder(part) == str(dataset.root / "all.bin")
    assert pickle.loads(pickle.dumps(part)) == part
    assert str(part) == os.fspath(part) == str(dataset.root / "all.bin" / "1.png")
    with pytest.raises(NotADirectoryError):
        Path(part).read_bytes()


def test_a_file_of_its_own_stays_a_path(dataset):
    assert dataset.place("other.png") == holder(dataset.place("other.png")) == dataset.root / "other.png"


def test_a_file_that_ends_within_an_image_is_an_error_with_its_name(dataset):
    file = dataset.root / "all.bin"
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(DataError, match=r"cannot read .*all.bin/4.png: cut off"):
        read_image(dataset.place("4.png"))


def test_damage_within_a_file_is_that_of_one_image(dataset):
    content = bytearray((dataset.root / "all.bin").read_bytes())
    content[:4] = b"none"
    (dataset.root / "all.bin").write_bytes(content)
    with pytest.raises(Undecodable, match=r"cannot decode .*all.bin/0.png: not an image"):
        read_image(dataset.place("0.png"))
    assert read_image(dataset.place("1.png")).getpixel((0, 0)) == (50, 0, 0)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_batches_hold_them(dataset, n_workers):
    """This includes batches from other processes and from memory."""
    files = dataset.files("train")
    store = ImageStore(10**6)
    for kept in (None, store, store):
        batches = torch.cat(list(image_batches(files, VIEW, batch_size=2, n_workers=n_workers, store=kept)))
        alone = torch.stack([VIEW(read_image(file)) for file in files])
        assert torch.equal(batches, alone)
    assert store.holds(files, VIEW)


def test_hashes_are_of_the_image_and_change_with_it(dataset, tmp_path):
    """The file's stamp is checked, and the image's own bytes are hashed."""
    cache = tmp_path / "cache"
    cache.mkdir()
    first = ImageFiles(dataset, cache).contents("train")
    assert [bytes(row.numpy()) for row in first.digests] == [
        hashlib.sha256(content_of(file)).digest() for file in dataset.files("train")]
    file = dataset.root / "all.bin"
    content = file.read_bytes()
    file.write_bytes(content.replace(png((50, 0, 0)), png((51, 0, 0))))
    second = ImageFiles(dataset, cache).contents("train")
    assert (first.digests != second.digests).any(1).tolist() == [False, True, False]
    assert first.sha256 != second.sha256


def test_a_missing_file_is_told_of_all_its_images(dataset):
    (dataset.root / "all.bin").unlink()
    with pytest.raises(DataError, match="5 image files are missing"):
        ImageFiles(dataset)


def test_people_see_them(dataset):
    page = contact_sheet("title", dataset.files("train"), ["0.png", "1.png", "2.png"], [[("a", 1.0)]] * 3, [None] * 3)
    assert page.count("data:image/jpeg") == 3
    with Image.open(io.BytesIO(picture(dataset.place("1.png"), "small")[0])) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (50, 0, 0)


@pytest.mark.parametrize("copy", [True, False])
def test_predictions_sort_them_as_files_of_their_own(dataset, tmp_path_factory, copy):
    """A link cannot lead into a file."""
    folder = tmp_path_factory.mktemp("out") / "sorted"
    with sorted_into(folder, ("a", "b"), (dataset.root,), copy=copy) as add:
        for path in ("0.png", "1.png"):
            add(Row(path, dataset.place(path), np.array([0.1, 0.9])))
    assert (folder / "b" / "1.png").read_bytes() == png((50, 0, 0))
    assert not Path(folder / "b" / "0.png").is_symlink()
