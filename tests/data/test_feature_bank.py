"""The cache of frozen features: bound to all that it depends on, whole or absent, shared by processes."""

import contextlib
import dataclasses
import functools
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from dassl.data.dataset import Dataset, Datum
from dassl.data.digests import Contents, ImageFiles
from dassl.data.feature_bank import Source, _blocks_folder, _join, bank_key, bank_path, extract_rows, load_bank, stored_features
from dassl.data.feature_blocks import Blocks
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import DataError, UserError
from dassl.utils.events import Terminated
from tests import commands
from tests.utils.test_files import full_disk

PROJECT = Path(__file__).resolve().parents[2]
PREPROCESSING = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TOY_KEY = {"dataset": "Toy", "split": "train", "files": "0"}
FORMER = Path(__file__).with_name("former")  # the cache of `make_dataset`, as the code of 2dbb33f has written it
FEATURES = F.normalize(torch.arange(1.0, 13).reshape(3, 4), dim=1)


def make_dataset(root: Path) -> Dataset:
    items = tuple(Datum(f"{folder}/1.png", 0) for folder in ("a", "b", "ü x"))
    for datum in items:
        (root / datum.path).parent.mkdir(parents=True, exist_ok=True)
        (root / datum.path).write_bytes(datum.path.encode())
        os.utime(root / datum.path, ns=(10**18, 10**18))
    return Dataset("Toy", root, items, (), items[:1], ("one", "two"))


def toy_contents(n_rows: int) -> Contents:
    """Return the contents of a split that is never decoded, each image with its own bytes."""
    numbers = torch.arange(n_rows, dtype=torch.int64)
    digests = torch.stack([numbers >> min(8 * place, 56) & 255 for place in range(32)], 1).to(torch.uint8)
    return Contents("Toy", "train", ("a",) * n_rows, torch.zeros(n_rows, 4, dtype=torch.int64), digests, "0")


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "data")


@pytest.fixture
def contents(dataset):
    return ImageFiles(dataset).contents("train")


@pytest.fixture
def key(contents):
    return bank_key("weights", PREPROCESSING, contents, "fp32", "cpu")


def never(rows):
    raise AssertionError(f"features of {rows} were extracted again")


def extract(rows):
    """Yield the features of rows, two at once."""
    yield from FEATURES[rows].split(2)


def test_features_are_extracted_once(tmp_path, key, contents):
    """The second call reads the file, bit for bit."""
    first = load_bank(tmp_path, key, contents, extract)
    second = load_bank(tmp_path, key, contents, never)
    assert torch.equal(first.features, FEATURES) and torch.equal(second.features, FEATURES)
    assert second.key == key


def test_the_key_covers_weights_preprocessing_split_precision_and_device(dataset, key, contents):
    """Row 8: anything that features depend on gives another key."""
    changed = [dataclasses.replace(PREPROCESSING, **{name: value}) for name, value in [
        ("size", (64, 64)), ("mean", (0.4, 0.5, 0.5)), ("std", (0.2, 0.25, 0.25)), ("interpolation", "nearest"),
        ("resize", "squash"), ("resize", "longest")]]
    changed += [dataclasses.replace(changed[-1], fill=9)]
    named = ImageFiles(dataclasses.replace(dataset, name="Other")).contents("train")
    others = [bank_key("other", PREPROCESSING, contents, "fp32", "cpu"),
              bank_key("weights", PREPROCESSING, ImageFiles(dataset).contents("test"), "fp32", "cpu"),
              bank_key("weights", PREPROCESSING, contents, "fp16", "cpu"),
              bank_key("weights", PREPROCESSING, contents, "fp32", "cuda"),
              bank_key("weights", PREPROCESSING, named, "fp32", "cpu"),
              *(bank_key("weights", preprocessing, contents, "fp32", "cpu") for preprocessing in changed)]
    paths = {bank_path(Path("."), other) for other in [key, *others]}
    assert len(paths) == 1 + len(others)


