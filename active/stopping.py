"""Whether further labels are worth their price: how much the predictions of the pool still change.

Cohen's kappa compares the predictions of a round's model with those of the newest model that had at least C labels fewer
(C classes); between consecutive rounds it would measure the size of a round. The gain of the next C labels is predicted
from it. Source of kappa as a criterion: Bloodgood and Vijay-Shanker, CoNLL 2009.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

# (kappa from, accuracy points of the next C labels, their spread); measured on Caltech101, DTD and Flowers102, at one seed
GAINS = ((0.98, 0.3, 0.35), (0.95, 1.1, 0.4), (0.90, 1.5, 0.6), (0.85, 2.6, 1.1), (0.80, 3.5, 1.4), (-1.0, 4.5, 1.5))


def kappa(first: Tensor, second: Tensor, n_classes: int) -> float:
    """Return Cohen's kappa of two labelings [N] of the same images, 1 for equal ones."""
    if torch.equal(first, second):
        return 1.0
    shares = [own.bincount(minlength=n_classes).double() / len(own) for own in (first, second)]
    by_chance = float(shares[0] @ shares[1])
    return (float((first == second).double().mean()) - by_chance) / (1 - by_chance)


def reference(n_labeled: Mapping[int, int], now: int, n_classes: int) -> int | None:
    """Return the newest earlier round, given each round's labels, with at least `n_classes` labels fewer than `now`."""
    return max((round for round, number in n_labeled.items() if number <= now - n_classes), default=None)


def expected_gain(found: float) -> tuple[float, float]:
    """Return how many points of accuracy the next C labels are expected to bring at this kappa, and the spread."""
    return next((points, spread) for least, points, spread in GAINS if found >= least)


def advice(found: float | None, n_classes: int) -> str:
    """Return one line for people."""
    if found is None:
        return f"too few labels yet to say what more would bring; a model with {n_classes} fewer is needed to compare with"
    points, spread = expected_gain(found)
    gain = f"the next {n_classes} labels are expected to bring {points:.1f} ± {spread:.1f} points (measured on three data sets)"
    if found >= GAINS[0][0]:
        return f"you may stop: {gain}"
    return f"go on if that is worth it: {gain}" if found >= GAINS[2][0] else f"go on: {gain}"
