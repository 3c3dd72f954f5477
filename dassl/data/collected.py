"""Lists of images with splits and labels, from any source, as data sets."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dassl.data.dataset import SPLITS, UNLABELED, Dataset, Datum
from dassl.data.draws import Draw
from dassl.data.known import Names, class_key
from dassl.data.places import Part
from dassl.data.splits import Splits
from dassl.data.tables import Value
from dassl.utils.errors import DataError, did_you_mean, listed

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One image: its split ("" if none is named), its place, and its class as a name or number, None if unknown.

    `place` is a path relative to the data root, or a part of a file, with its name in that file if it has one.
    """

    split: str
    place: str | Part
    value: Value

    @property
    def path(self) -> str:
        """The id, once the items of a data set have distinct names."""
        return self.place.name if isinstance(self.place, Part) else self.place


@dataclass(frozen=True)
class Setting:
    """A data set's name, root and prompt template, and how it is split if it is not split already."""

    name: str
    root: Path
    draw: Draw
    template: str = "a photo of a {}."


def collected(setting: Setting, items: Sequence[Item], names: Mapping[str, str]) -> Dataset:
    """Return the data set of images. `names` are class names by the labels' values, in the order of the class numbers.

    Without `names`, the labels themselves are the class names. Without a test split, val is test; without either, both are
    drawn.
    """
    if not items:
        raise DataError(f"{setting.root} lists no images")
    items = _settled(setting.name, _named(items))
    labels, classnames = numbered([item.value for item in items], names, str(setting.root))
    if len(classnames) == 1:
        raise DataError(f"{setting.root}: {classnames[0]!r} is the only class, so that there is nothing to tell apart; "
                        "learning needs two or more")
    rows = [(item.split, Datum(item.path, label)) for item, label in zip(items, labels, strict=True)]
    is_split = any(split != "train" for split, _ in rows)
    splits = {name: tuple(datum for split, datum in rows if split == name) for name in SPLITS}
    if not is_split:
        splits = _drawn(setting.draw, splits["train"], classnames)
    parts = {item.path: item.place for item in items if isinstance(item.place, Part)}
    return Dataset(setting.name, setting.root, **splits, classnames=classnames, template=setting.template, parts=parts)


def numbered(values: Sequence[Value], names: Mapping[str, str], where: str) -> tuple[list[int], tuple[str, ...]]:
    """Return the label of each value and the class names. Labels may differ from names in case, and in blanks for underscores.

    Raises DataError that lists the values that are not a class; empty values and -1 are UNLABELED.
    """
    if not names and (words := {str(value) for value in values} - {"None", "-1"}) and all(map(str.isdecimal, words)):
        names = {word: word for word in sorted(words, key=int)}
        logger.warning("%s: the classes are numbers, which mean nothing to CLIP; name a file of class names in CLASSES", where)
    names = names or _own_names(values, where)
    known, order, found = Names(names, class_key), {key: label for label, key in enumerate(names)}, {}
    for value in dict.fromkeys(values):
        meant = known.meant(str(value))
        if value is None or (str(value) == "-1" and not meant):
            found[value] = UNLABELED
        elif len(meant) == 1:
            found[value] = order[meant[0]]
        elif str(value).isdecimal() and int(value) < len(names):
            found[value] = int(value)
    if unknown := [repr(value) for value in dict.fromkeys(values) if value not in found]:
        raise DataError(listed(f"{where}: {len(unknown)} labels are not a class; {did_you_mean(unknown[0], names)}", unknown))
    return [found[value] for value in values], tuple(names.values())


def _own_names(values: Sequence[Value], where: str) -> dict[str, str]:
    """Return the labels' words, sorted, as class names; of words that differ only in case, the most common."""
    counts = Counter(str(value) for value in values if value is not None)
    spellings: dict[str, list[str]] = {}
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        spellings.setdefault(class_key(word), []).append(word)
    for first, *others in spellings.values():
        if others:
            logger.warning("%s: %s count as the class %r", where, ", ".join(map(repr, others)), first)
    if not spellings:
        raise DataError(f"{where}: no image has a label; name a file of class names in CLASSES, and people label them")
    return {first: first for first in sorted(own[0] for own in spellings.values())}


def _settled(name: str, items: Sequence[Item]) -> list[Item]:
    """Return the items with the three splits: those without a split are train, and without a test split val is test."""
    items = [replace(item, split=item.split or "train") for item in items]
    found = {item.split for item in items}
    if "train" not in found:
        raise DataError(f"{name} has no train split, only {' and '.join(sorted(found))}")
    labeled = [item for item in items if item.split == "train" or item.value not in (None, -1, "-1")]
    if n_gone := len(items) - len(labeled):
        logger.warning("%s: %d val and test images have no label and are left out", name, n_gone)
    items = labeled
    if {item.split for item in items} == {"train", "val"}:
        logger.warning("%s has no test split: its val split is taken as test, and there is no val", name)
        items = [replace(item, split="test") if item.split == "val" else item for item in items]
    return items


def _named(items: Sequence[Item]) -> list[Item]:
    """Return the items with ids as names of parts: the split and the name in the file, with a number where it repeats."""
    counts, n_rows, named = Counter(), Counter(), []
    for item in items:
        n_rows[item.split] += 1
        if isinstance(item.place, Part):
            name = "/".join(word for word in re.split(r"[\\/]", item.place.name) if word not in ("", ".", ".."))
            path = f"{item.split}/" * bool(item.split) + (name or f"{n_rows[item.split] - 1:06d}")
            counts[path] += 1
            item = replace(item, place=replace(item.place, name=path + f" ({counts[path]})" * (counts[path] > 1)))
        named.append(item)
    return named


def _drawn(draw: Draw, items: Sequence[Datum], classnames: Sequence[str]) -> Splits:
    """Return a random split of the images with a label; the others are train images."""
    now = {datum.path: classnames[datum.label] for datum in items if datum.label != UNLABELED}
    stored = draw.rows([(datum.path, datum.label, classnames[datum.label]) for datum in items if datum.label != UNLABELED])
    split_of = {path: (split, name) for split, own in stored.items() for path, _, name in own}
    draw.check_same([path for path in {**split_of, **now} if split_of.get(path, ("", None))[1] != now.get(path)])
    return {split: tuple(datum for datum in items if split_of.get(datum.path, ("train", ""))[0] == split) for split in SPLITS}
