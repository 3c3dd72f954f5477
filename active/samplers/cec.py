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
The paper's ablations: `calibrate: false`, `beta: 0`, and `choose`, k-means without weights or the largest sums themselves.
Above `max_pool` images, with `exact: false`, neighbors are those of an index (`active.kernels.neighbor_lists`) and seeds of
k-means are drawn by a row's own entropy alone: the last digits of the weights would decide them otherwise.
The paper tunes k and its third hyperparameter for each data set, on an unnamed split; 10 and 1 are ours. Sums below 0
count as 0; where fewer clusters than labels exist (equal images), the most uncertain other rows are asked.
"""

from dataclasses import replace
from typing import Annotated, Literal

import torch

from active.context import Query, SelectionContext, scored
from active.kernels.calibration import log_prior, mean_entropy
from active.kernels.k_means import k_means, nearest_members
from active.kernels.memory import compares_all
from active.kernels.pool_lists import pool_lists
from active.kernels.scores import by_block, entropy, top_rows, without
from active.registry import SAMPLERS
from dassl.utils.large import single
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("cec")
def cec(
    ctx: SelectionContext, *, n_support: Annotated[int, AtLeast(1), AtMost(10**9)] = 10,
    prior_support: Literal["own", "union"] = "own", prior_floor: Annotated[float, AtLeast(0), AtMost(1)] = 0.0,
    n_neighbors: Annotated[int, AtLeast(0), AtMost(10**9)] = 10, beta: Annotated[float, AtLeast(0), AtMost(1e6)] = 1.0,
    kernel: Literal["cos", "rbf"] = "cos", rho: Annotated[float, AtLeast(0), AtMost(1e6)] = 1.0,
    combine: Literal["sum", "convex"] = "sum", over: Literal["pool", "all"] = "pool", calibrate: bool = True,
    choose: Literal["weighted_k_means", "k_means", "top"] = "weighted_k_means",
    max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000, exact: bool = False,
) -> Query:
    """Return `n_query` pool rows: of each cluster the row nearest to its center, or the most uncertain ones (`top`)."""
    is_exact = compares_all("cec", tuple(ctx.features.shape), max_pool, exact=exact)
    logits, features = ctx.unlabeled_logits, single(ctx.unlabeled_features)
    shift = log_prior(logits, n_support, prior_support, prior_floor) if calibrate else logits.new_zeros(ctx.n_classes)
    own = by_block(lambda block: entropy(block - shift), logits)
    if over == "all":
        features = torch.cat([features, ctx.labeled_features.float()])
        own = torch.cat([own, entropy(ctx.labeled_logits.float() - shift)])
    lists = pool_lists(ctx, features, n_neighbors, exact=is_exact, max_pool=max_pool)
    near, facts = mean_entropy(own, lists, kernel, rho), lists.facts
    uncertainty = (own + beta * near if combine == "sum" else (1 - beta) * own + beta * near).clamp(min=0)
    picked = ctx.ids[:0]
    if choose != "top":
        weights = uncertainty if choose == "weighted_k_means" else None
        of_seeds = None if is_exact or weights is None else own.clamp(min=0)
        clusters = nearest_members(features, *k_means(features, ctx.n_query, ctx.rng, weights=weights, of_seeds=of_seeds))
        picked = torch.cat([members[members < ctx.n_pool][:1] for members in clusters]).to(ctx.device)
    rest = without(picked, ctx.n_pool)
    rows = torch.cat([picked, rest[top_rows(uncertainty[rest], ctx.n_query - len(picked))]])
    return replace(scored(rows, uncertainty[: ctx.n_pool]), approximation=facts)
