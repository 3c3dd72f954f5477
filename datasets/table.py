"""Table: images that a table lists, or holds. CSV, TSV, JSON lines, Parquet, Hugging Face's own layouts, WebDataset shards.

    python train.py --config-file ... --root my_data DATASET.NAME Table

The table gives for each image its place (a path or, in Parquet, its bytes), its class (a name or a number) and perhaps its
split. Files and columns are recognized by name, see `dassl.data.table_files` and `COLUMNS`, or named in the config.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dassl.data.class_lists import read_classnames
from dassl.data.collected import Item, Setting, collected
from dassl.data.dataset import DATASETS, Dataset, named_file
from dassl.data.draws import draw_of, shares
from dassl.data.places import Part
from dassl.data.shards import SHARD
from dassl.data.table_files import Files, read_table, split_word, table_files
from dassl.data.tables import Table, Value
from dassl.utils.errors import ConfigError, DataError, did_you_mean, listed
from dassl.utils.paths import exists, is_folder
from dassl.utils.registry import AtLeast, AtMost, Given
from dassl.utils.text import printable

COLUMNS = {
    "IMAGE": ("image", "img", "file_name", "filename", "file", "path", "image_path", "filepath", "file_path", "jpg", "png"),
    "LABEL": ("label", "labels", "class", "class_name", "classname", "category", "target", "fine_label", "cls"),
    "SPLIT": ("split", "subset", "partition")}  # recognized names; the first one that a table has is used

CLASSNAMES = "classnames.txt"  # the class names beside WebDataset shards, as in CLIP benchmark's


@dataclass(frozen=True)
class Columns:
    """The names of the columns; "" means a recognized one. `node` is the name of the keys' node in errors."""

    image: str = ""
    label: str = ""
    split: str = ""
    node: str = "TABLE"


@DATASETS.register("Table", also_known_as=("WebDataset",))
def table(
    root: Path, *, file: str = "", image: str = "", label: str = "", split: str = "", classes: str = "",
    val: Annotated[float, AtLeast(-1.0), AtMost(1.0)] = -1.0, test: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 0.3,
    split_seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0, template: str = "a photo of a {}.",
    cache: Annotated[Path | None, Given()] = None,
) -> Dataset:
    """Return the data set of the table or tables in `root`.

    `file` names them if they are not recognized (`animals.csv`, `en/*.parquet`); `image`, `label` and `split` name columns.
    `classes` is a file of class names, see `dassl.data.class_lists`. If there is no split, the shares `val` (-1 is 0.2) and
    `test` of each class are drawn with `split_seed`, as for ImageFolder.
    """
    parts = shares("DATASET.TABLE", val, test)
    if not is_folder(root):
        raise DataError(f"cannot read the folder {root}: it is not a folder; --root (DATASET.ROOT) must name that of the table")
    names = read_classnames(named_file(root, "TABLE.CLASSES", classes)) if classes else {}
    setting = Setting("Table", root, draw_of(root, parts, split_seed, cache, "table_split"), template)
    return from_tables(setting, table_files(root, file), Columns(image, label, split), names)


def from_tables(setting: Setting, files: Files, columns: Columns, names: dict[str, str]) -> Dataset:
    """Return the data set of tables by split. Without `names`, the class names that the tables hold are used."""
    tables = [(split, read_table(file)) for split, own in files.items() for file in own]
    own, names = _own_classes([table for _, table in tables], columns), names or _beside(setting.root, files)
    if not names and all(_column(table, "LABEL", columns) is None for _, table in tables):
        raise DataError(f"{tables[0][1].file} has no column of labels ({', '.join(COLUMNS['LABEL'])}) among "
                        f"{_shown(tables[0][1].columns)}; name it in DATASET.{columns.node}.LABEL, or name a file of all class "
                        "names in CLASSES, and people label them")
    items = [item for split, table in tables for item in _items(setting.root, split, table, columns, own)]
    return collected(setting, items, names or {name: name for name in own})


def _beside(root: Path, files: Files) -> dict[str, str]:
    """Return the class names beside shards, which cannot hold them."""
    has_shards = any(file.suffix == SHARD for own in files.values() for file in own)
    return read_classnames(root / CLASSNAMES) if has_shards and exists(root / CLASSNAMES) else {}


def _own_classes(tables: Sequence[Table], columns: Columns) -> tuple[str, ...]:
    found = {table.classes.get(_column(table, "LABEL", columns) or "", ()) for table in tables} - {()}
    if len(found) > 1:
        raise DataError(f"{tables[0].file.parent}: the tables hold different class names; name a file of class names in "
                        f"DATASET.{columns.node}.CLASSES")
    return found.pop() if found else ()


def _items(root: Path, split: str, table: Table, columns: Columns, own: Sequence[str]) -> Iterator[Item]:
    image, label, column = (_column(table, role, columns) for role in COLUMNS)
    if image is None:
        raise DataError(f"{table.file} has no column of images ({', '.join(COLUMNS['IMAGE'])}) among {_shown(table.columns)}; "
                        f"name it in DATASET.{columns.node}.IMAGE")
    places = _located(root, table.file, table.places(image))
    values: Sequence[Value] = table.values(label) if label else [None] * len(places)
    splits = [split] * len(places) if column is None or split else [
        _split(value, table.file, column) for value in table.values(column)]
    for own_split, place, value in zip(splits, places, values, strict=True):
        yield Item(own_split, place, own[value] if own and isinstance(value, int) and 0 <= value < len(own) else value)


def _column(table: Table, role: str, columns: Columns) -> str | None:
    """Return the column of a role; None if no name is recognized. Raises an error if a named column is missing."""
    wanted = getattr(columns, role.lower())
    if wanted:
        if wanted not in table.columns:
            raise ConfigError(f"DATASET.{columns.node}.{role} is {wanted!r}, which is not a column of {table.file}; "
                              f"{did_you_mean(wanted, table.columns)}")
        return wanted
    declared = {"IMAGE": table.images, "LABEL": tuple(table.classes)}.get(role, ())
    known = [name for word in COLUMNS[role] for name in table.columns if name.lower() == word]
    if best := [name for name in known if name in declared] or list(declared) or known:
        if len(declared) > 1 and best[0] not in known:
            raise DataError(f"{table.file} has the columns {_shown(declared)}; name one in DATASET.{columns.node}.{role}")
        return best[0]
    return None


def _located(root: Path, file: Path, places: Sequence[str | Part]) -> list[str | Part]:
    """Return the places with paths relative to the root. In a table they are relative to its folder, or else to the root."""
    first = next((place for place in places if isinstance(place, str)), "")
    base = next((base for base in (file.parent, root) if exists(base / first)), file.parent)
    found = [place if isinstance(place, Part) else _relative(root, base, place) for place in places]
    if outside := [place for place, own in zip(places, found, strict=True) if own is None]:
        raise DataError(listed(f"{file} names {len(outside)} images that are not files below {root}; the folder that holds "
                               "them all must be the root (--root)", list(map(printable, outside))))
    return found


def _relative(root: Path, base: Path, text: str) -> str | None:
    """Return a path in a table as one relative to the root; None if it leads out of the root, or is a web address."""
    path = text if "\\" not in text or exists(base / text) else text.replace("\\", "/")
    path = os.path.relpath(os.path.join(base, path), root)
    return None if "://" in text or path.split("/")[0] == ".." else path


def _split(value: Value, file: Path, column: str) -> str:
    if value is None or (split := split_word(str(value))):
        return "" if value is None else split
    raise DataError(f"{file}: column {column!r} holds {value!r}, but must hold train, val or test")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")