def test_the_key_follows_the_list_of_files_and_the_bytes_of_each(dataset, key):
    """Row 8: another order, one file fewer, or one byte more or different gives another key, but another time does not."""
    def now(items=dataset.train):
        contents = ImageFiles(dataclasses.replace(dataset, train=items)).contents("train")
        return bank_key("weights", PREPROCESSING, contents, "fp32", "cpu")

    assert now() == key
    assert now(dataset.train[::-1]) != key
    assert now(dataset.train[:2]) != key
    path = dataset.files("train")[1]
    before = path.read_bytes()
    for content in (before + b"!", before[:-1] + b"!"):
        path.write_bytes(content)
        assert now() != key
    path.write_bytes(before)
    os.utime(path, ns=(1, 1))
    assert now() == key


@pytest.mark.parametrize("how", ["moved", "linked", "copied"])
def test_a_moved_or_copied_data_root_keeps_its_features(tmp_path, dataset, key, contents, how):
    """Row 29: relative paths and bytes are the same, whatever number and times the files have now."""
    load_bank(tmp_path / "cache", key, contents, extract)
    if how == "linked":
        (tmp_path / "there").symlink_to(dataset.root)
    else:
        {"moved": shutil.move, "copied": functools.partial(shutil.copytree, copy_function=shutil.copyfile)}[how](
            dataset.root, tmp_path / "there")
    there = ImageFiles(dataclasses.replace(dataset, root=tmp_path / "there"), tmp_path / "cache").contents("train")
    same = bank_key("weights", PREPROCESSING, there, "fp32", "cpu")
    assert torch.equal(load_bank(tmp_path / "cache", same, there, never).features, FEATURES)


def rebuilt(folder: Path, dataset: Dataset, extract) -> Tensor:
    """Return the features of the data set with its files as they are now."""
    contents = ImageFiles(dataset, folder).contents("train")
    return load_bank(folder, bank_key("weights", PREPROCESSING, contents, "fp32", "cpu"), contents, extract).features


def test_a_changed_image_is_extracted_alone(tmp_path, dataset):
    """Row 8: the others keep their rows. Once its old bytes are back, its features are found again."""
    rebuilt(tmp_path / "cache", dataset, extract)
    path, asked = dataset.files("train")[1], []
    before = path.read_bytes()
    path.write_bytes(b"other")

    def changed(rows):
        asked.append(rows)
        yield FEATURES[rows] + 1

    expected = FEATURES + torch.tensor([[0.0], [1.0], [0.0]])
    assert torch.equal(rebuilt(tmp_path / "cache", dataset, changed), expected)
    path.write_bytes(before)
    assert torch.equal(rebuilt(tmp_path / "cache", dataset, never), FEATURES)
    assert asked == [[1]]


def test_two_images_that_change_places_are_noticed(tmp_path, dataset):
    """Row 8: with the same size and time of change, only inode number and the file system's own time tell them apart."""
    first, second = dataset.files("train")[:2]
    for path, content in ((first, b"1st"), (second, b"2nd")):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
    rebuilt(tmp_path / "cache", dataset, extract)
    first.rename(tmp_path / "other")
    second.rename(first)
    (tmp_path / "other").rename(second)
    assert first.stat().st_mtime_ns == second.stat().st_mtime_ns == 10**18
    swapped = rebuilt(tmp_path / "cache", dataset, lambda rows: [FEATURES[[1, 0, 2]][rows]])
    assert torch.equal(swapped, FEATURES[[1, 0, 2]])


def test_a_content_of_one_size_and_time_written_over_is_noticed(tmp_path, dataset):
    """Row 8: some tools restore times of change like this."""
    path, status = dataset.files("train")[0], dataset.files("train")[0].stat()
    rebuilt(tmp_path / "cache", dataset, extract)
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not torch.equal(rebuilt(tmp_path / "cache", dataset, lambda rows: [FEATURES[rows] + 1]), FEATURES)


def in_former_cache(folder: Path) -> Dataset:
    """A data set, and a folder with the cache that the code of 2dbb33f has written of it."""
    dataset = make_dataset(folder / "data")
    shutil.copytree(FORMER, folder / "cache", copy_function=shutil.copyfile)
    return dataset


def test_a_cache_of_the_former_version_is_read(tmp_path):
    """It used only sizes and times, and no file has changed since it was made."""
    dataset = in_former_cache(tmp_path)
    assert torch.equal(rebuilt(tmp_path / "cache", dataset, never), FEATURES)
    assert torch.equal(rebuilt(tmp_path / "cache", dataset, never), FEATURES)


