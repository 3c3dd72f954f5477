"""Batches: order, workers, the store, and errors for files and workers that fail."""

import contextlib
import dataclasses
import itertools
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from yacs.config import CfgNode

from dassl.data import images
from dassl.data.images import Decoding, read_image
from dassl.data.loader import _named_deaths, image_batches, pixel_batches, view_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import Preprocessing, Transform, build_augmentation
from dassl.utils.errors import DataError

PREPROCESSING = Preprocessing((16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
INPUT = CfgNode({"TRANSFORMS": ("random_resized_crop", "random_flip", "colorjitter", "normalize"), "RRCROP_SCALE": (0.08, 1.0)})
N_IMAGES = 11


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{row}.png" for row in range(N_IMAGES)]
    for row, file in enumerate(files):
        Image.fromarray(rng.integers(0, 256, (20 + row, 30, 3), dtype=np.uint8)).save(file)
    return files


def stacked(paths, transform, **options) -> torch.Tensor:
    return torch.cat(list(image_batches(paths, transform, **options)))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 11, 12])
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("max_bytes", [0, 3000, 2**20])
def test_row_i_is_image_i_for_any_batch_size_workers_and_memory(paths, batch_size, n_workers, max_bytes):
    """Row 7 of the faults table: N mod B in {0, 1, B - 1}, also where the store has room for a part."""
    transform = PREPROCESSING.transform()
    expected = torch.stack([transform(read_image(path)) for path in paths])
    got = stacked(paths, transform, batch_size=batch_size, n_workers=n_workers, store=ImageStore(max_bytes))
    assert torch.equal(got, expected)


def test_the_last_batch_is_what_remains(paths):
    assert [len(batch) for batch in image_batches(paths, PREPROCESSING.transform(), batch_size=4)] == [4, 4, 3]


@pytest.mark.parametrize("max_bytes", [0, 5000, 2**20])
@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_random_view_depends_on_its_seed_alone(paths, max_bytes, n_workers, global_random_state):
    """Not on order, batch size, workers, or whether the decoded image was kept."""
    transform, seeds = build_augmentation(INPUT, PREPROCESSING), list(range(N_IMAGES))
    expected = stacked(paths, transform, batch_size=1, seeds=seeds)
    backward = stacked(paths[::-1], transform, batch_size=4, n_workers=n_workers, seeds=seeds[::-1],
                       store=ImageStore(max_bytes))
    assert torch.equal(backward.flip(0), expected)
    assert not torch.equal(stacked(paths, transform, batch_size=4, seeds=seeds[::-1]), expected)


