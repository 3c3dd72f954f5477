"""CEC: weighted k-means over image features, weighted by calibrated entropy of a row and of its neighbors.

Source: Safaei and Patel, "Active Learning for Vision-Language Models", WACV 2025 (arXiv 2410.22187), Eqs. 2-7. No code was
released; Eqs. 4-7 are reconstructed and what is uncertain is a parameter, the default first:
- `prior_support`: the prior of a class is its mean probability over its `n_support` most probable rows (`own`), or over the
  union of all classes' such rows (`union`, as in PATRON, from which the score descends);
- Eq. 5 divides probabilities by the prior and renormalizes, which is softmax(z - log prior): computed in logarithms;
  `prior_floor` (0 is off) bounds the prior from below;
- Eq. 6 averages kernel * entropy over the `n_neighbors` nearest rows; `kernel`: the cosine, or exp(-rho |x - y|^2) (`rbf`);
- Eq. 7: entropy + beta * neighbors' (`sum`), or (1 - beta) * entropy + beta * neighbors' (`convex`, beta <= 1);
- `over`: neighbors and clusters among the pool's rows, or among all, labeled ones included.
The paper tunes k and its third hyperparameter for each data set, on an unnamed split; 10 and 1 are ours. Sums below 0
count as 0; where fewer clusters than labels exist (equal images), the most uncertain other rows are asked.
"""

import logging
import math
from typing import Annotated, Literal

import torch
from torch import Tensor

from active.context import SelectionContext
from active.geometry import k_means, nearest_members, neighbors
from active.memory import need_pairs
from active.registry import SAMPLERS
from active.scores import entropy, top_columns, top_rows, without
from dassl.utils.registry import AtLeast

logger = logging.getLogger(__name__)


@SAMPLERS.register("cec")
def cec(
    ctx: SelectionContext, *, n_support: Annotated[int, AtLeast(1)] = 10, prior_support: Literal["own", "union"] = "own",
    prior_floor: Annotated[float, AtLeast(0)] = 0.0, n_neighbors: Annotated[int, AtLeast(0)] = 10,
    beta: Annotated[float, AtLeast(0)] = 1.0, kernel: Literal["cos", "rbf"] = "cos", rho: Annotated[float, AtLeast(0)] = 1.0,
    combine: Literal["sum", "convex"] = "sum", over: Literal["pool", "all"] = "pool",
    max_pool: Annotated[int, AtLeast(1)] = 200_000,
) -> Tensor:
    """Return `n_query` pool rows: of each cluster the row nearest to its center."""
    need_pairs("cec", ctx.n_pool, ctx.features.shape[1], max_pool)
    logits, features = ctx.logits.float(), ctx.features.float()
    prior = log_prior(logits, n_support, prior_support, prior_floor)
    if over == "all":
        logits, features = (torch.cat(pair) for pair in (
            (logits, ctx.labeled_logits.float()), (features, ctx.labeled_features.float())))
    own = entropy(logits - prior)
    near = neighbor_entropy(own, features, n_neighbors, kernel, rho)
    uncertainty = (own + beta * near if combine == "sum" else (1 - beta) * own + beta * near).clamp(min=0)
    clusters = nearest_members(features, *k_means(features, ctx.n_query, ctx.rng, weights=uncertainty))
    picked = torch.cat([members[members < ctx.n_pool][:1] for members in clusters])
    rest = without(picked, ctx.n_pool)
    return torch.cat([picked, rest[top_rows(uncertainty[rest], ctx.n_query - len(picked))]])


def log_prior(logits: Tensor, n_support: int, support: str, floor: float = 0.0) -> Tensor:
    """Return the logarithm of Eq. 4's class prior [C]."""
    log_probs = logits.log_softmax(1)
    rows, largest = top_columns(log_probs.T, min(n_support, len(logits)))  # [C, n_support]
    supports = largest.T if support == "own" else log_probs[rows.unique()]
    prior = supports.logsumexp(0) - math.log(len(supports))
    if floor > 0 and bool((prior < math.log(floor)).any()):
        logger.info("cec: the prior of %d classes is raised to %g", int((prior < math.log(floor)).sum()), floor)
        prior = prior.clamp(min=math.log(floor))
    return prior


def neighbor_entropy(entropies: Tensor, features: Tensor, k: int, kernel: str, rho: float) -> Tensor:
    """Return Eq. 6: the mean [N] of kernel times entropy over the k nearest other rows; 0 without neighbors."""
    rows, cosines = neighbors(features, k)
    similarities = cosines if kernel == "cos" else (-rho * (2 - 2 * cosines)).exp()
    return (similarities * entropies[rows]).sum(1) / max(1, rows.shape[1])