@pytest.mark.parametrize("what", ["changed in some way since", "size", "damaged"])
def test_a_cache_of_the_former_version_that_may_be_of_other_images_is_made_anew(tmp_path, what):
    dataset = in_former_cache(tmp_path)
    bank = next((tmp_path / "cache").glob("*.safetensors"))
    if what == "size":
        dataset.files("train")[0].write_bytes(b"longer than before")
    elif what == "damaged":
        bank.write_bytes(bank.read_bytes()[:-1] + b"!")
    else:
        os.utime(bank, ns=(10**18, 10**18))
    assert torch.equal(rebuilt(tmp_path / "cache", dataset, lambda rows: [FEATURES[rows] + 1]), FEATURES + 1)


def stopped(error: BaseException, n_parts: int):
    """Return an extraction that yields some parts of one row and is then stopped."""
    def extract_some(rows):
        yield from FEATURES[rows[:n_parts]].split(1)
        raise error

    return extract_some


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminated(), DataError("cannot decode c.png")])
def test_an_extraction_that_is_stopped_goes_on_where_it_was(tmp_path, key, contents, error):
    """Row 9: after two stops, the bank is the same file as without one, and nothing else is left."""
    asked = []

    def counted(rows):
        asked.append(rows)
        yield from extract(rows)

    load_bank(tmp_path / "whole", key, contents, extract)
    for _ in range(2):
        with pytest.raises(type(error)):
            load_bank(tmp_path / "cache", key, contents, stopped(error, 1))
    load_bank(tmp_path / "cache", key, contents, counted)
    assert asked == [[2]]
    files = {folder: {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("whole", "cache")}
    assert files["cache"] == files["whole"]


@pytest.mark.parametrize("former", [False, True])
def test_an_extraction_that_is_killed_goes_on_from_its_blocks(tmp_path, key, contents, monkeypatch, former):
    """Row 9: blocks are written every few seconds, so they are there whatever ended the process, by former names too."""
    monkeypatch.setattr("dassl.data.feature_blocks.BLOCK_SECONDS", 0.0)
    with pytest.raises(ZeroDivisionError), monkeypatch.context() as killed:
        killed.setattr("dassl.data.feature_blocks.Blocks.__exit__", lambda *_: None)
        load_bank(tmp_path, key, contents, stopped(ZeroDivisionError(), 2))
    if former:
        block = min(tmp_path.glob("*.blocks/*.safetensors"))
        block.rename(block.with_name(f"{block.stem.partition('-')[0]}.safetensors"))
    asked = []
    load_bank(tmp_path, key, contents, lambda rows: [asked.append(rows), FEATURES[rows]][1:])
    assert asked == [[2]] and torch.equal(load_bank(tmp_path, key, contents, never).features, FEATURES)


def test_blocks_fit_only_the_images_that_they_are_of(tmp_path, dataset):
    """Row 8: one image that could not be decoded is replaced, and so is another. The rest goes on."""
    with pytest.raises(DataError):
        rebuilt(tmp_path / "cache", dataset, stopped(DataError("cannot decode 3"), 2))
    dataset.files("train")[2].write_bytes(b"repaired")
    dataset.files("train")[0].write_bytes(b"other")
    asked = []
    rebuilt(tmp_path / "cache", dataset, lambda rows: [asked.append(rows), FEATURES[rows]][1:])
    assert asked == [[0, 2]]


def test_a_damaged_block_is_extracted_again_with_a_warning(tmp_path, key, contents, caplog):
    """Row 8."""
    with pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, key, contents, stopped(KeyboardInterrupt(), 2))
    block, = tmp_path.glob("*.blocks/*.safetensors")
    block.write_bytes(block.read_bytes()[:-1] + b"!")
    assert torch.equal(load_bank(tmp_path, key, contents, extract).features, FEATURES)
    assert str(block) in caplog.text and not block.parent.exists()


def test_a_block_of_other_images_is_left_to_them(tmp_path, key, contents):
    """Its key is the same where two data sets have one name and size."""
    others = dataclasses.replace(contents, digests=contents.digests.flip(1))
    with pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, key, others, stopped(KeyboardInterrupt(), 2))
    block, = tmp_path.glob("*.blocks/*.safetensors")
    load_bank(tmp_path, key, contents, extract)
    assert block.exists()


