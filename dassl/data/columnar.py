"""Tables that may hold the images themselves: Parquet, and Arrow as Hugging Face's `save_to_disk` writes it.

Names and labels are read without the images. An image is read with its neighbors: for Parquet, one row group is in memory,
and a second while the next is begun; an Arrow file is memory-mapped, not read.
"""

import functools
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.data.places import Part, stamp_of
from dassl.data.tables import Table
from dassl.utils.errors import DataError
from dassl.utils.extras import required
from dassl.utils.paths import check_file, reason

if TYPE_CHECKING:
    import pyarrow

PARQUET, ARROW = ".parquet", ".arrow"
N_GROUPS = 2  # row groups of images in memory
N_MAPPED = 64  # Arrow files mapped at a time


@dataclass(frozen=True, slots=True)
class Cell(Part):
    """An image in a column of a Parquet or Arrow file, by its row within a row group."""

    column: str
    group: int
    row: int

    def read(self) -> bytes:
        return _read(self._content, self)

    def _content(self) -> bytes:
        cells = _images.of(self.holder, self.group, self.column)
        if self.row >= len(cells):
            raise OSError("the table has fewer rows now")
        content = cells[self.row].as_py()
        content = content.get("bytes") if isinstance(content, dict) else content
        if not isinstance(content, bytes):
            raise OSError("the table holds no bytes for it")
        return content


class Columnar(Table):
    """The table in a Parquet or Arrow file. Raises DataError if it cannot be read."""

    def __init__(self, file: Path):
        self._reader = reader(file)
        super().__init__(file, *_read(lambda: _declared(self._reader.schema), file))

    def cells(self, column: str) -> list[object]:
        return _read(lambda: self._reader.cells(column), self.file)

    def places(self, column: str) -> list[str | Part]:
        if not _read(lambda: _holds_images(self._reader.schema.field(column).type), self.file):
            return super().places(column)
        return _read(lambda: [place for group in range(self._reader.n_groups) for place in self._places(column, group)],
                     self.file)

    def _places(self, column: str, group: int) -> Iterator[str | Part]:
        names, is_embedded = self._reader.names(group, column)
        for row, (name, embedded) in enumerate(zip(names, is_embedded, strict=True)):
            if not embedded and not name:
                raise DataError(f"{self.file}: column {column!r} has neither bytes nor a path in row {row + 1} of row group "
                                f"{group + 1}")
            yield Cell(str(self.file), name or "", column, group, row) if embedded else name


class _Parquet:
    def __init__(self, file: Path):
        self._file, self._parquet = file, required("pyarrow.parquet", "Parquet files", "requirements-data.txt")
        self._kinds: dict[str, set[bool]] = {}
        with self._opened() as opened:
            self.schema, self.n_groups = opened.schema_arrow, opened.num_row_groups

    def cells(self, column: str) -> list[object]:
        return [cell for group in range(self.n_groups) for cell in self.column(group, column).to_pylist()]

    def column(self, group: int, column: str) -> "pyarrow.ChunkedArray":
        with self._opened() as opened:
            return opened.read_row_group(group, columns=[column], use_threads=False).column(0)

    def names(self, group: int, column: str) -> tuple[list[str | None], list[bool]]:
        """Return the names of the images in a row group, and whether their bytes are here.

        This is checked in the first row group, and in others if there are images of both kinds.
        """
        with self._opened() as opened:
            names = [None] * opened.metadata.row_group(group).num_rows
            if _fields(self.schema.field(column).type) >= {"bytes", "path"}:
                paths = opened.read_row_group(group, columns=[f"{column}.path"], use_threads=False).column(0)
                names = [cell and cell["path"] for cell in paths.to_pylist()]
        if column not in self._kinds:
            self._kinds[column] = set(self._has_bytes(0, column))
        kinds = self._kinds[column]
        return names, self._has_bytes(group, column) if len(kinds) > 1 else list(kinds or {True}) * len(names)

    def _has_bytes(self, group: int, column: str) -> list[bool]:
        return [has for cells in self.column(group, column).chunks for has in _has_bytes(cells)]

    def _opened(self) -> Any:
        return self._parquet.ParquetFile(self._file)


