"""GCNAL: a graph network tells labeled from unlabeled images; CoreGCN covers its features, UncertainGCN asks the doubtful.

Source: Caramalau et al., "Sequential Graph Convolutional Network for Active Learning", CVPR 2021, Section 3:
UncertainGCN and CoreGCN. CEC's "GCNAL" is probably CoreGCN, which is the default.
`space` is what CoreGCN spreads its picks over: the hidden features and, beside them, the logit (`hidden_and_logit`, the
default), as the authors' code does, which the published rows come from; or the hidden features alone (`hidden`).
Differences from the authors' code: the normalized adjacency is never built, A_hat S = X (X' T) - T + S with T = S / degree,
the same function, so `subset=0` can take the whole pool; softplus forms of the loss; a node whose degree (the sum
of its cosines) is at most 1e-3 keeps itself only, where theirs divides by it and may flip signs; an own generator.
"""

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from active.context import SelectionContext
from active.kernels.graph import fit_graph_network
from active.kernels.k_center import euclidean_k_center
from active.kernels.memory import need_memory
from active.kernels.scores import top_rows
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost, Before


@SAMPLERS.register("gcnal", needs_labels=True)
def gcnal(
    ctx: SelectionContext, *, variant: Literal["core", "uncertain"] = "core",
    space: Annotated[Literal["hidden_and_logit", "hidden"], Before("hidden")] = "hidden_and_logit",
    subset: Annotated[int, AtLeast(0), AtMost(10**9)] = 10_000, hidden: Annotated[int, AtLeast(1), AtMost(10**5)] = 128,
    dropout: Annotated[float, AtLeast(0), AtMost(0.99)] = 0.3, pool_weight: Annotated[float, AtLeast(0), AtMost(1e6)] = 1.2,
    margin: Annotated[float, AtLeast(0), AtMost(1)] = 0.1, steps: Annotated[int, AtLeast(0), AtMost(10**6)] = 200,
    lr: Annotated[float, AtLeast(0), AtMost(1e6)] = 0.001, weight_decay: Annotated[float, AtLeast(0), AtMost(1e6)] = 5e-4,
) -> Tensor:
    """Return `n_query` of `subset` random pool rows (0: of all).

    "core" spreads them over the `space` of the network by k-center, starting from the labeled images; "uncertain" takes
    those whose probability of being labeled is nearest to `margin`.
    """
    n_subset = min(max(subset, ctx.n_query), ctx.n_pool) if subset else ctx.n_pool
    rows = ctx.permutation(ctx.n_pool)[:n_subset].sort().values
    need_memory("gcnal", 4 * (n_subset + len(ctx.labels)) * (3 * ctx.features.shape[1] + 6 * hidden), ctx.device)
    features = F.normalize(torch.cat([ctx.features[rows].float(), ctx.labeled_features]), dim=1)
    nodes, logits = fit_graph_network(
        features, n_subset, hidden=hidden, dropout=dropout, pool_weight=pool_weight, steps=steps, lr=lr,
        weight_decay=weight_decay, generator=torch.Generator().manual_seed(int(ctx.rng.integers(2**63))))
    if variant == "uncertain":
        return rows[top_rows(-(logits[:n_subset].double().sigmoid() - margin).abs(), ctx.n_query)]
    if space == "hidden_and_logit":
        nodes = torch.cat([nodes, logits[:, None]], 1)  # [N, hidden + 1]
    first = None if len(ctx.labels) else int(ctx.rng.integers(n_subset))
    return rows[euclidean_k_center(nodes[:n_subset], nodes[n_subset:], ctx.n_query, first)[0]]
