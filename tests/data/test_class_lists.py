"""Lists of class names that people write. Row 25 of the faults table."""

import tracemalloc

import pytest

from dassl.data.class_lists import MAX_BYTES, read_classnames
from dassl.utils.errors import DataError

NAMES = {"cat": "cat", "hot dog": "hot dog", "Elk": "Elk"}


def written(tmp_path, name: str, content: str | bytes):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return tmp_path / name


@pytest.mark.parametrize(("file", "content"), [
    ("c.txt", "cat\nhot dog\nElk\n"), ("c.txt", "\ufeff# my classes\r\n#\r\ncat \r\n\r\n hot dog\r\nElk"),
    ("c.txt", "cat, hot dog,Elk\n"), ("c.txt", "cat;hot dog;Elk"), ("c.txt", "cat\thot dog\tElk"),
    ("c.txt", "cat,\nhot dog,\nElk"),
    ("c.json", '["cat", "hot dog", "Elk"]'), ("c.txt", '["cat", "hot dog", "Elk"]'), ("c.yaml", "[cat, hot dog, Elk]"),
    ("c.json", '{"cat": "cat", "hot dog": "hot dog", "Elk": "Elk"}'), ("c.yml", "- cat\n- hot dog\n- Elk # deer"),
    ("c.txt", "cat\nhot dog\nElk\n".encode("utf-16"))])
def test_lists_of_any_form_are_read_in_their_order(tmp_path, file, content):
    assert list(read_classnames(written(tmp_path, file, content)).items()) == list(NAMES.items())


@pytest.mark.parametrize("file", ["c.json", "c.yaml"])
def test_a_mapping_gives_names_by_folder(tmp_path, file):
    assert read_classnames(written(tmp_path, file, '{"n01": "cat", "n02": "dog"}')) == {"n01": "cat", "n02": "dog"}


def test_commas_within_names_stay_where_there_are_lines(tmp_path):
    names = ["tench, Tinca tinca", "[odd", "cat # tabby"]
    assert list(read_classnames(written(tmp_path, "c.txt", "\n".join(names)))) == names


@pytest.mark.parametrize(("file", "content", "message"), [
    ("a.txt", "", "expected class names"), ("a.txt", "# none", "expected"), ("a.yaml", "", "expected"),
    ("a.yaml", "cat", "expected"),
    ("a.json", '"cat"', "expected"), ("a.json", "{}", "expected"),
    ("a.yaml", "[yes, dog]", "'yes' is not text, put it in quotes"), ("a.yaml", "cat: 1", "'1' is not text"),
    ("a.json", '["cat", null]', "None is not text"), ("a.json", '{"cat": ["a"]}', "is not text"),
    ("a.yaml", "names: [cat, dog]", "'a list or mapping' is not text"),
    ("a.txt", "cat\ndog\ncat\n", "stand twice: 'cat'"), ("a.yaml", "a: cat\nb: cat", "stand twice: 'cat'"),
    ("a.yaml", "cat: a\ncat: b", "stand twice: 'cat'"), ("a.json", '{"cat": "a", "cat": "b"}', "stand twice: 'cat'"),
    ("a.yaml", "[&a cat, *a]", "stand twice: 'cat'"),
    ("a.yaml", "['cat ', dog]", "blanks at their ends: 'cat '"), ("a.json", '["cat", ""]', "are blank"),
    ("a.json", '["cat", "\\u00a0dog"]', "blanks at their ends"),
    ("a.txt", "cat\n#dog\n", "'#dog' may be a comment or a class name"),
    ("a.yaml", "[cat", "cannot read"), ("a.json", "[cat", "cannot read"), ("a.json", "[" * 100_000, "cannot read"),
    ("a.txt", "caf\u00e9\nb\n".encode("cp1252"), "is not UTF-8"), ("a.txt", "x" * 2000 + "\ny", "more than 1000 characters")])
def test_a_wrong_file_of_class_names_is_an_error(tmp_path, file, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_classnames(written(tmp_path, file, content))
    assert len(str(caught.value)) < 1000


def test_a_yaml_bomb_is_not_resolved(tmp_path):
    """Nine levels of nine aliases would be 387 million items."""
    lines = ["- &x0 [a, a, a, a, a, a, a, a, a]", *(f"- &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 9))]
    with pytest.raises(DataError, match="is not text"):
        read_classnames(written(tmp_path, "c.yaml", "\n".join(lines)))


@pytest.mark.parametrize("name", ["c.txt", "c.yaml", "c.json"])
def test_a_list_of_many_megabytes_is_refused_before_it_is_read(tmp_path, name):
    """Row 19: its size alone is enough."""
    file = written(tmp_path, name, "x" * 10_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=f"has 10,000,000 bytes, but a list of class names at most {MAX_BYTES:,}"):
        read_classnames(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
