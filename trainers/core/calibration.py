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
    rows, labels = labeled[:2]
    if len(rows) < MIN_LABELS:
        return 1.0
    n_groups = min(len(rows), MAX_FITS)
    group = torch.from_numpy(rng.permutation(np.arange(len(rows)) % n_groups))
    logits, targets = [], []
    for own in range(n_groups):
        out = group == own
        logits.append(logits_of(tuple(own[~out] for own in labeled), rows[out]))
        targets.append(labels[out])
    held_out, truth = torch.cat(logits), torch.cat(targets)
    return 1.0 if torch.equal(held_out.argmax(1), truth) else fit_temperature(held_out, truth)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return T, from 0.1 to 100, that makes the cross-entropy of logits / T [N, C] and labels [N] least.

    It is convex in 1 / T. Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Section 4.2.
    """
    from scipy.optimize import minimize_scalar  # here, as few runs need it

    logits = logits.double()
    found = minimize_scalar(lambda log: float(F.cross_entropy(logits / np.exp(log), labels)), method="bounded",
                            bounds=(np.log(LOWEST), np.log(HIGHEST)), options={"xatol": 1e-6})
    return float(np.exp(found.x))
