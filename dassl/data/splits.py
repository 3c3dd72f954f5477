"""Split files, `{"train" | "val" | "test": [[path, label, class name], ...]}` (CoOp's split_zhou_*.json), and drawn splits."""

import hashlib
import os
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dassl.data.dataset import SPLITS, Datum
from dassl.data.folders import image_files, subfolders
from dassl.utils.errors import DataError
from dassl.utils.files import lock, read_json, write_json
from dassl.utils.paths import exists
from dassl.utils.seeding import rng_for

Row = tuple[str, int, str]  # path relative to the image folder, label, class name
Rows = dict[str, list[Row]]
Splits = dict[str, tuple[Datum, ...]]
SplitSource = Literal["published", "drawn"]

VAL = 0.2  # share of a person's own images that a drawn split holds out as val by default


def read_split(file: Path, image_dir: str, classnames: Sequence[str] = ()) -> tuple[Splits, tuple[str, ...]]:
    """Return the three splits and the class names of a split file.

    Paths in the file are relative to `image_dir`, which is itself relative to the data root. `classnames`, if known
    beforehand, may include classes without an image. Raises DataError if the file does not have this form, a label has two
    names, or a name differs from the known one.
    """
    names = dict(enumerate(classnames))
    rows = read_rows(file, names, n_classes=len(classnames))
    n_labels = max(names, default=-1) + 1
    if missing := list(islice((label for label in range(n_labels) if label not in names), 10)):
        raise DataError(f"{file}: labels {missing} have no item and so no name; list the class names in the data set")
    splits = {split: tuple(Datum(str(PurePosixPath(image_dir) / path), label) for path, label, _ in rows[split])
              for split in SPLITS}
    return splits, tuple(names[label] for label in sorted(names))


def read_rows(file: Path, names: dict[int, str], *, n_classes: int = 0) -> Rows:
    """Return the rows of a split file, with `/` in their paths and no `.`; their class names are added to `names` by label.

    Raises DataError if the file does not have this form, a label has two names, a path leads out of the image folder, or a
    label is beyond `n_classes`, unless that is 0.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not set(SPLITS) <= set(content):
        raise DataError(f"{file}: must hold the keys train, val and test")
    if odd := [split for split in SPLITS if not isinstance(content[split], list)]:
        raise DataError(f"{file}: {odd[0]} must be a list of [path, label, class name]")
    rows = {split: [_row(item, file, names) for item in content[split]] for split in SPLITS}
    if beyond := [row for own in rows.values() for row in own if n_classes and row[1] >= n_classes]:
        raise DataError(f"{file}: label {beyond[0][1]} ({beyond[0][2]!r}) is beyond the {n_classes} classes")
    return rows


def write_split(file: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    """Write a split file from (path relative to the image folder, label, class name) rows."""
    write_json(file, {split: [list(row) for row in splits[split]] for split in SPLITS})


def drawn_file(
    root: Path, shares: tuple[float, float], seed: int, cache: Path | None, prefix: str = "split"
) -> Path:
    """Return the file of a random split of a person's own images.

    It is in `root` or, if there is none and `root` cannot be written, in `cache`. Its name begins with `prefix`.
    """
    name = f"{prefix}_val{shares[0]:g}_test{shares[1]:g}_seed{seed}.json"
    if cache is None or exists(root / name):
        return root / name
    elsewhere = cache / f"{hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]}_{name}"
    return elsewhere if exists(elsewhere) or not os.access(root, os.W_OK) else root / name


def field_split(
    folder: Path, title: str, image_dir: str, source: SplitSource, draw: Callable[[Path], Rows]
) -> tuple[Splits, tuple[str, ...]]:
    """Return the splits and class names of one of the field's data sets, whose `folder` lies directly below the data root.

    "published" reads `split_zhou_<title>.json` and raises DataError if it is missing. "drawn" reads
    `split_drawn_<title>.json`, which is first written from `draw(folder)` if it is missing: by the rule of CoOp's
    authors, but another draw, hence the other name.
    """
    file = folder / f"split_{'zhou' if source == 'published' else source}_{title}.json"
    if not exists(file):
        if source == "published":
            raise DataError(f"{file} is missing; it says which images are train, val and test. DATASETS.md says where to "
                            "get it. SPLIT: drawn, in the data set's own node, draws another split by the same rule, whose "
                            "results cannot be compared with published ones")
        with lock(folder / f".{file.stem}.lock", wait=True):
            if not exists(file):
                write_split(file, draw(folder))
    return read_split(file, f"{folder.name}/{image_dir}" if image_dir else folder.name)


def three_way(rows: Sequence[Row], title: str) -> Rows:
    """Return 50 % train, 20 % val, 30 % test of each class at random: CoOp's rule for sets without an official split."""
    return dict(zip(SPLITS, cut_classes(rows, (0.5, 0.2), title), strict=True))