class _Arrow:
    def __init__(self, file: Path):
        pyarrow = required("pyarrow", "Arrow files", "requirements-data.txt")
        source = pyarrow.memory_map(str(file))
        try:
            self._table = pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:  # Arrow has a second format, the stream
            self._table = pyarrow.ipc.open_file(source).read_all()
        self._table.validate(full=True)  # else a damaged file would be read beyond its end; pixels are not checked
        self.schema = self._table.schema
        self.n_groups = max((column.num_chunks for column in self._table.columns), default=0)

    def cells(self, column: str) -> list[object]:
        return self._table[column].to_pylist()

    def column(self, group: int, column: str) -> "pyarrow.Array":
        return self._table[column].chunk(group)

    def names(self, group: int, column: str) -> tuple[list[str | None], list[bool]]:
        cells = self.column(group, column)
        names = _children(cells)["path"].to_pylist() if _fields(cells.type) >= {"bytes", "path"} else [None] * len(cells)
        return names, _has_bytes(cells)


class _Images:
    """The row groups of images, of one column each, that were read last; others who ask for one being read wait for it."""

    def __init__(self):
        self._kept: OrderedDict[tuple, Any] = OrderedDict()
        self._lock = threading.Lock()

    def forked(self) -> None:
        self._lock = threading.Lock()  # another thread of the parent may have held it

    def of(self, file: str, group: int, column: str) -> Any:
        with self._lock:
            key = (file, group, column, *_stamp(file))
            if key not in self._kept:
                self._kept[key] = _read(lambda: _reader(file, *_stamp(file)).column(group, column), file)
            self._kept.move_to_end(key)
            if len(self._kept) > N_GROUPS:
                self._kept.popitem(last=False)
            return self._kept[key]


_images = _Images()
os.register_at_fork(after_in_child=_images.forked)


def reader(file: Path) -> _Parquet | _Arrow:
    """Return the reader of a file; raises DataError, naming it, if it cannot be read or is damaged."""
    return _read(lambda: _reader(str(file), *_stamp(file)), file)


@functools.lru_cache(maxsize=N_MAPPED)
def _reader(file: str, *stamp: int) -> _Parquet | _Arrow:
    check_file(file)
    return (_Parquet if file.endswith(PARQUET) else _Arrow)(Path(file))


def _stamp(file: str | Path) -> tuple[int, ...]:
    return stamp_of(os.stat(file))


def _read(read: Callable[[], Any], file: str | os.PathLike) -> Any:
    try:
        return read()
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError) as error:  # and thus pyarrow's errors
        raise DataError(f"cannot read {file}: {(reason(error).splitlines() or [type(error).__name__])[0]}") from error


def _declared(schema: "pyarrow.Schema") -> tuple[list[str], list[str], dict[str, tuple[str, ...]]]:
    """Return all columns, the columns that hold images, and the names of classes by column."""
    features = _features(schema)
    images = [name for name, kind in features.items() if kind.get("_type") == "Image"] or [
        field.name for field in schema if _holds_images(field.type)]
    return schema.names, images, {name: tuple(map(str, kind["names"])) for name, kind in features.items()
                                  if kind.get("_type") == "ClassLabel" and kind.get("names")}


def _features(schema: "pyarrow.Schema") -> dict[str, dict[str, Any]]:
    """Return Hugging Face's description of the columns, which it writes into the file; {} if there is none."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: kind for name, kind in features.items() if isinstance(kind, dict) and name in schema.names}


def _holds_images(kind: "pyarrow.DataType") -> bool:
    return "bytes" in _fields(kind) or str(kind) in ("binary", "large_binary", "binary_view")


def _fields(kind: "pyarrow.DataType") -> set[str]:
    return {kind.field(place).name for place in range(kind.num_fields)} if str(kind).startswith("struct<") else set()


def _has_bytes(cells: "pyarrow.Array") -> list[bool]:
    return (_children(cells)["bytes"] if _fields(cells.type) else cells).is_valid().to_pylist()


def _children(cells: "pyarrow.StructArray") -> dict[str, "pyarrow.Array"]:
    """Return the fields of a column of structs, null where the struct is null."""
    return dict(zip((cells.type.field(place).name for place in range(cells.type.num_fields)), cells.flatten(), strict=True))
