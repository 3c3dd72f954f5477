"""Class names and labels that people write. Row 25 of the faults table."""

import pytest

from dassl.data.labels import read_classnames, read_labels
from dassl.utils.errors import DataError

PATHS, CLASSES = ("a.jpg", "two words.jpg", "c;d,e.jpg", "latin1 \udce9.jpg"), ("cat", "dog")


def labels(tmp_path, content: bytes) -> dict[str, int]:
    (tmp_path / "labels.csv").write_bytes(content)
    return read_labels(tmp_path / "labels.csv", PATHS, CLASSES)


@pytest.mark.parametrize("content", [
    b"path,label\na.jpg,dog\n", b"\xef\xbb\xbfpath,label\r\na.jpg,dog\r\n", b"path;label\na.jpg;dog\n",
    b"label\tpath\ndog\ta.jpg\n", b"path,label,who\na.jpg, dog ,me\na.jpg,dog,you\n",
    b"path,label\na.jpg,dog\ntwo words.jpg,\n"])
def test_delimiters_marks_and_line_ends_of_any_program_are_read(tmp_path, content):
    """A byte-order mark, semicolons, tabs, CRLF, further columns, the same answer twice, an empty answer."""
    assert labels(tmp_path, content) == {"a.jpg": 1}


def test_odd_file_names_are_read(tmp_path):
    """Row 22."""
    assert labels(tmp_path, b'path,label\n"c;d,e.jpg",cat\nlatin1 \xe9.jpg,dog\n') == {"c;d,e.jpg": 0, "latin1 \udce9.jpg": 1}


def test_every_wrong_line_is_listed_and_none_counts(tmp_path):
    with pytest.raises(DataError) as caught:
        labels(tmp_path, b"path,label\na.jpg,dog\nb.jpg,dog\ntwo words.jpg,dgo\na.jpg,cat\n")
    assert str(caught.value).splitlines()[1:] == [
        "  line 3: no such image: b.jpg", "  line 4: unknown class 'dgo'; did you mean 'dog'?",
        "  line 5: a.jpg is both 'dog' and 'cat'"]


@pytest.mark.parametrize("content", [b"", b"a.jpg,dog\n", b"file,label\na.jpg,dog\n"])
def test_a_table_without_the_two_columns_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="must name the columns path and label"):
        labels(tmp_path, content)


def test_a_table_that_no_csv_reader_takes_is_an_error(tmp_path):
    """Row 25: a quote that nobody closed makes one endless cell; the line is named and nothing unwinds."""
    with pytest.raises(DataError, match=r"line \d+ is no CSV: field larger than field limit"):
        labels(tmp_path, b'path,label\n"' + b"a.jpg,dog\n" * 20_000)


@pytest.mark.parametrize(("file", "content", "message"), [
    ("a.txt", "", "expected class names"), ("a.yaml", "", "expected class names"), ("a.yaml", "cat", "expected class names"),
    ("a.yaml", "[yes, dog]", "True is not text, put it in quotes"), ("a.yaml", "cat: 1", "1 is not text"),
    ("a.txt", "cat\ndog\ncat\n", "these classes stand twice: cat"), ("a.yaml", "a: cat\nb: cat", "stand twice: cat"),
    ("a.yaml", "[cat", "cannot read")])
def test_a_wrong_file_of_class_names_is_an_error(tmp_path, file, content, message):
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_classnames(tmp_path / file)
