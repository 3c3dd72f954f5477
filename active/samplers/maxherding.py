"""MaxHerding: rows whose kernels cover the pool, as far as labeled rows and earlier picks do not.

Source: Bae, Noh and Sutherland, "Generalized Coverage for More Robust Low-Budget Active Learning", ECCV 2024 (arXiv
2407.12212), Section 3: each pick is argmax_i sum_j max(0, k_ij - m_j), k a Gaussian of the distance of features, m_j the
largest kernel of target j with what is labeled or picked; `radius` is its width, 1 for unit-norm features as in the paper. A
first round without labels is the paper's own.
What the authors' code gets wrong: above about 35,000 rows candidates and targets are one random subset, since it holds the
matrix of all kernels (here none is held, and picks are exact up to `max_pool` images); equal gains are decided by rounding
(here the lowest id, see `active.kernels.herding`). Above `max_pool` images, with `exact: false`, candidates and targets are
random ones here too (`herd_subset`), but several times as many.
"""

from typing import Annotated

import torch

from active.context import Query, SelectionContext
from active.kernels.herding import herd, herd_subset
from active.kernels.memory import compares_all
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("maxherding")
def maxherding(
    ctx: SelectionContext, *, radius: Annotated[float, AtLeast(1e-3), AtMost(1e3)] = 1.0,
    max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000, exact: bool = False,
) -> Query:
    """Return `n_query` pool rows, each the one that covers most of what is not covered yet."""
    own = herd if compares_all("maxherding", tuple(ctx.features.shape), max_pool, exact=exact) else herd_subset
    return own(ctx, torch.ones(len(ctx.unlabeled_features), device=ctx.device), radius)
