"""Labels that people write, as spreadsheets save them. Row 25 of the faults table."""

import re
import unicodedata

import pytest

from dassl.data.labels import read_labels
from dassl.data.sheets import sheet
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
        "  row 3: no such image: b.jpg", "  row 4: unknown class 'dgo'; did you mean 'dog'?",
        "  row 5: a.jpg is both 'dog' and 'cat'"]


@pytest.mark.parametrize("content", [b"", b"a.jpg,dog\n", b"file,label\na.jpg,dog\n"])
def test_a_table_without_the_two_columns_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="must name the columns path and label"):
        labels(tmp_path, content)


def test_a_table_that_no_csv_reader_takes_is_an_error(tmp_path):
    """Row 25: an unclosed quote makes one endless cell. An error names the line, without a traceback."""
    with pytest.raises(DataError, match=r"row \d+ is not CSV: field larger than field limit"):
        labels(tmp_path, b'path,label\n"' + b"a.jpg,dog\n" * 20_000)


@pytest.mark.parametrize("content", [
    b"path,label\na.jpg,dog\n,,\n ; \n", b"path;label\n;;;\na.jpg;dog\n;;\n", b"\n\n,\npath,label\n\na.jpg,dog\n",
    b"path,label\na.jpg,dog,blurred?,\n,,only a remark\n", b"sep=;\r\npath;label\r\na.jpg;dog\r\n",
    b"sep=|\npath|label\na.jpg|dog\n",
    b"Path,LABEL\na.jpg,dog\n", b" path , label \na.jpg,dog\n", b"path,label\n./a.jpg,dog\n.\\a.jpg,dog\n a.jpg ,dog\n",
    b"path,label\na.jpg,Dog\na.jpg,DOG\na.jpg,_dog\n", b"path,label\ra.jpg,dog\r"])
def test_what_can_only_mean_one_thing_is_read(tmp_path, content):
    """Rows of separators, comments, Excel's first line, any case, `./`, backslashes, spaces, underscores, and old line ends."""
    assert labels(tmp_path, content) == {"a.jpg": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "mac_roman", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_encoding_is_that_in_which_the_names_are_known(tmp_path, encoding, form):
    """Windows and macOS encodings, with and without a mark. Names on a Mac are decomposed, but in lists they seldom are."""
    path, name = "caf\u00e9/Stra\u00dfe.jpg", "na\u00efve_b\u00e4r"
    (tmp_path / "l.csv").write_bytes(f"path,label,remark\n{path},na\u00efve b\u00e4r,\u00fc\u00a7\n".encode(encoding))
    known = [unicodedata.normalize(form, text) for text in (path, name)]
    assert read_labels(tmp_path / "l.csv", [known[0], "b.jpg"], ["x", known[1]]) == {known[0]: 1}


def test_a_remark_in_any_encoding_is_no_matter(tmp_path):
    """Only the two columns that are read matter, and here they are the same in any encoding."""
    assert labels(tmp_path, b"path,label,remark\na.jpg,dog,caf\xe9 \x8e\n") == {"a.jpg": 1}


def test_names_that_no_encoding_makes_known_are_an_error_with_encoding_and_row(tmp_path):
    """The row is the one that a spreadsheet shows: blank rows and line ends within cells are counted as it does."""
    content = b'path,label,remark\n\na.jpg,dog,"two\nlines"\ncaf\xe9.jpg,dog,\n'
    with pytest.raises(DataError, match=r"not UTF-8, and the names from row 4 on are known in none .*cp1252: 'café.jpg dog'"):
        labels(tmp_path, content)


def test_names_that_two_encodings_make_known_are_an_error(tmp_path):
    (tmp_path / "l.csv").write_bytes(b"path,label\ncaf\xe9.jpg,dog\n")
    paths = ["caf\u00e9.jpg", b"caf\xe9.jpg".decode("mac_roman")]
    with pytest.raises(DataError, match="are known in several encodings"):
        read_labels(tmp_path / "l.csv", paths, CLASSES)


def test_a_typing_error_in_another_row_does_not_hide_the_encoding(tmp_path):
    """It is listed with its row, as always."""
    (tmp_path / "l.csv").write_bytes(b"path,label\ncaf\xe9.jpg,dog\na.jpg,dgo\n")
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "l.csv", ["caf\u00e9.jpg", "a.jpg"], CLASSES)
    assert str(caught.value).splitlines()[1:] == ["  row 3: unknown class 'dgo'; did you mean 'dog'?"]


def test_what_may_mean_two_things_is_listed(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\na\u0301.jpg,DOG\n.\\x.jpg,dog\n")
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path / "l.csv", ["a\u0301.jpg", "\u00e1.jpg", "x.jpg", "./x.jpg"], ["dog", "Dog"])
    assert str(caught.value).splitlines()[1:] == ["  row 2: class 'DOG' may be 'Dog' or 'dog'",
                                                  "  row 3: .\\x.jpg may be ./x.jpg or x.jpg"]
    (tmp_path / "l.csv").write_text("path,label\n\u00e1.jpg,Dog\n")
    assert read_labels(tmp_path / "l.csv", ["a\u0301.jpg", "\u00e1.jpg"], ["dog", "Dog"]) == {"\u00e1.jpg": 1}


@pytest.mark.parametrize("header", ["path,label,label", "path,Label,label", "path,path,label"])
def test_a_column_that_stands_twice_is_refused(tmp_path, header):
    with pytest.raises(DataError, match=r"2 columns are called (label|path)"):
        labels(tmp_path, f"{header}\na.jpg,dog,cat\n".encode())


@pytest.mark.parametrize("content", [b'path,label\na.jpg,dog\n"two words.jpg,cat\n', b'path,label,remark\na.jpg,dog,"oh\n'])
def test_a_quote_that_nobody_closed_is_an_error(tmp_path, content):
    """Otherwise the following rows would become part of the cell, and their labels would be lost."""
    with pytest.raises(DataError, match=r"row [23] is not CSV: unexpected end of data"):
        labels(tmp_path, content)


def test_a_cell_of_any_length_is_quoted_in_part(tmp_path):
    with pytest.raises(DataError) as caught:
        labels(tmp_path, b"path,label\n" + b"x" * 131_000 + b",dog\na.jpg," + b"y" * 131_000 + b"\n")
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x.jpg", "@x", "\tx", "\rx", "'=x", "''-x", "'x", "x=1", "a,b\n", "=\u00e9"])
def test_no_cell_is_a_formula_and_every_name_comes_back(tmp_path, name):
    """A cell is quoted with an apostrophe, as in spreadsheets. A name that itself begins with one can be told apart."""
    (tmp_path / "l.csv").write_text(sheet([("path", "label"), (name, f"{name} class")]), newline="")
    assert not re.search(r"^[\"]?[=+@\t\r-]|,[\"]?[=+@\t\r-]", (tmp_path / "l.csv").read_text().split("\n", 1)[1])
    paths = [name, f"'{name}", name.removeprefix("'")]
    assert read_labels(tmp_path / "l.csv", paths, ["other", f"{name} class".strip()]) == {name: 1}


def test_a_table_of_before_without_apostrophes_is_read(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\n-x.jpg,=dog\n'=y.jpg,=dog\n")
    assert read_labels(tmp_path / "l.csv", ["-x.jpg", "'=y.jpg"], ["cat", "=dog"]) == {"-x.jpg": 1, "'=y.jpg": 1}
