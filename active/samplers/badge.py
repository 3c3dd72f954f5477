"""BADGE: k-means++ seeding in the space of hypothetical last-layer gradients.

Source: Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
Bounds", ICLR 2020, Algorithm 1: g_i = (p_i - e_i) x f_i (outer product), e_i the one-hot predicted class, f_i the feature.
The gradients, N (C D) numbers, are never built: |g_i|^2 = |a_i|^2 |f_i|^2 and g_i.g_j = (a_i.a_j)(f_i.f_j), a_i = p_i - e_i,
so a pick is two matrix-vector products. This is exact: given the same random numbers the picks are those of the dense form.
Differences from the authors' code and the copy in PCB's: every row has its own gradient for any pool size (there, a smaller
last batch overwrites other rows); any feature width; once all distances are 0 the rest is drawn uniformly (there: debugger,
endless loop or repeated picks). The logit scale, a constant factor, is left out. The first round is BADGE itself on
zero-shot probabilities, as in CEC's protocol; the paper and PCB start at random (`ACTIVE.INITIAL_SAMPLER: random`).
"""

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.d2_sampling import d2_sampling, squared_distances, squared_norms
from active.kernels.memory import need_memory
from active.kernels.scores import products, residuals, row_blocks
from active.registry import SAMPLERS
from dassl.utils.large import room

VECTORS = 6  # vectors of N float64 numbers that D^2 sampling holds at a time; wider tensors may be mapped


@SAMPLERS.register("badge")
def badge(ctx: SelectionContext) -> Query:
    """Return `n_query` pool rows: the one of largest gradient, then each drawn in proportion to its squared distance."""
    is_half, (n_rows, width) = ctx.features.dtype == torch.float16, ctx.features.shape
    need_memory("badge", n_rows * (4 * (ctx.n_classes + 2 * width) if ctx.features.is_cuda else 8 * VECTORS), ctx.device)
    features = ctx.features if is_half else ctx.features.float()  # [N, D]
    errors = room(*ctx.logits.shape, device=ctx.device)  # [N, C]
    for block in row_blocks(*errors.shape):
        errors[block] = residuals(ctx.logits[block])
    norms = squared_norms(errors) * squared_norms(features)

    def distances_to(row: int) -> Tensor:
        return squared_distances(norms, norms[row], (errors @ errors[row]) * products(features, features[row]))

    rows = d2_sampling(ctx.n_query, ctx.n_pool, distances_to, ctx.rng, first=int(norms.argmax())).to(ctx.device)
    own = features[rows].float()
    return Query(rows, scores=at_pick(norms[rows], (errors[rows] @ errors[rows].T) * (own @ own.T)),
                 pool_scores=norms)


def at_pick(norms: Tensor, products: Tensor) -> Tensor:
    """Return each row's squared distance [n] to the nearest one before it; for the first, its squared norm."""
    distances = squared_distances(norms[:, None], norms, products)
    later = torch.ones_like(distances, dtype=torch.bool).triu()
    return torch.cat([norms[:1], distances.masked_fill(later, torch.inf).amin(1)[1:]])
