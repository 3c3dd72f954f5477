"""ImageFolder: your own images, with one flag.

    python train.py --config-file ... --root my_photos DATASET.NAME ImageFolder

`my_photos` holds one of these:

- one folder per class, with images in it (the folders' names are the class names);
- the folders `train` and `test`, perhaps `val` (or `valid`), each with one folder per class, which give the split;
  for other things that a person may mean by such folders see `datasets.half_sorted`;
- images in any folders, with `CLASSES`, a file of class names, and perhaps `LABELS`, a CSV file with the columns path and
  label. Images without a label are pool images that somebody has to label.

A random split is drawn once and stored in `my_photos`, in a file whose name holds its parameters, or in `CACHE_DIR` if the
folder cannot be written. The log says what is left out, see `dassl.data.folders` and `datasets.left_out`.
"""

import difflib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from dassl.data.class_lists import read_classnames
from dassl.data.dataset import DATASETS, SPLITS, UNLABELED, Dataset, Datum, named_file
from dassl.data.draws import Draw, draw_of, shares
from dassl.data.folders import IMAGE, Tree
from dassl.data.known import Names, class_key
from dassl.data.labels import read_labels
from dassl.data.splits import Row, Splits, read_split
from dassl.utils.errors import DataError, did_you_mean
from dassl.utils.paths import is_folder
from dassl.utils.registry import AtLeast, AtMost, Before, Given

from .half_sorted import classes_of_parts, pool, tested, unsorted_folders
from .left_out import say_left_out  # relative: another package may be called datasets, see dassl.utils.imports

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}  # folders' names, in lower case

logger = logging.getLogger(__name__)


@DATASETS.register("ImageFolder")
def image_folder(
    root: Path, *, classes: str = "", labels: str = "", split: str = "",
    val: Annotated[float, AtLeast(-1.0), AtMost(1.0)] = -1.0, test: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 0.3,
    split_seed: Annotated[int, AtLeast(0), AtMost(2**32 - 1)] = 0, template: str = "a photo of a {}.",
    copies: Annotated[Literal["auto", "ask", "skip"], Before("ask")] = "auto", cache: Annotated[Path | None, Given()] = None,
) -> Dataset:
    """Return the data set of the images in `root`.

    `classes`, `labels` and `split` are files, looked up in `root` and then in the working folder: class names (see
    `dassl.data.class_lists`), labels (CSV), and a split as in CoOp's JSON files, with paths relative to `root`, which then
    alone defines the data set. Without `split`, the shares `val` (-1 is 0.2; where people label, 0) and `test` of the labeled
    images of each class are drawn with `split_seed`. `copies` is for oracles that ask people, see `active.oracles.files`.
    """
    parts = shares("DATASET.IMAGEFOLDER", val, test)
    if not is_folder(root):
        raise DataError(f"cannot read the folder {root}: it is not a folder; --root (DATASET.ROOT) must name the image folder")
    names = read_classnames(named_file(root, "IMAGEFOLDER.CLASSES", classes)) if classes else {}
    if split:
        splits, classnames = read_split(named_file(root, "IMAGEFOLDER.SPLIT", split), "", tuple(names.values()))
    else:
        tree = Tree(root)
        draw = draw_of(root, parts, split_seed, cache)
        splits, classnames = _listed(tree, names, named_file(root, "IMAGEFOLDER.LABELS", labels) if labels else None, draw)
        say_left_out(tree, {datum.path for items in splits.values() for datum in items})
    _check_classes(root, classnames)
    return Dataset("ImageFolder", root, **splits, classnames=classnames, template=template)


def _listed(tree: Tree, names: Mapping[str, str], labels: Path | None, draw: Draw) -> tuple[Splits, tuple[str, ...]]:
    """Return the splits and class names of a folder, according to its layout."""
    inbox = unsorted_folders(tree, "", names or draw.names())
    folders = [folder for folder in tree.folders() if folder not in inbox]
    if labels or (names and not _is_split(tree, folders) and not _are_classes(tree, names)):
        return _from_table(tree, names, labels, draw)
    if _is_split(tree, folders):
        return _from_given_folders(tree, _parts(folders), names)
    if not names and len(_parts(folders)) == len(folders) == 1 and tree.folders(f"{folders[0]}/"):
        return _from_class_folders(tree, names, draw, f"{folders[0]}/")
    if not names and len(_parts(folders)) > 1:
        raise DataError(f"{tree.root} holds {', '.join(folders[:9])}: for a given split, nothing but train, test and perhaps "
                        "val, each with a folder for each class; for a random split, a folder for each class right below")
    return _from_class_folders(tree, names, draw)


