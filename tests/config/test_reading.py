"""Reading YAML: anything surprising, or that could exhaust memory, is one line."""

import os
import socket
import time
from pathlib import Path

import pytest

from dassl.config.reading import MAX_BYTES, parse_yaml, read_yaml, shown
from dassl.utils.errors import ConfigError


def bomb(levels: int) -> str:
    """Return a few lines of YAML that expand to 10 ** levels values."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("text", "part"), [
    (bomb(5), "its aliases stand for"), (bomb(40), "its aliases stand for"),
    ("a: &a {b: 1}\n" + "\n".join(f"c{i}: &c{i} {{<<: [{', '.join([f'*c{i - 1}' if i else '*a'] * 9)}]}}" for i in range(8)),
     "its aliases stand for"),
    ("a: &a [*a]\n", "its aliases stand for"), ("a: &a {b: *a}\n", "its aliases stand for"),
    (f"a: {'[' * 1100}{']' * 1100}\n", "levels deep"), (f"a: {'[' * 150}{']' * 150}\n", "levels deep"),
    (f"a: {'{b: ' * 1100}1{'}' * 1100}\n", "levels deep"),
    ("a: !!int ''\n", "does not fit its tag"), ("a: !!int x\n", "invalid literal"),
    ("a: !!float ''\n", "does not fit its tag"),
    ("a: !!bool x\n", "does not fit its tag"),
    ("a: !!timestamp x\n", "does not fit its tag"), ("a: !!binary é\n", "base64"), ("a: !!null [1]\n", "expected a scalar"),
    ("a: !!set [1]\n", "does not fit its tag"), ("a: !!omap 3\n", "expected a sequence"), ("a: !!python/none\n", "python/none"),
    ('a: "\\0"\n', "NUL byte"), ('a: "\\ud800"\n', "half of a character"), ('"a\\0": 1\n', "NUL byte"),
    ("%YAML 9.9\n---\na: 1\n", "version"), ("a: *b\n", "undefined alias"), ("a: 9999-99-99\n", "month"),
])
def test_what_breaks_a_rule_is_one_line_at_once(tmp_path, text, part):
    """Row 14: alias bombs, deep nesting, tags that do not fit the value, and bytes that are not text."""
    (tmp_path / "a.yaml").write_text(text)
    begin = time.process_time()
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert time.process_time() - begin < 10
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.yaml'}: ") and part in message and "\n" not in message and len(message) < 1000


@pytest.mark.parametrize("text", ["a" * 10_000_000, f"a: {'1, ' * 100_000}", f"a: [{'[], ' * 100_000}]"])
def test_more_bytes_than_any_config_has_are_not_parsed(tmp_path, text):
    """A line of 10 MB would take minutes."""
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"a.yaml: more than {MAX_BYTES:,} bytes"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(("text", "value"), [
    ("1:2:3", "1:2:3"), ("-1:30", "-1:30"), ("1:2.5", "1:2.5"), ("010", "010"), ("-010", "-010"), ("0", 0), ("-0", 0),
    ("00", "00"), ("12", 12), ("0x10", 16), ("0.5", 0.5), ("1_000", 1000), (".5", 0.5), ("-.inf", -float("inf"))])
def test_numbers_are_decimal(text, value):
    """YAML 1.1 reads 3723 for 1:2:3 and 8 for 010, which nobody means."""
    found = parse_yaml(f"a: {text}", "here")["a"]
    assert found == value and type(found) is type(value)


def test_aliases_and_anchors_still_work():
    """A config may name a part and use it again, within reason."""
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", "here")["b"] == {"x": 1, "y": 2}
    assert len(str(parse_yaml(bomb(4), "here"))) > 10_000


@pytest.fixture
def odd_file(tmp_path, request):
    """A path that is not an ordinary file, of one of several kinds."""
    path = tmp_path / "a.yaml"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.close()
    elif request.param == "link":
        path.symlink_to(path)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "long":
        path = tmp_path / f"{'a' * 252}.yaml"
    elif request.param == "nul":
        path = Path(f"{tmp_path}/a\0.yaml")
    return path


@pytest.mark.parametrize("odd_file", ["pipe", "socket", "link", "device", "folder", "long", "nul", "absent"], indirect=True)
def test_what_is_no_ordinary_file_is_refused_at_once(odd_file):
    """A pipe would wait for a writer, and /dev/zero never ends (row 14)."""
    with pytest.raises(ConfigError, match=r"a(\\x00)?\.yaml'?: ") as caught:
        read_yaml(odd_file)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


def test_a_value_is_shown_in_one_line_of_moderate_length():
    """A message must not contain a megabyte of text or terminal escapes."""
    assert shown("a\nb") == r"'a\nb'" and shown("\x1b[2J") == r"'\x1b[2J'" and len(shown([1] * 10_000)) < 250


def test_what_is_read_of_a_text_is_not_shared():
    """A text is parsed once a process, but a cell of a sweep that changes its tree changes no other's."""
    parse_yaml("A: {B: [1]}", "first")["A"]["B"].append(2)
    assert parse_yaml("A: {B: [1]}", "second") == {"A": {"B": [1]}}
