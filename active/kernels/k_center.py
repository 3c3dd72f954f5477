"""Greedy k-center: rows that are each farthest from all centers so far.

Rows may be float16, float32 or float64; what is computed is float32. Ties go to the lower row.
"""

import torch
from torch import Tensor
from tqdm import tqdm

from active.kernels.scores import row_blocks
from dassl.utils.progress import BAR


def k_center(features: Tensor, centers: Tensor, n: int, first: int | None = None) -> Tensor:
    """Return n rows of unit-norm features [N, D], each farthest from `centers` [M, D] and from the rows before it.

    Ties go to the lower row and no row is picked twice, also where all distances are 0. Without centers the rows begin
    with `first`. O((M + n) N D) time, O(N D) memory: since |x - c|^2 = 2 - 2 x.c, a vector of largest cosines is kept.
    Source: Sener and Savarese, ICLR 2018, Algorithm 1 (greedy k-center, a 2-approximation of the optimal radius).
    """
    features, centers = features.float(), centers.float()
    nearest = features.new_full((len(features),), -torch.inf)  # largest cosine to any center so far, [N]
    for block in row_blocks(len(centers), len(features)):
        nearest = torch.maximum(nearest, (features @ centers[block].T).amax(1))
    picked = []
    for _ in tqdm(range(n), "k-center", **BAR):
        row = first if not picked and first is not None else int(nearest.argmin())
        picked.append(row)
        nearest = torch.maximum(nearest, features @ features[row])
        nearest[row] = torch.inf
    return torch.tensor(picked, dtype=torch.int64)


def euclidean_k_center(rows: Tensor, centers: Tensor, n: int, first: int | None) -> Tensor:
    """Return n of the rows [N, H], each farthest from `centers` [M, H] and from those before it; rows of any norm.

    Without centers the first is `first`. Ties go to the lower row and none is picked twice. O((M + n) N H) time, O(N H)
    memory. Distances are sums of squared differences: products lose the small ones where rows have a large part in common.
    On unit-norm rows the picks are those of `k_center`, which is faster.
    """
    nearest = rows.new_full((len(rows),), torch.inf)
    for block in row_blocks(len(centers), len(rows)):
        nearest = torch.minimum(nearest, _exact_distances(rows, centers[block]).amin(1))
    picked = []
    for _ in tqdm(range(n), "k-center", **BAR):
        row = first if not picked and first is not None else int(nearest.argmax())
        picked.append(row)
        nearest = torch.minimum(nearest, _exact_distances(rows, rows[row, None])[:, 0])
        nearest[row] = -torch.inf
    return torch.tensor(picked)


def distances_at_pick(rows: Tensor, centers: Tensor) -> Tensor:
    """Return how far each of the rows [n] was from `centers` [M] and the rows before it when it was picked; NaN without any."""
    others, found = torch.cat([centers, rows]).float(), []
    for number, row in enumerate(rows.float()):
        before = others[: len(centers) + number]
        found.append((before - row).norm(dim=1).amin() if len(before) else torch.tensor(torch.nan))
    return torch.stack(found)


def _exact_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distances [N, M] without products, exact also where they are small beside the norms."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")
