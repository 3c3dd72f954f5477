"""What a person means by folders that are not quite what ImageFolder asks for; each case is handled and logged in one line.

- A folder called `inbox`, `unsorted`, `to label`, ... beside class folders is not a class: its images wait for people. It is a
  class if the file of class names, the stored split or the test folder has it.
- `train` and `val` without `test`: val is the test split, as ImageNet's is.
- If a class's folder in val or test differs from the one in train only in case, or in blanks for underscores, it is the
  same class.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

from dassl.data.dataset import UNLABELED, Datum
from dassl.data.folders import IMAGE, Tree
from dassl.data.known import Names, class_key

INBOXES = {"inbox", "unsorted", "not sorted", "to sort", "unlabeled", "unlabelled", "to label", "todo"}

logger = logging.getLogger(__name__)


def unsorted_folders(tree: Tree, part: str, classes: Collection[str]) -> list[str]:
    """Return the folders in a part of a tree whose images are not sorted yet; those in `classes` are sorted."""
    known = Names(classes, class_key)
    return [folder for folder in tree.folders(part) if class_key(folder) in INBOXES and not known.meant(folder)]


def pool(tree: Tree, inboxes: Mapping[str, Sequence[str]]) -> tuple[Datum, ...]:
    """Return the images in folders, given by the part that holds them, as images without a label."""
    folders = tuple(f"{part}{folder}/" for part, own in inboxes.items() for folder in own)
    paths = [path for path in tree.paths(IMAGE) if path.startswith(folders)] if folders else []
    if paths:
        logger.warning("%s: %d images in %s are not sorted into classes: they wait for people to label them", tree.root,
                       len(paths), ", ".join(folders))
    return tuple(Datum(path, UNLABELED) for path in paths)


def tested(tree: Tree, parts: Mapping[str, str]) -> dict[str, str]:
    """Return the splits of folders; val is the test split if there is no other."""
    if "test" in parts.values():
        return dict(parts)
    logger.warning("%s has no test folder: %s is taken as test, and there is no val", tree.root,
                   next(part for part, split in parts.items() if split == "val"))
    return {part: "test" if split == "val" else split for part, split in parts.items()}


def classes_of_parts(tree: Tree, parts: Sequence[str], inbox: Collection[str]) -> dict[str, str]:
    """Return the class names of class folders, sorted, each mapped to itself; the first part's spelling counts."""
    names: dict[str, str] = {}
    for part in parts:
        known = Names(names, class_key)
        for folder in [own for own in tree.folders(f"{part}/") if own not in inbox]:
            if len(meant := known.meant(folder)) != 1:
                names[folder] = folder
            elif meant[0] != folder:
                logger.warning("%s: %s/%s counts as the class %r", tree.root, part, folder, meant[0])
    return dict(sorted(names.items()))
