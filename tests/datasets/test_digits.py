"""The digits of the quickstart."""

import hashlib

import pytest

import datasets  # noqa: F401  registers the data sets
from dassl.data.dataset import DATASETS
from dassl.utils.errors import DataError


def test_digits_keep_their_split(tmp_path):
    """It must be the same byte for byte, as the quickstart's figures depend on it."""
    dataset = DATASETS["Digits"].build(tmp_path)
    content = (tmp_path / "digits" / "split_digits.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "91011e2937737bacfc159a59845775de0260f130e9934fe2cfb4e409b933c8b0"
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [1197, 150, 450]


@pytest.mark.parametrize("photo", ["a.jpg", "cat/a.jpg"])
def test_digits_are_not_written_among_somebody_s_photos(tmp_path, photo):
    """Where `DATASET.NAME ImageFolder` was forgotten: they would be photos too. Data sets with deeper folders are no photos."""
    (tmp_path / "dtd" / "images" / "dots").mkdir(parents=True)
    (tmp_path / "dtd" / "images" / "dots" / "1.jpg").touch()
    (tmp_path / photo).parent.mkdir(exist_ok=True)
    (tmp_path / photo).touch()
    with pytest.raises(DataError, match=r"holds images of its own, such as a\.jpg, and Digits .* DATASET\.NAME ImageFolder"):
        DATASETS["Digits"].build(tmp_path)
    assert not (tmp_path / "digits").exists()
    (tmp_path / photo).unlink()
    assert len(DATASETS["Digits"].build(tmp_path).train) == 1197