def _from_table(
    tree: Tree, names: Mapping[str, str], labels: Path | None, draw: Draw
) -> tuple[Splits, tuple[str, ...]]:
    """Images anywhere below the root. Those without a label, or labeled after the split was drawn, are train images."""
    classnames = _required(names, "LABELS goes with CLASSES, a file of class names")
    paths = tree.paths(IMAGE)
    label_of = read_labels(labels, paths, classnames) if labels else {}
    stored = draw.rows([(path, label, classnames[label]) for path, label in sorted(label_of.items())])
    if gone := [path for own in stored.values() for path, _, _ in own if path not in label_of]:
        logger.warning("%s: %d images of %s have no label any more and count as unlabeled again, first %r", labels, len(gone),
                       draw.file, gone[0])
    draw.check_same([path for own in stored.values() for path, _, name in own
                     if path in label_of and classnames[label_of[path]] != name])
    splits: Splits = {split: tuple(Datum(path, label_of[path]) for path, _, _ in own if path in label_of)
                      for split, own in stored.items()}
    placed = {datum.path for items in splits.values() for datum in items}
    splits["train"] += tuple(Datum(path, label_of.get(path, UNLABELED)) for path in paths if path not in placed)
    return splits, classnames


def _from_given_folders(tree: Tree, parts: Mapping[str, str], names: Mapping[str, str]) -> tuple[Splits, tuple[str, ...]]:
    """Read the folders train, test and perhaps val, each with one folder per class; some may lack a class."""
    train = next(part for part, split in parts.items() if split == "train")
    others = [folder for part in parts if part != train for folder in tree.folders(f"{part}/")]
    inbox = unsorted_folders(tree, f"{train}/", names or others)
    names = names or classes_of_parts(tree, [train, *(part for part in parts if part != train)], inbox)
    splits: Splits = dict.fromkeys(SPLITS, ())
    for part, split in tested(tree, parts).items():
        rows = _class_rows(tree, f"{part}/", names, inbox if part == train else ())
        splits[split] = tuple(Datum(path, label) for path, label, _ in rows)
    splits["train"] += pool(tree, {"": unsorted_folders(tree, "", names), f"{train}/": inbox})
    return splits, _required(names, "train and test must hold a folder for each class")


def _from_class_folders(
    tree: Tree, names: Mapping[str, str], draw: Draw, part: str = ""
) -> tuple[Splits, tuple[str, ...]]:
    """Read the class folders in `part`, which is the root or ends with a slash."""
    inbox = unsorted_folders(tree, part, names or draw.names())
    names = names or {folder: folder for folder in tree.folders(part) if folder not in inbox}
    classnames = _required(names, f"make a folder for each class in {tree.root}, or name a file of class names in "
                                  "DATASET.IMAGEFOLDER.CLASSES")
    rows = _class_rows(tree, part, names, inbox)
    stored = draw.rows(rows)
    name_of = {path: name for own in stored.values() for path, _, name in own}
    now = {name for _, _, name in rows}
    now |= {name for folder, name in names.items() if name not in now and any(  # whose images lie deeper
        own.startswith(f"{part}{folder}/") and tree.images(own) for own in tree.kinds)}
    _check_same_classes(draw.file, set(name_of.values()), now, classnames)
    draw.check_same([path for path, _, name in rows if name_of.get(path) != name])
    label_of = {name: label for label, name in enumerate(classnames)}
    splits = {split: tuple(Datum(path, label_of[name]) for path, _, name in own) for split, own in stored.items()}
    return splits | {"train": splits["train"] + pool(tree, {part: inbox})}, classnames


