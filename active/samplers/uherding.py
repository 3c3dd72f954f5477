"""UHerding: MaxHerding whose targets count by how uncertain the model is about them.

Source: Bae et al., "Uncertainty Herding: One Active Learning Method for All Label Budgets", ICLR 2025 (arXiv
2412.20644), Section 4: each pick is argmax_i sum_j u_j max(0, k_ij - m_j), u_j = 1 - (p(1) - p(2)) of target j (`uncertainty:
margin`; `entropy` and `least_confidence` are the paper's others). The kernel's width `radius` is 1 without labels, then the
smallest positive distance between two labeled rows (`labeled`): it shrinks as labels come, from covering the pool to asking
what is uncertain. `mass` is ours: the median distance at which as many balls as there are labels and picks hold the pool once;
it shrinks alike, down to the nearest row's, and is no single pair's. Without labels u is 1, as in the paper (`cold: ones`), or
taken from zero-shot probabilities (`zero_shot`).
What the authors' code gets wrong: see `active.samplers.maxherding`; copies of a labeled row have distances of up to 8e-4 in
float32, at which the width collapses and the sampler becomes margin without a word (here distances are exact, and rows that
differ by rounding are copies); with one label the smallest of no distances is taken (here 1). It divides logits by a
temperature from 1 up that 30 % of the labels decide, none of up to three; here logits are as the learner makes them, which
`TRAINER.CALIBRATION` can calibrate.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.d2_sampling import ROUNDING
from active.kernels.herding import herd, herd_subset, mass_radius
from active.kernels.memory import compares_all
from active.kernels.scores import entropy, least_confidence, row_blocks, smallness_of_margin
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost

SCORES = {"margin": smallness_of_margin, "entropy": entropy, "least_confidence": least_confidence}


@SAMPLERS.register("uherding")
def uherding(
    ctx: SelectionContext, *, uncertainty: Literal["margin", "entropy", "least_confidence"] = "margin",
    radius: Literal["labeled", "mass"] = "labeled", cold: Literal["ones", "zero_shot"] = "ones",
    max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000, exact: bool = False,
) -> Query:
    """Return `n_query` pool rows, each the one that covers most uncertainty that is not covered yet."""
    own = herd if compares_all("uherding", tuple(ctx.features.shape), max_pool, exact=exact) else herd_subset
    if len(ctx.labels) or cold == "zero_shot":
        weights = SCORES[uncertainty](ctx.unlabeled_logits)
    else:
        weights = torch.ones(len(ctx.unlabeled_features), device=ctx.device)
    if radius == "labeled":
        return own(ctx, weights, labeled_radius(ctx.labeled_features))
    return own(ctx, weights, mass_radius(ctx.unlabeled_features, len(ctx.labels) + ctx.n_query, ctx.rng))


def labeled_radius(features: Tensor) -> float:
    """Return the smallest distance between different unit rows [M, D], 1 if there are none.

    Rows are copies up to `ROUNDING`, a squared distance: an image that is encoded in another batch has other last digits, which
    in float16, even in all columns at once, make 1e-6 (2^-20).
    """
    smallest = math.inf
    for block in row_blocks(len(features), len(features)):
        distances = torch.cdist(features[block].double(), features.double(), compute_mode="donot_use_mm_for_euclid_dist")
        smallest = min(smallest, float(distances.where(distances**2 > ROUNDING, math.inf).min()))
    return smallest if math.isfinite(smallest) else 1.0