def test_a_block_of_another_number_of_images_is_passed_over_without_a_word(tmp_path, key, contents, caplog):
    """It was made before images were added or left out, and is not damaged."""
    with pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, key, contents, stopped(KeyboardInterrupt(), 2))
    block, = tmp_path.glob("*.blocks/*.safetensors")
    fewer = dataclasses.replace(contents, paths=contents.paths[:2], stamps=contents.stamps[:2], digests=contents.digests[:2])
    assert torch.equal(load_bank(tmp_path, key | {"files": "1"}, fewer, extract).features, FEATURES[:2])
    assert block.exists() and not caplog.text


def test_an_extraction_is_kept_in_a_bounded_number_of_files(tmp_path, monkeypatch):
    """The size of the pool and the time it takes do not matter."""
    monkeypatch.setattr("dassl.data.feature_blocks.BLOCK_SECONDS", 0.0)
    monkeypatch.setattr("dassl.data.feature_bank.drop_blocks", lambda *_: None)
    load_bank(tmp_path, TOY_KEY, toy_contents(3000), lambda rows: torch.ones(len(rows), 2).split(1))
    assert 200 < len(list(tmp_path.glob("*.blocks/*"))) <= 256


def rows_of(n_rows: int, own: int = 0) -> Tensor:
    return torch.arange(n_rows).float()[:, None] + torch.tensor([1.0, 1000.0 * own])


def test_a_worker_that_writes_while_a_run_extracts_loses_no_features(tmp_path, monkeypatch):
    """Both have begun at the same image, before either had written. The bank holds every image, and no block stays behind."""
    monkeypatch.setattr("dassl.data.feature_blocks.BLOCK_SECONDS", 0.0)
    contents, features = toy_contents(60), rows_of(60)
    worker = Blocks(_blocks_folder(tmp_path, TOY_KEY), TOY_KEY, contents.digests)

    def extract(rows):
        with monkeypatch.context() as patch:
            patch.setattr("dassl.data.feature_blocks.BLOCK_SECONDS", 99.0)
            worker.make(torch.arange(5), lambda rows: [features[rows]])
        yield features[rows[:40]]
        worker.write()
        yield features[rows[40:]]

    found = load_bank(tmp_path, TOY_KEY, contents, extract)
    assert torch.equal(found.features, features)
    assert torch.equal(load_bank(tmp_path, TOY_KEY, contents, never).features, features)
    worker.make(torch.arange(5, 9), lambda rows: [features[rows]])  # it is a shard behind, and the next run cleans up
    worker.write()
    assert len(list(tmp_path.glob("*.blocks/*"))) == 1
    load_bank(tmp_path, TOY_KEY, contents, never)
    assert not list(tmp_path.glob("*.blocks"))


def test_blocks_of_two_data_sets_of_one_name_and_size_do_not_meet(tmp_path, monkeypatch):
    """Two folders of photos that share a cache: what one has made so far outlives the other's bank, and is its own."""
    monkeypatch.setattr("dassl.data.feature_blocks.BLOCK_SECONDS", 0.0)
    one, features = toy_contents(30), (rows_of(30), rows_of(30, 1))
    other = dataclasses.replace(one, digests=one.digests + 100, sha256="1")
    other_key = TOY_KEY | {"files": "1"}

    def of_both(rows):
        yield features[0][rows[:10]]
        extract_rows(Source(tmp_path, other_key, other, lambda rows: features[1][rows].split(7)), torch.arange(20))
        yield features[0][rows[10:]]

    assert torch.equal(load_bank(tmp_path, TOY_KEY, one, of_both).features, features[0])
    asked = []
    found = load_bank(tmp_path, other_key, other, lambda rows: [asked.extend(rows), features[1][rows]][1:])
    assert torch.equal(found.features, features[1]) and asked == list(range(20, 30))


