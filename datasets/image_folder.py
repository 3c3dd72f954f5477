"""ImageFolder: anybody's images, by one flag.

    python train.py --config-file ... --root my_photos DATASET.NAME ImageFolder

`my_photos` holds one of these:

- a folder a class, with images in it (the folders' names are the class names);
- the folders `train` and `test`, perhaps `val` (or `valid`), each with a folder a class: the split is then as given;
- images in any folders, with `CLASSES`, a file of class names, and perhaps `LABELS`, a CSV file with the columns path and
  label. Images without a label are pool images that somebody has to label.

A random split is drawn once and stored in `my_photos`, in a file whose name holds its parameters. How many files are left
out, because they lie too deep or have the suffix of no image that is read, stands in the log.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dassl.data.dataset import DATASETS, SPLITS, UNLABELED, Dataset, Datum
from dassl.data.labels import read_classnames, read_labels
from dassl.data.splits import (
    IMAGE_SUFFIXES,
    Row,
    Splits,
    cut_classes,
    folder_rows,
    image_files,
    read_split,
    subfolders,
    write_split,
)
from dassl.utils.errors import ConfigError, DataError, did_you_mean
from dassl.utils.files import lock
from dassl.utils.registry import AtLeast

Share = Annotated[float, AtLeast(0.0)]

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # folders' names, in lower case
NOTES = {".txt", ".yaml", ".yml", ".csv", ".json"}  # suffixes of files that stand beside images

logger = logging.getLogger(__name__)


@DATASETS.register("ImageFolder")
def image_folder(
    root: Path, *, classes: str = "", labels: str = "", split: str = "", val: Share = 0.2, test: Share = 0.3,
    split_seed: int = 0, template: str = "a photo of a {}.",
) -> Dataset:
    """Return the data set of the images in `root`.

    `classes`, `labels` and `split` are files, looked up in `root` and then in the working folder: class names (text, a YAML
    list, or a YAML mapping of folders to names), labels (CSV), and a split as in CoOp's JSON files, with paths relative to
    `root`, which then alone says what the data set holds. Without `split`, the shares `val` and `test` of the labeled
    images of each class are drawn with `split_seed`.
    """
    if val + test >= 1:
        raise ConfigError(f"DATASET.IMAGEFOLDER: VAL {val} and TEST {test} leave nothing to train on")
    names = read_classnames(_file(root, classes)) if classes else {}
    folders = subfolders(root)
    drawn = _Draw(root / f"split_val{val:g}_test{test:g}_seed{split_seed}.json", (val, test), split_seed)
    if split:
        splits, classnames = read_split(_file(root, split), "", tuple(names.values()))
    elif labels or (names and not names.keys() & set(folders) and not _is_split(folders)):
        splits, classnames = _from_table(root, names, labels, drawn)
    elif _is_split(folders):
        splits, classnames = _from_given_folders(root, names)
    elif not names and len(_parts(folders)) > 1:
        raise DataError(f"{root} holds {', '.join(folders[:9])}: for a given split, nothing but train, test and perhaps val, "
                        "each with a folder for each class; for a random split, a folder for each class right below")
    else:
        splits, classnames = _from_class_folders(root, names, drawn)
    if not split:
        _say_left_out(os.path.abspath(root), splits)
    return Dataset("ImageFolder", root, **splits, classnames=classnames, template=template)


@dataclass(frozen=True)
class _Draw:
    """Where a random split is stored, and what it is drawn with: the shares of val and test, and the seed."""

    file: Path
    shares: tuple[float, float]
    seed: int

    def splits(self, rows: Sequence[Row], classnames: Sequence[str], *, later_is_train: bool) -> Splits:
        """Return the stored split, after drawing and storing it if there is none.

        Raises DataError if it holds one of the rows with another label, or lacks one, unless `later_is_train`.
        """
        if not rows:
            return dict.fromkeys(SPLITS, ())
        with lock(self.file.with_name(f".{self.file.stem}.lock"), wait=True):
            if not self.file.exists():
                val, test, train = cut_classes(rows, self.shares, "ImageFolder", self.seed)
                write_split(self.file, {"train": train, "val": val, "test": test})
        splits, _ = read_split(self.file, "", classnames)
        stored = {datum.path: datum.label for items in splits.values() for datum in items}
        changed = [path for path, label, _ in rows if stored.get(path, label if later_is_train else None) != label]
        if changed:
            raise DataError(f"{self.file} does not fit the images: {len(changed)} are not in it or have another label now, "
                            f"first {changed[0]!r}; remove the file to draw a new split")
        return splits


def _from_table(root: Path, names: Mapping[str, str], labels: str, drawn: _Draw) -> tuple[Splits, tuple[str, ...]]:
    """Images anywhere below `root`. Those without a label, or labeled after the split was drawn, are train images."""
    classnames = _required(names, "LABELS goes with CLASSES, a file of class names")
    paths = _all_images(root)
    label_of = read_labels(_file(root, labels), paths, classnames) if labels else {}
    rows = [(path, label, classnames[label]) for path, label in sorted(label_of.items())]
    splits = drawn.splits(rows, classnames, later_is_train=True)
    placed = {datum.path for items in splits.values() for datum in items}
    splits["train"] += tuple(Datum(path, label_of.get(path, UNLABELED)) for path in paths if path not in placed)
    return splits, classnames


def _from_given_folders(root: Path, names: Mapping[str, str]) -> tuple[Splits, tuple[str, ...]]:
    """The folders train, test and perhaps val, each with a folder a class; a class may be missing in some of them."""
    parts = _parts(subfolders(root))
    names = names or {folder: folder for folder in sorted({name for part in parts for name in subfolders(root / part)})}
    splits: Splits = dict.fromkeys(SPLITS, ())
    for part, split in parts.items():
        splits[split] = tuple(Datum(f"{part}/{path}", label) for path, label, _ in _class_rows(root / part, names))
    return splits, _required(names, "train and test must hold a folder for each class")


def _from_class_folders(root: Path, names: Mapping[str, str], drawn: _Draw) -> tuple[Splits, tuple[str, ...]]:
    names = names or {folder: folder for folder in subfolders(root)}
    classnames = _required(names, f"make a folder for each class in {root}, or name a file of class names in "
                                  "DATASET.IMAGEFOLDER.CLASSES")
    return drawn.splits(_class_rows(root, names), classnames, later_is_train=False), classnames


def _class_rows(folder: Path, names: Mapping[str, str]) -> list[Row]:
    """Return the rows of a folder with a folder a class, labels in the order of `names`."""
    if unknown := sorted(set(subfolders(folder)) - names.keys()):
        raise DataError(f"{folder / unknown[0]} is not in the file of class names; {did_you_mean(unknown[0], names)}")
    labels = {name: label for label, name in enumerate(names)}
    return [(path, labels[path.split("/")[0]], name) for path, _, name in folder_rows(folder, names=names)]


def _say_left_out(root: str, splits: Splits) -> None:
    """Log how many files below the root are none of the images, except notes and what is hidden."""
    used = {os.path.join(root, datum.path) for items in splits.values() for datum in items}
    left: Counter[str] = Counter()
    for folder, inner, files in os.walk(root):
        inner[:] = [name for name in inner if not name.startswith(".")]
        left.update(os.path.splitext(file)[1].lower() for file in files
                    if not file.startswith(".") and os.path.join(folder, file) not in used)
    if n_deep := sum(left[suffix] for suffix in IMAGE_SUFFIXES):
        logger.warning("%s: %d images are left out, as they do not lie right in the folder of a class", root, n_deep)
    if others := {suffix: count for suffix, count in sorted(left.items()) if suffix not in IMAGE_SUFFIXES | NOTES}:
        logger.warning("%s: %d files are left out, as their suffix is that of no image that is read: %s", root,
                       sum(others.values()), ", ".join(f"{count} {suffix or 'none'}" for suffix, count in others.items()))


def _file(root: Path, name: str) -> Path:
    """Return the path of a file named in the config; raises ConfigError if it is in neither place."""
    for path in (root / name, Path(name).expanduser()):
        if path.is_file():
            return path
    raise ConfigError(f"DATASET.IMAGEFOLDER names the file {name!r}, which is neither in {root} nor in the working folder")


def _required(names: Mapping[str, str], hint: str) -> tuple[str, ...]:
    if not names:
        raise DataError(f"ImageFolder knows no classes; {hint}")
    return tuple(names.values())


def _parts(folders: Sequence[str]) -> dict[str, str]:
    """Return the splits that folders are named after, by folder; none without one for train."""
    parts = {folder: PARTS[folder.lower()] for folder in folders if folder.lower() in PARTS}
    return parts if "train" in parts.values() else {}


def _is_split(folders: Sequence[str]) -> bool:
    """Tell whether folders are those of a given split, and nothing else."""
    parts = _parts(folders)
    return len(set(parts.values())) == len(folders) and {"train", "test"} <= set(parts.values())


def _all_images(root: Path) -> list[str]:
    """Return the images in all folders below `root`, as paths relative to it, sorted, without hidden folders."""
    found = image_files(root)
    for folder in subfolders(root):
        found += [f"{folder}/{path}" for path in _all_images(root / folder)]
    return sorted(found)