def test_random_views_equal_torchvision_s_own_pipeline(paths):
    """Keeping 8 bits up to the batch changes no bit of crop, flip, color jitter, ToTensor and Normalize."""
    ours = stacked(paths, build_augmentation(INPUT, PREPROCESSING), batch_size=4, seeds=range(N_IMAGES))
    plain = transforms.Compose([
        transforms.RandomResizedCrop(16, scale=(0.08, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
        transforms.ToTensor(), transforms.Normalize(PREPROCESSING.mean, PREPROCESSING.std)])
    for row, path in enumerate(paths):
        with torch.random.fork_rng():
            torch.manual_seed(row)
            assert torch.equal(ours[row], plain(read_image(path)))


@pytest.fixture
def n_decoded(monkeypatch) -> list:
    """Every path that is decoded in this process."""
    decoded, pixels_of, opened = [], images.pixels_of, images.opened
    names = {}

    @contextlib.contextmanager
    def named(content, name):
        with opened(content, name) as image:
            names[id(image)] = str(name)
            yield image

    monkeypatch.setattr(images, "opened", named)
    monkeypatch.setattr(images, "pixels_of", lambda image, decoding: decoded.append(names[id(image)]) or pixels_of(
        image, decoding))
    return decoded


@pytest.mark.parametrize("transform", [PREPROCESSING.transform(), build_augmentation(INPUT, PREPROCESSING)])
def test_every_file_is_decoded_once_for_all_rounds_and_seeds(paths, n_decoded, transform):
    store = ImageStore(2**20)
    for seed in range(3):
        stacked(paths, transform, batch_size=4, seeds=None if transform.name else [seed] * N_IMAGES, store=store)
    assert sorted(n_decoded) == sorted(map(str, paths))


def test_the_store_keeps_to_its_memory(paths):
    """An image of 16 x 16 pixels has 768 bytes: 4 of them find room in 3,500."""
    store = ImageStore(3500)
    stacked(paths, PREPROCESSING.transform(), batch_size=4, store=store)
    assert store.n_bytes == 4 * 768
    assert store.holds(paths[:4], PREPROCESSING.transform())
    assert not store.holds(paths[:5], PREPROCESSING.transform())


@pytest.mark.parametrize("n_threads", [0, 4])
@pytest.mark.parametrize("room", [3.5, 7.99, 10.99, 0.5])
@pytest.mark.parametrize("transform", [PREPROCESSING.transform(), build_augmentation(INPUT, PREPROCESSING)])
def test_no_image_is_decoded_twice_in_a_pass_that_fills_the_store(paths, n_decoded, transform, room, n_threads):
    """An image that will not fit is known before it is decoded. Here it is the last of eleven, or all but three."""
    n_bytes = int(room * (768 if transform.name else 25 * 30 * 3))
    store, seeds = ImageStore(n_bytes), None if transform.name else range(N_IMAGES)
    store.fill(paths, transform, n_threads=n_threads)
    assert store.n_bytes <= n_bytes and len(n_decoded) == len(store._kept) == len(set(n_decoded))
    stacked(paths, transform, batch_size=4, seeds=seeds, store=store)
    assert sorted(n_decoded) == sorted(map(str, paths))


def test_a_draft_takes_the_room_that_it_fills(tmp_path):
    """JPEG's draft mode gives fewer pixels than the head of the file announces."""
    Image.new("RGB", (1600, 900)).save(tmp_path / "a.jpg")
    transform = dataclasses.replace(build_augmentation(INPUT, PREPROCESSING), decoding=images.Decoding(draft=100))
    store = ImageStore(2**23)
    store.fill([tmp_path / "a.jpg"], transform, n_threads=1)
    assert store.n_bytes == sum(pixels.nbytes for pixels in store._kept.values()) < 1600 * 900


def test_room_comes_back_with_what_was_kept_there():
    """After an error it comes back at once."""
    store = ImageStore(100)
    tensor = store.charge(60, lambda: torch.ones(15))
    assert store.n_bytes == 60 and store.charge(60, lambda: pytest.fail("made in vain")) is None
    with pytest.raises(ZeroDivisionError):
        store.charge(40, lambda: 1 / 0)
    assert store.n_bytes == 60
    del tensor
    assert store.n_bytes == 0


def test_workers_keep_nothing_of_their_own(paths):
    """Otherwise each of them could fill as much memory as the run may use."""
    store, transform = ImageStore(2**20), build_augmentation(INPUT, PREPROCESSING)
    rows = DataLoader(_Kept(paths, transform, store), batch_size=1, num_workers=2, collate_fn=list)
    assert [row for batch in rows for row in batch] == [0] * N_IMAGES


class _Kept(torch.utils.data.Dataset):
    """Row i is the number of images in the process's store after image i was read."""

    def __init__(self, paths, transform, store):
        self.paths, self.transform, self.store = paths, transform, store

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, row):
        self.store.pixels(self.paths[row], self.transform)
        return len(self.store._kept)


def test_a_store_that_is_sent_to_a_process_is_empty(paths):
    """If workers are spawned (macOS), the content would be copied for each one."""
    store = ImageStore(2**20)
    store.fill(paths, PREPROCESSING.transform(), n_threads=1)
    assert len(pickle.dumps(store)) < 200 and pickle.loads(pickle.dumps(store)).n_bytes == 0


def test_a_file_that_has_changed_is_decoded_anew(paths, n_decoded):
    """By size and time of change; the others stay as they are."""
    store, transform = ImageStore(2**20), PREPROCESSING.transform()
    store.fill(paths, transform, n_threads=1)
    Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(paths[0])
    assert not store.holds(paths[:1], transform) and store.holds(paths[1:], transform)
    assert (store.pixels(paths[0], transform) == 7).all()
    store.fill(paths, transform, n_threads=1)
    assert sorted(map(str, n_decoded)) == sorted(map(str, [paths[0], *paths]))


def test_views_of_other_sizes_and_decodings_are_kept_apart(paths):
    store = ImageStore(2**20)
    larger = Preprocessing((24, 24), PREPROCESSING.mean, PREPROCESSING.std).transform()
    stacked(paths, PREPROCESSING.transform(), batch_size=4, store=store)
    assert stacked(paths, larger, batch_size=4, store=store).shape == (N_IMAGES, 3, 24, 24)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("max_bytes", [0, 2**20])
def test_all_files_that_cannot_be_decoded_are_listed_in_one_error(paths, n_workers, max_bytes):
    """Row 1: there is no traceback of a worker, and no need to run once for each bad file."""
    paths[2].write_bytes(b"")
    paths[9].write_text("text")
    with pytest.raises(DataError) as caught:
        stacked(paths, PREPROCESSING.transform(), batch_size=4, n_workers=n_workers, store=ImageStore(max_bytes))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("2 images cannot be decoded")
    reasons = [line.split(": ")[-1] for line in lines[1:]]
    assert reasons[0] == "empty file" and reasons[1].startswith("not an image in a format that is read")
    assert [f"{row}.png" in line for row, line in zip((2, 9), lines[1:], strict=True)] == [True, True]


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("max_bytes", [0, 2**20])
def test_files_that_cannot_be_read_are_not_to_be_skipped(paths, n_workers, max_bytes):
    """Row 1: skipping must not be suggested for files that a failing disk refuses."""
    paths[2].write_bytes(b"")
    paths[9].unlink()
    paths[9].mkdir()
    with pytest.raises(DataError, match=r"(?s)^2 images cannot be read or decoded:.*2.png: empty file.*9.png: Is a") as caught:
        stacked(paths, PREPROCESSING.transform(), batch_size=4, n_workers=n_workers, store=ImageStore(max_bytes))
    assert "skip" not in str(caught.value)


def hungry(image: Image.Image) -> Image.Image:
    raise MemoryError


@pytest.mark.parametrize("name", ["", "hungry"])
@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_view_that_finds_no_memory_is_an_error_with_the_file(paths, name, n_workers):
    transform = Transform(hungry, PREPROCESSING.mean, PREPROCESSING.std, name=name)
    with pytest.raises(DataError, match=r"cannot resize .*0\.png: out of memory"):
        stacked(paths[:1] * 5, transform, batch_size=2, n_workers=n_workers)


def test_no_batch_follows_a_file_that_cannot_be_decoded(paths):
    paths[5].write_bytes(b"")
    batches = image_batches(paths, PREPROCESSING.transform(), batch_size=4)
    assert len(next(batches)) == 4
    with pytest.raises(DataError, match=r"5\.png: empty file$"):
        next(batches)


def deadly(image: Image.Image) -> Image.Image:
    """Crash like a decoder on a bad file, or like a system that has run out of memory."""
    if image.height == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return image.resize((16, 16))


def test_a_worker_that_dies_is_named_and_not_waited_for(paths):
    transform = Transform(deadly, PREPROCESSING.mean, PREPROCESSING.std, name="deadly")
    with pytest.raises(DataError, match=r"worker \(pid.* (killed by signal|exited unexpectedly).*at or soon after .*\.png"):
        stacked(paths, transform, batch_size=1, n_workers=2)


@pytest.mark.parametrize("times", [(3, 7), (7, 7)])
@pytest.mark.parametrize("name", ["fixed", "random"])
def test_a_file_of_equal_size_that_was_painted_over_is_decoded_anew(tmp_path, name, times):
    """Row 8: also if its time was set back, as `rsync -t` does; an uncompressed image keeps its size."""
    store, path = ImageStore(2**20), tmp_path / "a.bmp"
    transform = PREPROCESSING.transform() if name == "fixed" else build_augmentation(INPUT, PREPROCESSING)
    for color, time in zip((3, 7), times, strict=True):
        Image.fromarray(np.full((20, 30, 3), color, np.uint8)).save(path)
        os.utime(path, ns=(time, time))
        kept = store.pixels(path, dataclasses.replace(transform, view=PREPROCESSING.transform().view))
        assert (kept == color).all()


@pytest.mark.parametrize("name", ["fixed", "random"])
def test_other_decodings_of_a_file_are_kept_apart(tmp_path, name):
    """A photograph on its side is decoded once as it is stored and once as it was held."""
    path, store = tmp_path / "a.png", ImageStore(2**20)
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(path, exif=exif)
    transform = PREPROCESSING.transform() if name == "fixed" else build_augmentation(INPUT, PREPROCESSING)
    transform = dataclasses.replace(transform, view=PREPROCESSING.transform().view)
    held, lying = (store.pixels(path, dataclasses.replace(transform, decoding=Decoding(exif_rotation=upright)))
                   for upright in (True, False))
    assert np.array_equal(np.rot90(lying, -1), held) and not np.array_equal(lying, held)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_folder_that_goes_away_in_the_middle_is_one_error(paths, n_workers):
    """Row 2: this also holds in worker processes, where a traceback would hide the name."""
    batches = image_batches(paths, PREPROCESSING.transform(), batch_size=1, n_workers=n_workers)
    next(batches)
    shutil.rmtree(paths[0].parent)
    with pytest.raises(DataError, match=r"^\d+ images cannot be read or decoded:\n  cannot read .*\.png: No such file"):
        list(batches)


def test_views_stay_8_bit_until_they_are_normalized(paths):
    """Workers send a quarter of the bytes. If the tower is on another device, normalizing happens there."""
    pixels, transform = list(pixel_batches(paths, PREPROCESSING.transform(), batch_size=4)), PREPROCESSING.transform()
    assert {own.dtype for own in pixels} == {torch.uint8} and pixels[0].shape == (4, 16, 16, 3)
    normalized = torch.cat([transform.normalize_on(own, torch.device("cpu")) for own in pixels])
    assert torch.equal(normalized, stacked(paths, transform, batch_size=4))


def test_the_generator_of_a_card_is_left_alone(paths, monkeypatch):
    """Random views use only the CPU's. `torch.manual_seed` would set both, but only one would be restored."""
    monkeypatch.setattr("torch.cuda.manual_seed_all", lambda seed: pytest.fail("a card's generator was set"))
    stacked(paths, build_augmentation(INPUT, PREPROCESSING), batch_size=4, seeds=range(N_IMAGES))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_stream_of_views_is_drawn_as_it_is_read(paths, n_workers):
    """It may have any length. Workers are a few batches ahead at most, and views are those of a pass over files and seeds."""
    transform, drawn = build_augmentation(INPUT, PREPROCESSING), []

    def endless():
        for number in itertools.count():
            drawn.append(number)
            yield [(paths[(2 * number + row) % N_IMAGES], 2 * number + row) for row in range(2)]

    found = list(itertools.islice(view_batches(endless(), transform, ImageStore(0), n_workers), 20))
    assert 20 <= len(drawn) <= 20 + 2 * n_workers + 1
    expected = list(pixel_batches([paths[row % N_IMAGES] for row in range(40)], transform, batch_size=2, seeds=range(40)))
    assert torch.equal(torch.cat(found), torch.cat(expected))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_stream_stops_at_the_first_batch_that_cannot_be_decoded(paths, n_workers):
    """It names all such files of the batch. A stream has no end at which further ones could be named."""
    for row in (4, 5, 8):
        paths[row].write_bytes(b"no image")
    views = view_batches([[(paths[row], None) for row in rows] for rows in ((0, 1), (3, 4, 5), (8, 9))],
                         PREPROCESSING.transform(), ImageStore(0), n_workers)
    assert len(next(views)) == 2
    with pytest.raises(DataError, match="2 images cannot be decoded") as error:
        next(views)
    assert "4.png" in str(error.value) and "5.png" in str(error.value) and "8.png" not in str(error.value)


def test_a_file_of_several_views_is_one_that_cannot_be_decoded(paths):
    """A batch of views encoded ahead may hold several views of one file, which is named only once."""
    for row in (4, 5):
        paths[row].write_bytes(b"no image")
    views = view_batches([[(paths[row], None) for row in (4, 5, 1, 4, 5)]], PREPROCESSING.transform(), ImageStore(0), 0)
    with pytest.raises(DataError, match="2 images cannot be decoded") as error:
        next(views)
    assert str(error.value).count("4.png") == 1


def test_the_first_batch_that_did_not_come_is_named():
    """Workers were told of three batches, and one has come when a worker dies."""
    class Loader:
        def __iter__(self):
            yield "first"
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")

    with pytest.raises(DataError, match=r"soon after b\.png"):
        list(_named_deaths(Loader(), ["a.png", "b.png", "c.png"]))
