"""Split files, `{"train" | "val" | "test": [[path, label, class name], ...]}` (CoOp's split_zhou_*.json), and drawn splits."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from dassl.data.dataset import SPLITS, Datum
from dassl.utils.errors import DataError
from dassl.utils.files import lock, read_json, write_json
from dassl.utils.seeding import rng_for

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}

Row = tuple[str, int, str]  # path relative to the image folder, label, class name
Rows = dict[str, list[Row]]
Splits = dict[str, tuple[Datum, ...]]
SplitSource = Literal["published", "drawn"]


def read_split(file: Path, image_dir: str, classnames: Sequence[str] = ()) -> tuple[Splits, tuple[str, ...]]:
    """Return the three splits and the class names of a split file.

    Paths in the file are relative to `image_dir`, which is itself relative to the data root. `classnames`, where they are
    known beforehand, may name classes without an image. Raises DataError if the file is not of this form, one label has two
    names, or a name is not the one known.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not set(SPLITS) <= set(content):
        raise DataError(f"{file}: must hold the keys train, val and test")
    names = dict(enumerate(classnames))
    splits = {split: tuple(_datum(item, file, image_dir, names) for item in content[split]) for split in SPLITS}
    missing = sorted(set(range(max(names, default=-1) + 1)) - names.keys())
    if missing:
        raise DataError(f"{file}: labels {missing[:10]} have no item and so no name; list the class names in the data set")
    if classnames and len(names) > len(classnames):
        raise DataError(f"{file}: label {max(names)} ({names[max(names)]!r}) is beyond the {len(classnames)} classes")
    return splits, tuple(names[label] for label in sorted(names))


def write_split(file: Path, splits: Mapping[str, Sequence[Row]]) -> None:
    """Write a split file from (path relative to the image folder, label, class name) rows."""
    write_json(file, {split: [list(row) for row in splits[split]] for split in SPLITS})


def field_split(
    folder: Path, title: str, image_dir: str, source: SplitSource, draw: Callable[[Path], Rows]
) -> tuple[Splits, tuple[str, ...]]:
    """Return the splits and class names of a data set of the field, whose `folder` lies right below the data root.

    "published" reads `split_zhou_<title>.json` and raises DataError if it is missing. "drawn" reads
    `split_drawn_<title>.json`, which is first written from `draw(folder)` if it is not there: the rule of CoOp's authors,
    but another draw, so another name.
    """
    file = folder / f"split_{'zhou' if source == 'published' else source}_{title}.json"
    if not file.exists():
        if source == "published":
            raise DataError(f"{file} is missing; it says which images are train, val and test. DATASETS.md says where it is "
                            "to be had. SPLIT: drawn, in the data set's own node, draws another split by the same rule, whose "
                            "results cannot be compared with published ones")
        with lock(folder / f".{file.stem}.lock", wait=True):
            if not file.exists():
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
    """Return `len(shares) + 1` random parts: of the n rows of each class `round(n * share)` each, the last gets the rest.

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
    """Return the rows of a folder with one folder a class, labels in the order of the folders' names.

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


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden ones; raises DataError if it is missing."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def image_files(folder: Path) -> list[str]:
    """Return the names of the image files in a folder, sorted, known by their suffix; raises DataError if it is missing."""
    return sorted(entry.name for entry in _entries(folder)
                  if entry.is_file() and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error


def _datum(item: Any, file: Path, image_dir: str, names: dict[int, str]) -> Datum:
    match item:
        case [str(path), int(label), str(name)] if label >= 0:
            pass
        case _:
            raise DataError(f"{file}: expected [path, label, class name], not {item!r}")
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts:
        raise DataError(f"{file}: the path {path!r} leads out of the image folder")
    if names.setdefault(label, name) != name:
        raise DataError(f"{file}: label {label} is both {names[label]!r} and {name!r}")
    return Datum(str(PurePosixPath(image_dir) / relative), label)