@pytest.mark.parametrize("kept", [slice(0, 20), slice(5, 30)])
def test_a_bank_of_fewer_images_leaves_the_blocks_of_more_alone(tmp_path, kept):
    """The folder has grown, or a run leaves some images out: its bank is no use to the extraction in hand."""
    whole, features = toy_contents(30), rows_of(30)
    part = dataclasses.replace(whole, paths=whole.paths[kept], digests=whole.digests[kept], sha256="1",
                               stamps=whole.stamps[kept])
    key = TOY_KEY | {"files": "1"}
    load_bank(tmp_path, key, part, lambda rows: [features[kept][rows]])
    extract_rows(Source(tmp_path, TOY_KEY, whole, lambda rows: [features[rows]]), torch.arange(25))
    load_bank(tmp_path, key, part, never)
    asked = []
    load_bank(tmp_path, TOY_KEY, whole, lambda rows: [asked.extend(rows), features[rows]][1:])
    assert asked == list(range(25, 30)) and not list(tmp_path.glob("*.blocks"))


def test_blocks_that_may_not_be_removed_stop_no_run(tmp_path, key, contents, monkeypatch):
    """They are another user's, who shares the cache."""
    load_bank(tmp_path, key, contents, extract)
    extract_rows(Source(tmp_path, key, contents, extract), torch.arange(2))
    assert list(tmp_path.glob("*.blocks/*"))
    monkeypatch.setattr(Path, "unlink", forbidden)
    assert torch.equal(load_bank(tmp_path, key, contents, never).features, FEATURES)


def forbidden(*_, **__):
    raise PermissionError


def test_a_bank_is_not_joined_from_parts_that_lack_an_image(tmp_path):
    """An image without features would be a row of zeros that a checksum covers."""
    parts = [(torch.tensor([0, 2]), torch.tensor([0, 1]), torch.ones(2, 2))]
    with pytest.raises(UserError, match="lacks the features of 1 images"):
        _join(parts, tmp_path / "bank.safetensors", TOY_KEY, toy_contents(3).digests)
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_name_among_the_blocks_is_no_block(tmp_path, key, contents):
    """Such as the copy that a synchronized folder makes."""
    with pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, key, contents, stopped(KeyboardInterrupt(), 2))
    block, = tmp_path.glob("*.blocks/*.safetensors")
    block.rename(block.with_name("copy of block.safetensors"))
    assert torch.equal(load_bank(tmp_path, key, contents, extract).features, FEATURES)


def test_a_disk_without_room_for_the_features_is_named_with_bytes_and_the_way_out(tmp_path, key, contents):
    """Row 11."""
    with full_disk(500), pytest.raises(UserError, match=r"cannot write .*Toy_train.*; it takes 144 bytes; CACHE_DIR names"):
        load_bank(tmp_path, key, contents, extract)


def test_a_wrong_number_of_features_is_refused(tmp_path, key, contents):
    """Row 7 of the faults table: no row is left unwritten."""
    with pytest.raises(RuntimeError, match="features of 3 images were asked for, but 2 came"):
        load_bank(tmp_path, key, contents, lambda rows: [FEATURES[:2]])


@pytest.mark.parametrize("damage", [
    lambda content: content[:-5], lambda content: content[:10], lambda content: b"", lambda content: b"not a bank" * 100,
    lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]])
def test_a_damaged_file_is_refused_and_made_anew_with_a_warning(tmp_path, key, contents, caplog, damage):
    """Row 8: truncated, empty, foreign or altered in one bit: the features are extracted again and the file replaced."""
    load_bank(tmp_path, key, contents, extract)
    path = bank_path(tmp_path, key)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_bank(tmp_path, key, contents, extract).features, FEATURES)
    assert str(path) in caplog.text and "made anew" in caplog.text
    assert torch.equal(load_bank(tmp_path, key, contents, never).features, FEATURES)


def test_a_file_of_another_key_is_refused(tmp_path, key, contents, caplog):
    """Row 8: a bank that was copied over another's name is not taken for it."""
    other = key | {"weights": "other"}
    load_bank(tmp_path, other, contents, lambda rows: [FEATURES[rows] + 1])
    bank_path(tmp_path, other).rename(bank_path(tmp_path, key))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_bank(tmp_path, key, contents, extract).features, FEATURES)
    assert "does not hold what its name says" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_file_of_another_type_is_made_anew(tmp_path, key, contents, dtype):
    """Row 8: features are float32 here, whoever wrote the file."""
    load_bank(tmp_path, key, contents, extract)
    path = bank_path(tmp_path, key)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({"digests": contents.digests, "features": FEATURES.to(dtype)}, path, metadata=metadata)
    assert load_bank(tmp_path, key, contents, extract).features.dtype == torch.float32


