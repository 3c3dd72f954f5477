"""Tables of labels as people and spreadsheets write them: CSV in any encoding, read if it can mean only one thing."""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dassl.data.known import Known
from dassl.utils.errors import DataError

LabelRow = tuple[str, str, str]  # place in the file, path of the image, class name or ""

COLUMNS = ("path", "label")
DELIMITERS = (",", ";", "\t")
BLANK = " \r\n" + "".join(DELIMITERS)  # what a cell in a row of separators may hold, when read with another delimiter
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
         codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}  # UTF-32 LE begins like UTF-16 LE
OTHERS = {"cp1252": "Windows' cp1252", "mac_roman": "Mac Roman"}
SEPARATOR = re.compile(r'"?sep=(.)"?(\r\n|\r|\n)', re.IGNORECASE)  # Excel's own first line, which it does not show
N_SHOWN = 200  # characters of a cell or header that a message quotes


def label_rows(file: Path, known: Known) -> list[LabelRow]:
    """Return the rows of a CSV file with the columns path and label, with row numbers as a spreadsheet shows them.

    Only these two columns count, and rows without both are skipped. A file that is not UTF-8 is read in the encoding in
    which its names are known. Raises DataError if it is not such a table, or if no encoding fits.
    """
    read = {encoding: _rows(file, text) for encoding, text in decoded(_content(file)).items()}
    if len(read) == 1:
        return next(iter(read.values()))
    fitting = {encoding: rows for encoding, rows in read.items() if all(known.holds(*row[1:]) for row in _accented(rows))}
    meanings = {tuple(known.meant(*row[1:]) for row in rows) for rows in fitting.values()}
    if "utf-8" in fitting or len(meanings) == 1:
        return next(iter(fitting.values()))
    raise DataError(_no_encoding(file, read, several=bool(fitting)))


def pairs(file: Path, columns: tuple[str, str]) -> list[tuple[str, str, str]]:
    """Return (place, first, second) of the rows of a CSV file with two columns of these names; raises DataError as above."""
    texts = decoded(_content(file))
    if len(texts) > 1:
        raise DataError(f"{file} is not UTF-8; save it as CSV UTF-8")
    return _rows(file, next(iter(texts.values())), columns)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def decoded(content: bytes) -> dict[str, str]:
    """Return the text of a file by encoding: a single one if it is certain, else all possible ones.

    These are UTF-8 with stray bytes in file names, as Linux allows, and the other encodings that spreadsheets use.
    """
    for mark, encoding in MARKS.items():
        if content.startswith(mark) and (text := _strict(content[len(mark):], encoding)) is not None:
            return {encoding: text}
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content[:2] and (text := _strict(content, "utf-16-be" if content[0] == 0 else "utf-16-le")) is not None:
        return {"utf-16": text}
    if (text := _strict(content, "utf-8")) is not None:
        return {"utf-8": text}
    others = {encoding: text for encoding in OTHERS if (text := _strict(content, encoding)) is not None}
    return {"utf-8": content.decode("utf-8", "surrogateescape")} | others


def sheet(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV text without formulas: text that begins like one gets an apostrophe in front."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_quoted(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue()


def _quoted(cell: str) -> str:
    return f"'{cell}" if re.match(r"'*[=+\-@\t\r]", cell) else cell


def _strict(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


def _rows(file: Path, text: str, columns: tuple[str, str] = COLUMNS) -> list[LabelRow]:
    separator = SEPARATOR.match(text)
    text, fault = text[separator.end():] if separator else text, None
    for delimiter in separator[1] if separator else DELIMITERS:
        cells = _cells(file, text, delimiter)
        try:
            _, header = next(cells, (0, []))
        except DataError as error:
            fault = error
            continue
        names = [name.strip().casefold() for name in header]
        if set(columns) <= set(names):
            path, label = (_column(file, names, name) for name in columns)
            rows = [(f"row {number}", _cell(row, path), _cell(row, label).strip()) for number, row in cells]
            return [row for row in rows if row[1].strip(BLANK) or row[2].strip(BLANK)]
    if fault:
        raise fault
    first = (text.splitlines() or [""])[0].strip()[:N_SHOWN]
    raise DataError(f"{file}: the first row must name the columns {columns[0]} and {columns[1]}, not {first!r}")


def _cells(file: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with their numbers; raises DataError where the text is not CSV."""
    number = 0
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), start=1):
            if any(cell.strip(BLANK) for cell in row):
                yield number, row
    except csv.Error as error:
        raise DataError(f"{file}: row {number + 1} is not CSV: {error}") from error


def _column(file: Path, names: Sequence[str], name: str) -> int:
    if names.count(name) > 1:
        raise DataError(f"{file}: {names.count(name)} columns are called {name}; rename those that do not count")
    return names.index(name)


def _cell(row: Sequence[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _accented(rows: Iterable[LabelRow]) -> list[LabelRow]:
    """Return the rows whose names depend on the encoding."""
    return [row for row in rows if not (row[1] + row[2]).isascii()]


def _no_encoding(file: Path, read: dict[str, list[LabelRow]], *, several: bool) -> str:
    """Return the message for a file that is not UTF-8, with the first row that depends on the encoding in each of them."""
    shown = [f"{name}: {' '.join(_accented(read[encoding])[0][1:])[:N_SHOWN]!r}"
             for encoding, name in OTHERS.items() if encoding in read]
    why = "are known in several encodings" if several else "are known in none that spreadsheets write"
    return (f"{file} is not UTF-8, and the names from {_accented(read['utf-8'])[0][0]} on {why} ({', '.join(shown)}); "
            "save it as CSV UTF-8")


def grid(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the first row of a CSV or TSV file and the other rows with their numbers, cut where most columns have a name.

    Raises DataError if it cannot be read or is not such a table.
    """
    texts = decoded(_content(file))
    if len(texts) > 1:
        raise DataError(f"{file} is not UTF-8; save it as CSV UTF-8")
    text = next(iter(texts.values()))
    separator = SEPARATOR.match(text)
    text, found, fault = text[separator.end():] if separator else text, [], DataError(f"{file} is empty")
    for delimiter in separator[1] if separator else DELIMITERS:
        try:
            found.append(list(_cells(file, text, delimiter)))
        except DataError as error:
            fault = error
    rows = max(found, key=lambda rows: len(rows[0][1]) if rows else 0, default=[])
    if not rows:
        raise fault
    return [name.strip() for name in rows[0][1]], rows[1:]