def hold_out(rows: Sequence[Row], test: Sequence[Row], title: str) -> Rows:
    """Return 80 % train and 20 % val of each class at random: CoOp's rule for sets with an official test split."""
    val, train = cut_classes(rows, (0.2,), title)
    return {"train": train, "val": val, "test": list(test)}


def cut_classes(rows: Sequence[Row], shares: Sequence[float], title: str, seed: int = 0) -> list[list[Row]]:
    """Return `len(shares) + 1` random parts: of each class's n rows each part gets `round(n * share)`, and the last the rest.

    Depends on the set of rows, not on their order.
    """
    classes: dict[int, list[Row]] = {}
    for row in sorted(rows):
        classes.setdefault(row[1], []).append(row)
    parts: list[list[Row]] = [[] for _ in (*shares, 1)]
    for label, members in sorted(classes.items()):
        order = rng_for(seed, "split", title, label).permutation(len(members)).tolist()
        start = 0
        for part, share in zip(parts, (*shares, 1), strict=True):
            stop = min(start + round(len(members) * share), len(members))
            part += [members[index] for index in order[start:stop]]
            start = stop
    return parts


def folder_rows(image_dir: Path, *, skip: Collection[str] = (), names: Mapping[str, str] | None = None) -> list[Row]:
    """Return the rows of a folder with one subfolder per class, labels in the order of the subfolders' names.

    `names` renames folders to class names. Raises DataError if the folder is missing.
    """
    classes = [name for name in subfolders(image_dir) if name not in skip]
    return [(f"{folder}/{file}", label, (names or {}).get(folder, folder))
            for label, folder in enumerate(classes) for file in image_files(image_dir / folder)]


def labels_of(names: Sequence[str], classes: Sequence[str], file: Path) -> list[int]:
    """Return the index of each name in the list of classes; raises DataError, naming `file`, for an unknown one."""
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = sorted(set(names) - label_of.keys())
    if unknown:
        raise DataError(f"{file}: {len(unknown)} class names are not in the list of classes, first {unknown[0]!r}")
    return [label_of[name] for name in names]


def datums(image_dir: str, files: Sequence[str], labels: Sequence[int]) -> tuple[Datum, ...]:
    """Return the items of files in `image_dir`, which is relative to the data root."""
    return tuple(Datum(f"{image_dir}/{file}", label) for file, label in zip(files, labels, strict=True))


def _row(item: Any, file: Path, names: dict[int, str]) -> Row:
    match item:
        case [str(path), int(label), str(name)] if label >= 0 and not isinstance(label, bool):
            pass
        case _:
            raise DataError(f"{file}: expected [path, label, class name], not {reprlib.repr(item)}")
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{file}: the path {path!r} leads out of the image folder")
    if names.setdefault(label, name) != name:
        raise DataError(f"{file}: label {label} is both {names[label]!r} and {name!r}")
    return str(relative), label, name
