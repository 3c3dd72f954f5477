"""Greedy k-center: rows that are each farthest from all centers so far.

Rows may be float16, float32 or float64; what is computed is float32. Ties go to the lower row.
"""

import torch
from torch import Tensor
from tqdm import tqdm

from active.kernels.scores import products, row_blocks
from dassl.utils.linear import pair_products
from dassl.utils.progress import BAR


def k_center(features: Tensor, centers: Tensor, n: int, first: int | None = None) -> Tensor:
    """Return n rows of unit-norm features [N, D], each farthest from `centers` [M, D] and from the rows before it.

    Ties go to the lower row and no row is picked twice, also where all distances are 0. Without centers the rows begin
    with `first`. O((M + n) N D) time, O(N D) memory: since |x - c|^2 = 2 - 2 x.c, a vector of largest cosines is kept.
    Source: Sener and Savarese, ICLR 2018, Algorithm 1 (greedy k-center, a 2-approximation of the optimal radius).
    """
    return k_center_and_gaps(features, centers, n, first)[0]


def k_center_and_gaps(features: Tensor, centers: Tensor, n: int, first: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows of `k_center`, and the distance [n] of each to what was there when it was picked; NaN for nothing."""
    features = features if features.dtype == torch.float16 else features.float()
    nearest = _largest_cosines(features, centers.float())  # to any center so far, [N]
    picked, cosines = [], []
    for i in tqdm(range(n), "k-center", **BAR):
        row = _row(first, nearest) if not i and first is not None else nearest.argmin(0, keepdim=True)
        picked.append(row)
        cosines.append(nearest[row])
        nearest = torch.maximum(nearest, products(features, features[row][0])).index_fill_(0, row, torch.inf)
    return _joined(picked, nearest).long(), _gaps((2 - 2 * _joined(cosines, nearest)).clamp(min=0).sqrt())


def euclidean_k_center(rows: Tensor, centers: Tensor, n: int, first: int | None) -> tuple[Tensor, Tensor]:
    """Return n of the rows [N, H], each farthest from `centers` [M, H] and from those before it; rows of any norm.

    With them the distance [n] of each to what was there when it was picked, NaN for nothing.

    Without centers the first is `first`. Ties go to the lower row and none is picked twice. O((M + n) N H) time, O(N H)
    memory. Distances are sums of squared differences: products lose the small ones where rows have a large part in common.
    On unit-norm rows the picks are those of `k_center`, which is faster.
    """
    nearest = rows.new_full((len(rows),), torch.inf)
    for block in row_blocks(len(centers), len(rows)):
        nearest = torch.minimum(nearest, _exact_distances(rows, centers[block]).amin(1))
    picked, gaps = [], []
    for i in tqdm(range(n), "k-center", **BAR):
        row = _row(first, nearest) if not i and first is not None else nearest.argmax(0, keepdim=True)
        picked.append(row)
        gaps.append(nearest[row])
        nearest = torch.minimum(nearest, _exact_distances(rows, rows[row])[:, 0]).index_fill_(0, row, -torch.inf)
    return _joined(picked, nearest).long(), _gaps(_joined(gaps, nearest))


def _row(first: int, nearest: Tensor) -> Tensor:
    """Return a row as [1], as `argmax` gives it: no pick is read from the device."""
    return torch.tensor([first], device=nearest.device)


def _joined(parts: list[Tensor], nearest: Tensor) -> Tensor:
    return torch.cat(parts) if parts else nearest[:0]


def _largest_cosines(features: Tensor, centers: Tensor) -> Tensor:
    """Return the largest cosine [N] to any center, minus infinity without one."""
    nearest = features.new_full((len(features),), -torch.inf, dtype=torch.float32)
    if features.dtype == torch.float16:
        for block in row_blocks(len(features), max(features.shape[1], len(centers))) if len(centers) else ():
            nearest[block] = pair_products(features[block].float(), centers).amax(1)
        return nearest
    for block in row_blocks(len(centers), len(features)):
        nearest = torch.maximum(nearest, pair_products(features, centers[block]).amax(1))
    return nearest


def _gaps(gaps: Tensor) -> Tensor:
    """Return distances with NaN for what is infinitely far: from nothing."""
    return torch.where(gaps.isinf(), torch.nan, gaps)


def _exact_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distances [N, M] without products, exact also where they are small beside the norms."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
