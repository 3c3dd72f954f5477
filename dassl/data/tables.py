"""Text tables of where images are and what they show: CSV, TSV and JSON lines.

Tables that may hold the images themselves are in `dassl.data.columnar`.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from dassl.data.places import Part
from dassl.data.sheets import grid
from dassl.utils.errors import DataError
from dassl.utils.paths import open_file, reason
from dassl.utils.text import printable

Value = str | int | None

SHEETS, LINES = (".csv", ".tsv"), (".jsonl", ".ndjson")


class Table(ABC):
    """The columns of a file of rows.

    `images` are the columns that are declared to hold images, `classes` the names of the numbers in a column of classes.
    """

    def __init__(self, file: Path, columns: Sequence[str], images: Sequence[str], classes: Mapping[str, tuple[str, ...]]):
        self.file, self.columns, self.images, self.classes = file, tuple(columns), tuple(images), classes
        if twice := [name for name in self.columns if self.columns.count(name) > 1 and name]:
            raise DataError(f"{file}: {self.columns.count(twice[0])} columns are called {twice[0]!r}; rename those that do not "
                            "count")

    @abstractmethod
    def cells(self, column: str) -> list[object]:
        """Return the cells of a column, row by row."""

    def values(self, column: str) -> list[Value]:
        """Return the texts or whole numbers of a column; None for empty cells. Raises DataError for anything else."""
        return [_value(cell, f"{self.file}: column {column!r}, row {row}") for row, cell in enumerate(self.cells(column), 1)]

    def places(self, column: str) -> list[str | Part]:
        """Return the places of a column's images: the path in the cell, or a part of this file with its name, or ""."""
        texts = self.values(column)
        if missing := [row for row, text in enumerate(texts, 1) if text is None]:
            raise DataError(f"{self.file}: column {column!r} names no image in {len(missing)} rows, first row {missing[0]}")
        return [str(text) for text in texts]


class TextTable(Table):
    """A table whose cells are in memory."""

    def __init__(self, file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]):
        super().__init__(file, columns, (), {})
        self._rows = rows

    def cells(self, column: str) -> list[object]:
        return [row.get(column) for row in self._rows]


def read_sheet(file: Path) -> TextTable:
    """Return the table in a CSV or TSV file, whose first row names the columns; raises DataError if it is not a table."""
    columns, rows = grid(file)
    return TextTable(file, columns, [dict(zip(columns, row)) for _, row in rows])  # noqa: B905  a short row ends early


def read_lines(file: Path) -> TextTable:
    """Return the table in a file with one JSON object per line; raises DataError, naming the line, for anything else."""
    rows = list(_objects(file))
    return TextTable(file, list(dict.fromkeys(name for row in rows for name in row)), rows)


def _objects(file: Path) -> Iterator[dict[str, object]]:
    try:
        with open_file(file) as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                row = json.loads(line.decode("utf-8-sig"))
                if not isinstance(row, dict):
                    raise DataError(f"{file}: line {number} is not a JSON object, such as {{\"file_name\": \"1.jpg\"}}")
                yield row
    except OSError as error:
        raise DataError(f"cannot read {file}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {number} is not JSON: {reason(error)}") from error


def _value(cell: object, place: str) -> Value:
    """Return a cell as text or whole number; a number that another program wrote as 3.0 counts as whole."""
    if cell is None or cell != cell:  # pandas has NaN for empty cells
        return None
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, str):
        return cell.strip() or None
    if isinstance(cell, (int, float)) and cell == int(cell):
        return int(cell)
    raise DataError(f"{place}: expected a text or a whole number, not {printable(repr(cell)[:60])}")
