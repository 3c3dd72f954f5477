"""Temperature scaling without a validation split: one number, fitted on labeled images that the model had not seen."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_FITS = 50
MIN_LABELS = 10
LOWEST, HIGHEST = 0.1, 100.0

Labeled = tuple[Tensor, ...]  # rows [M], labels [M], and perhaps weights [M]


def held_out_temperature(logits_of: Callable[[Labeled, Tensor], Tensor], labeled: Labeled, rng: np.random.Generator) -> float:
    """Return the temperature that fits logits of labeled rows [M] and labels [M], each by a model without its label.

    `logits_of(kept, rows)` returns logits [B, C] of rows by a model of what is kept of `labeled`. Each label is left out alone,
    or, of more than `MAX_FITS`, in one of so many random groups, as each costs a fit. It is 1 with fewer than `MIN_LABELS`, and
    where all held-out guesses are right: no temperature would be too low then.
    """
    rows = labeled[0]
    if len(rows) < MIN_LABELS:
        return 1.0
    n_groups = min(len(rows), MAX_FITS)
    group = torch.from_numpy(rng.permutation(np.arange(len(rows)) % n_groups))
    logits, left_out = [], []
    for number in range(n_groups):
        out = group == number
        logits.append(logits_of(tuple(own[~out] for own in labeled), rows[out]))
        left_out.append([own[out] for own in labeled[1:]])
    held_out, (truth, *weights) = torch.cat(logits), map(torch.cat, zip(*left_out, strict=True))
    return 1.0 if torch.equal(held_out.argmax(1), truth) else fit_temperature(held_out, truth, *weights)


def fit_temperature(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> float:
    """Return T, from 0.1 to 100, that makes the cross-entropy of logits / T [N, C] and labels [N] least.

    `weights` [N] say how much each label counts, 1 without them.
    It is convex in 1 / T. Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Section 4.2.
    """
    from scipy.optimize import minimize_scalar  # here, as few runs need it

    logits = logits.double()

    def loss(log: float) -> float:
        temperate = logits / np.exp(log)
        if weights is None:
            return float(F.cross_entropy(temperate, labels))
        return float((weights * F.cross_entropy(temperate, labels, reduction="none")).sum() / weights.sum())

    found = minimize_scalar(loss, method="bounded", bounds=(np.log(LOWEST), np.log(HIGHEST)), options={"xatol": 1e-6})
    return float(np.exp(found.x))