def _class_rows(tree: Tree, part: str, names: Mapping[str, str], inbox: Collection[str]) -> list[Row]:
    """Return the rows of a folder with one folder per class, labels in the order of `names`, whose keys the folders match.

    Folders in `inbox` are not classes.
    """
    known, labels = Names(names, class_key), {name: label for label, name in enumerate(names)}
    rows, folder_of = [], {}
    for folder in [own for own in tree.folders(part) if own not in inbox]:
        meant = known.meant(folder)
        if len(meant) != 1:
            raise DataError(f"{tree.root / part / folder} is not in the file of class names; {did_you_mean(folder, names)}")
        if (other := folder_of.setdefault(meant[0], folder)) != folder:
            raise DataError(f"{tree.root / part}: the folders {other!r} and {folder!r} are both the class {meant[0]!r}")
        rows += [(f"{part}{folder}/{file}", labels[meant[0]], names[meant[0]]) for file in tree.images(f"{part}{folder}/")]
    return rows


def _check_same_classes(file: Path, stored: set[str], now: set[str], classnames: Sequence[str]) -> None:
    """Raise DataError if class folders were added or removed since a split was drawn; empty ones do not count."""
    new, gone = [name for name in classnames if stored and name in now - stored], sorted(stored - set(classnames))
    if len(new) == len(gone) == 1:
        raise DataError(f"{file} holds images of {gone[0]!r}, which is no class now, and none of {new[0]!r}: if the folder was "
                        "renamed, give it its old name; or remove the file to draw a new split for new runs")
    if new:
        raise DataError(f"{file} was drawn before there were images of {', '.join(map(repr, new[:9]))}; move what is new out "
                        "of the folder to go on with the runs so far, or remove the file to draw a new split for new runs")
    if gone:
        raise DataError(f"{file} holds images of {', '.join(map(repr, gone[:9]))}, which {'is' if len(gone) == 1 else 'are'} "
                        "no class now; bring the folder back, or remove the file to draw a new split for new runs")


def _check_classes(root: Path, classnames: Sequence[str]) -> None:
    """Raise DataError for names that a reader cannot tell apart, and for a single class."""
    if blank := [name for name in classnames if name != name.strip() or not name]:
        raise DataError(f"{root}: the class name {blank[0]!r} has blanks at its ends; rename its folder, or map it to a name "
                        "in DATASET.IMAGEFOLDER.CLASSES")
    if len(classnames) == 1:
        raise DataError(f"{root}: {classnames[0]!r} is the only class, so that there is nothing to tell apart; learning needs "
                        "two or more. Images that are not sorted yet need a file of all class names in "
                        "DATASET.IMAGEFOLDER.CLASSES")


def _are_classes(tree: Tree, names: Mapping[str, str]) -> bool:
    """Tell whether folders are those of the classes in a list of names; raises DataError if they only look like it.

    In that case labels would be lost, and people would be asked about images that are already sorted.
    """
    folders = [folder for folder in tree.folders() if tree.images(f"{folder}/")]
    known = Names(names, class_key)
    if any(known.meant(folder) for folder in tree.folders()):
        return True
    texts = {class_key(text): text for pair in names.items() for text in pair}
    near = {folder: found[0] for folder in folders
            if (found := difflib.get_close_matches(class_key(folder), texts, n=1, cutoff=0.8))}
    all_sorted = len(folders) == len(names) and len(folders) == len(tree.folders()) and not tree.images()
    if near or (all_sorted and all(re.search(r"[^\W\d_]", folder) for folder in folders)):
        folder = next(iter(near), folders[0])
        meant = f"did you mean {texts[near[folder]]!r}? " if near else ""
        raise DataError(f"{tree.root / folder} holds images, but no folder is one of the class names; {meant}Give the folders "
                        "these names, or write a mapping of folders to names in the file of class names; if the folders say "
                        "nothing of classes, name a file with the line path,label in DATASET.IMAGEFOLDER.LABELS")
    return False


def _required(names: Mapping[str, str], hint: str) -> tuple[str, ...]:
    if not names:
        raise DataError(f"ImageFolder knows no classes; {hint}")
    return tuple(names.values())


def _parts(folders: Sequence[str]) -> dict[str, str]:
    """Return the splits that folders are named after, by folder; empty if none is named after train."""
    parts = {folder: PARTS[folder.lower()] for folder in folders if folder.lower() in PARTS}
    return parts if "train" in parts.values() else {}


def _is_split(tree: Tree, folders: Sequence[str]) -> bool:
    """Tell whether folders are exactly those of a given split; without test, only if they hold class folders."""
    parts = _parts(folders)
    if len(set(parts.values())) != len(folders) or "train" not in parts.values():
        return False
    return "test" in parts.values() or (len(parts) > 1 and all(tree.folders(f"{part}/") for part in parts))
