"""Few-shot subsets and base/new classes, as functions from one data set to another."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from dassl.data.dataset import UNLABELED, Dataset, Datum
from dassl.utils.errors import DataError
from dassl.utils.seeding import rng_for

MAX_VAL_SHOTS = 4


def few_shot(dataset: Dataset, n_shots: int, seed: int) -> Dataset:
    """Return the data set with `n_shots` random train images per class, at most 4 val images, and the whole test split.

    A class with fewer images keeps all. Raises DataError if train images have no label.
    Source: Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, Section 4.1 (and the authors' code
    for val).
    """
    if any(datum.label == UNLABELED for datum in dataset.train):
        raise DataError(f"{dataset.name}: DATASET.NUM_SHOTS draws images of each class, but some have no label")
    return replace(dataset, train=_shots(dataset.train, n_shots, seed, "train"),
                   val=_shots(dataset.val, min(n_shots, MAX_VAL_SHOTS), seed, "val"))


def subsample_classes(dataset: Dataset, part: Literal["base", "new"]) -> Dataset:
    """Return the data set of the first half of the classes (base, rounded up) or of the others (new), labels from 0.

    Raises DataError if there is only one class, or if train images have no label: their half is unknown.
    Source: Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, Section 4.1.
    """
    if any(datum.label == UNLABELED for datum in dataset.train):
        raise DataError(f"{dataset.name}: DATASET.SUBSAMPLE_CLASSES takes images by their class, but some have no label")
    n_classes = len(dataset.classnames)
    n_base = (n_classes + 1) // 2
    kept = range(n_base) if part == "base" else range(n_base, n_classes)
    if not kept:
        raise DataError(f"{dataset.name}: one class cannot be cut into base and new")

    def select(items: Sequence[Datum]) -> tuple[Datum, ...]:
        return tuple(Datum(item.path, item.label - kept.start) for item in items if item.label in kept)

    return replace(dataset, train=select(dataset.train), val=select(dataset.val), test=select(dataset.test),
                   classnames=tuple(dataset.classnames[label] for label in kept))


def _shots(items: Sequence[Datum], n_shots: int, seed: int, split: str) -> tuple[Datum, ...]:
    """Return `n_shots` items per label, in the order of the labels and, within each, in the order of the items."""
    rows: dict[int, list[int]] = {}
    for row, item in enumerate(items):
        rows.setdefault(item.label, []).append(row)
    chosen = []
    for label, members in sorted(rows.items()):
        order = rng_for(seed, "few-shot", split, label).permutation(len(members))[:n_shots]
        chosen += [members[index] for index in sorted(order.tolist())]
    return tuple(items[row] for row in chosen)
