"""The digits of the quickstart."""

import hashlib

import datasets  # noqa: F401  registers the data sets
from dassl.data.dataset import DATASETS


def test_digits_keep_their_split(tmp_path):
    """It must be the same byte for byte, as the quickstart's figures depend on it."""
    dataset = DATASETS["Digits"].build(tmp_path)
    content = (tmp_path / "digits" / "split_digits.json").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "91011e2937737bacfc159a59845775de0260f130e9934fe2cfb4e409b933c8b0"
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [1197, 150, 450]
