"""The cache of frozen features: bound to all that it depends on, whole or absent, shared by processes."""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from active.features import bank_key, bank_path, load_bank
from dassl.data.dataset import Dataset, Datum
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import UserError

PROJECT = Path(__file__).resolve().parents[2]
PREPROCESSING = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TOY_KEY = {"dataset": "Toy", "split": "train"}
FEATURES = F.normalize(torch.arange(1.0, 13).reshape(3, 4), dim=1)


def make_dataset(root: Path) -> Dataset:
    items = tuple(Datum(f"{folder}/1.png", 0) for folder in ("a", "b", "ü x"))
    for datum in items:
        (root / datum.path).parent.mkdir(parents=True, exist_ok=True)
        (root / datum.path).write_bytes(datum.path.encode())
    return Dataset("Toy", root, items, (), items[:1], ("one", "two"))


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "data")


@pytest.fixture
def key(dataset):
    return bank_key("weights", PREPROCESSING, dataset, "train", "fp32", "cpu")


def never():
    raise AssertionError("features were extracted again")


def test_features_are_extracted_once(tmp_path, key):
    """The second call reads the file, bit for bit."""
    first = load_bank(tmp_path, key, lambda: FEATURES)
    second = load_bank(tmp_path, key, never)
    assert torch.equal(first.features, FEATURES) and torch.equal(second.features, FEATURES)
    assert second.key == key


def test_the_key_covers_weights_preprocessing_split_precision_and_device(dataset, key):
    """Row 8: anything that features depend on gives another key."""
    changed = [dataclasses.replace(PREPROCESSING, **{name: value}) for name, value in [
        ("size", (64, 64)), ("mean", (0.4, 0.5, 0.5)), ("std", (0.2, 0.25, 0.25)), ("interpolation", "nearest")]]
    others = [bank_key("other", PREPROCESSING, dataset, "train", "fp32", "cpu"),
              bank_key("weights", PREPROCESSING, dataset, "test", "fp32", "cpu"),
              bank_key("weights", PREPROCESSING, dataset, "train", "fp16", "cpu"),
              bank_key("weights", PREPROCESSING, dataset, "train", "fp32", "cuda"),
              bank_key("weights", PREPROCESSING, dataclasses.replace(dataset, name="Other"), "train", "fp32", "cpu"),
              *(bank_key("weights", preprocessing, dataset, "train", "fp32", "cpu") for preprocessing in changed)]
    paths = {bank_path(Path("."), other) for other in [key, *others]}
    assert len(paths) == 1 + len(others)


def test_the_key_follows_the_list_of_files_and_each_file(dataset, key):
    """Row 8: another order, one file fewer, another size or another time of change: each is another key."""
    def now(items=dataset.train):
        return bank_key("weights", PREPROCESSING, dataclasses.replace(dataset, train=items), "train", "fp32", "cpu")

    assert now() == key
    assert now(dataset.train[::-1]) != key
    assert now(dataset.train[:2]) != key
    path, status = dataset.files("train")[1], dataset.files("train")[1].stat()
    path.write_bytes(path.read_bytes() + b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert now() != key
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert now() != key


def test_a_moved_data_root_keeps_its_cache(tmp_path, dataset, key):
    """Keys hold relative paths, so neither a move nor a symlink extracts anything again."""
    shutil.move(dataset.root, tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    for root in ("moved", "link"):
        there = dataclasses.replace(dataset, root=tmp_path / root)
        assert bank_key("weights", PREPROCESSING, there, "train", "fp32", "cpu") == key


@pytest.mark.parametrize("damage", [
    lambda content: content[:-5], lambda content: content[:10], lambda content: b"", lambda content: b"not a bank" * 100,
    lambda content: content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]])
def test_a_damaged_file_is_refused_and_made_anew_with_a_warning(tmp_path, key, caplog, damage):
    """Row 8: truncated, empty, foreign or altered in one bit: the features are extracted again and the file replaced."""
    load_bank(tmp_path, key, lambda: FEATURES)
    path = bank_path(tmp_path, key)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_bank(tmp_path, key, lambda: FEATURES).features, FEATURES)
    assert str(path) in caplog.text and "made anew" in caplog.text
    assert torch.equal(load_bank(tmp_path, key, never).features, FEATURES)


def test_a_file_of_another_key_is_refused(tmp_path, key, caplog):
    """Row 8: a bank that was copied over another's name is not taken for it."""
    other = key | {"weights": "other"}
    load_bank(tmp_path, other, lambda: FEATURES + 1)
    bank_path(tmp_path, other).rename(bank_path(tmp_path, key))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load_bank(tmp_path, key, lambda: FEATURES).features, FEATURES)
    assert "does not hold what its name says" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_file_of_another_type_is_made_anew(tmp_path, key, dtype):
    """Row 8: whoever wrote it, features are float32 here."""
    load_bank(tmp_path, key, lambda: FEATURES)
    path = bank_path(tmp_path, key)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file({"features": FEATURES.to(dtype)}, path, metadata=metadata)
    assert load_bank(tmp_path, key, lambda: FEATURES).features.dtype == torch.float32


def test_an_extraction_that_fails_leaves_no_file(tmp_path, key):
    """The next call starts from nothing."""
    with pytest.raises(KeyboardInterrupt):
        load_bank(tmp_path, key, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert not bank_path(tmp_path, key).exists()
    assert torch.equal(load_bank(tmp_path, key, lambda: FEATURES).features, FEATURES)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, key):
    """The error holds the path."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'file'}"):
        load_bank(tmp_path / "file" / "cache", key, lambda: FEATURES)


def test_of_two_processes_one_extracts_and_the_other_waits(tmp_path):
    """Row 8: while another process extracts, this one waits for its file instead of extracting too."""
    script = tmp_path / "other.py"
    script.write_text(
        "import time, torch\nfrom pathlib import Path\nfrom active.features import load_bank\n"
        "def extract():\n    Path('extracting').touch()\n    time.sleep(0.5)\n    return torch.ones(3, 4)\n"
        f"load_bank(Path('cache'), {TOY_KEY}, extract)\n")
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    other = subprocess.Popen([sys.executable, script], cwd=tmp_path, env=environment)
    while not (tmp_path / "extracting").exists() and other.poll() is None:
        time.sleep(0.01)
    assert not bank_path(tmp_path / "cache", TOY_KEY).exists()
    assert torch.equal(load_bank(tmp_path / "cache", TOY_KEY, never).features, torch.ones(3, 4))
    assert other.wait(timeout=240) == 0


def test_a_bank_of_50_000_images_opens_in_less_than_a_second(tmp_path, key):
    """Reading and checking 100 MB is no reason to wait: a second of CPU time, whatever else the machine does."""
    load_bank(tmp_path, key, lambda: torch.ones(50_000, 512))
    start = time.process_time()
    load_bank(tmp_path, key, never)
    assert time.process_time() - start < 1