def test_a_folder_that_cannot_be_made_is_named(tmp_path, key, contents):
    """The error holds the path."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'file'}"):
        load_bank(tmp_path / "file" / "cache", key, contents, extract)


def test_of_two_processes_one_extracts_and_the_other_waits(tmp_path):
    """Row 8: while another process extracts, this one waits for its file instead of extracting too."""
    script = tmp_path / "other.py"
    script.write_text(
        f"import sys, time, torch\nsys.path.insert(0, {str(PROJECT)!r})\n"
        "from pathlib import Path\nfrom dassl.data.feature_bank import load_bank\n"
        "from tests.data.test_feature_bank import TOY_KEY, toy_contents\n"
        "def extract(rows):\n    Path('extracting').touch()\n    time.sleep(0.5)\n    yield torch.ones(3, 4)\n"
        "load_bank(Path('cache'), TOY_KEY, toy_contents(3), extract)\n")
    other = commands.popen([sys.executable, script], cwd=tmp_path)
    while not (tmp_path / "extracting").exists() and other.poll() is None:
        time.sleep(0.01)
    assert not bank_path(tmp_path / "cache", TOY_KEY).exists()
    assert torch.equal(load_bank(tmp_path / "cache", TOY_KEY, toy_contents(3), never).features, torch.ones(3, 4))
    assert other.wait(timeout=240) == 0


def test_a_bank_of_50_000_images_opens_in_less_than_a_second(tmp_path):
    """Reading and checking 100 MB must be quick. CPU time is measured, so that other processes do not matter."""
    contents = toy_contents(50_000)
    load_bank(tmp_path, TOY_KEY, contents, lambda rows: [torch.ones(len(rows), 512)])
    start = time.process_time()
    load_bank(tmp_path, TOY_KEY, contents, never)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("is_whole", [True, False])
def test_images_whose_hashes_agree_in_part_are_others(tmp_path, key, contents, is_whole):
    """Two hashes of 32 bytes agree in some byte in one of nine cases. In banks and in blocks, all bytes must agree."""
    with contextlib.nullcontext() if is_whole else pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, key, contents, extract if is_whole else stopped(KeyboardInterrupt(), 2))
    digests = contents.digests.clone()
    digests[0, 1:] += 1
    now, asked = dataclasses.replace(contents, digests=digests, sha256="1"), []
    load_bank(tmp_path, bank_key("weights", PREPROCESSING, now, "fp32", "cpu"), now,
              lambda rows: [asked.append(rows), FEATURES[rows]][1:])
    assert asked == [[0]] if is_whole else [[0, 2]]


def test_features_are_found_without_their_images(dataset, contents, key, tmp_path):
    """They are found by the paths and bytes in the file, the newest of two. Other weights, paths or bytes give none."""
    paths, unread = [datum.path for datum in dataset.train], key | {"files": ""}
    assert stored_features(tmp_path / "none", unread, paths) is None
    load_bank(tmp_path, key, contents, lambda _: iter([FEATURES]))
    (dataset.root / paths[0]).write_bytes(b"changed")
    now = ImageFiles(dataset).contents("train")
    newer = load_bank(tmp_path, key | {"files": now.sha256}, now, lambda _: iter([FEATURES[:1].flip(1)]))
    os.utime(bank_path(tmp_path, key), ns=(10**18, 10**18))
    shutil.rmtree(dataset.root)
    found = stored_features(tmp_path, unread, paths)
    assert torch.equal(found["features"], newer.features) and torch.equal(found["digests"], now.digests)
    assert stored_features(tmp_path, unread | {"weights": "others"}, paths) is None
    for others in (paths[:2], paths[::-1], [*paths[:2], "other.png"]):
        assert stored_features(tmp_path, unread, others) is None


def test_too_few_features_are_not_kept(tmp_path):
    """Nobody knows which images they are of."""
    with pytest.raises(RuntimeError, match="but 2 came"):
        load_bank(tmp_path, TOY_KEY, toy_contents(3), lambda rows: iter([torch.ones(2, 4)]))
    assert not list(tmp_path.rglob("*.safetensors"))
