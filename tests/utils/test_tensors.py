"""Cache files: what they state, and what is accepted as a file."""

import hashlib
import os
import struct

import pytest
import torch

from dassl.utils.tensors import key_of, load_tensors, save_tensors, state_hash

KEY = {"of": "three rows"}
TENSORS = {"a": torch.arange(6).reshape(3, 2), "b": torch.ones(3, dtype=torch.uint8)}
TYPES = {"a": torch.int64, "b": torch.uint8}


@pytest.fixture
def file(tmp_path):
    save_tensors(tmp_path / "file", KEY, TENSORS)
    return tmp_path / "file"


def test_tensors_and_key_come_back(file):
    loaded = load_tensors(file, KEY, TYPES)
    assert loaded.keys() == TENSORS.keys() and all(torch.equal(loaded[name], TENSORS[name]) for name in TENSORS)
    assert key_of(file) == KEY


def test_the_same_tensors_are_the_same_bytes(file, tmp_path):
    save_tensors(tmp_path / "other", KEY, dict(reversed(TENSORS.items())))
    assert (tmp_path / "other").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("key", "types"), [({"of": "others"}, TYPES), (KEY, {"a": torch.int32, "b": torch.uint8}),
                                            (KEY, TYPES | {"c": torch.uint8})])
def test_another_key_type_or_name_is_none(file, caplog, key, types):
    assert load_tensors(file, key, types) is None
    assert "made anew" in caplog.text


def test_every_altered_byte_of_the_tensors_is_noticed(file):
    content = file.read_bytes()
    for place in range(len(content) - sum(tensor.nbytes for tensor in TENSORS.values()), len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        assert load_tensors(file, KEY, TYPES) is None


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 100])
def test_a_file_that_is_something_else_states_nothing(file, content):
    file.write_bytes(content)
    assert key_of(file) == {} and load_tensors(file, KEY, TYPES) is None


def test_an_absent_file_is_none_without_a_word(tmp_path, caplog):
    assert load_tensors(tmp_path / "absent", KEY, TYPES) is None and key_of(tmp_path / "absent") == {}
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path, caplog, kind):
    """Row 8: a pipe in place of a cache is damaged, like any other content."""
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert load_tensors(path, KEY, TYPES) is None and "made anew" in caplog.text
    assert key_of(path) == {}


def test_the_hash_of_a_state_is_that_of_its_words_and_bytes_by_name():
    """By hand, in the bytes that caches and older prompts were hashed by; a number alone and half precision too."""
    state = {"b": torch.tensor([1.0, -2.0], dtype=torch.float16), "a": torch.tensor(7)}
    expected = hashlib.sha256(b"first" + b"a 0" + struct.pack("<q", 7) + b"b 1" + struct.pack("<2e", 1, -2)).hexdigest()
    assert state_hash(state, lambda name, value: f"{name} {value.ndim}", b"first") == expected
