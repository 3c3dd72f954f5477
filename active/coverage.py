"""Balls around unit-norm rows, by cosine: how large they may be to stay pure, and how many rows they hold.

A ball is {cosine > threshold}. No graph is stored: all pairs are compared tile by tile, in O(N D) memory.
"""

import torch
from torch import Tensor

from active.geometry import cosine_tiles
from active.scores import BLOCK


def pure_cosine(features: Tensor, clusters: Tensor, purity: float) -> float:
    """Return the least cosine t such that a share `purity` of the balls {cosine > t} holds rows of one cluster only."""
    foreign = torch.full((len(features),), -torch.inf)  # largest cosine to a row of another cluster, [N]
    for rows, columns, cosines in cosine_tiles(features):
        cosines.masked_fill_(clusters[rows, None] == clusters[columns], -torch.inf)
        foreign[rows] = torch.maximum(foreign[rows], cosines.amax(1))
        foreign[columns] = torch.maximum(foreign[columns], cosines.amax(0))
    n_impure = max(0, int((1 - purity) * len(features) + 1e-9))
    return float(foreign.sort(descending=True).values[min(n_impure, len(features) - 1)]) + 1e-6


def ball_sizes(features: Tensor, threshold: float) -> Tensor:
    """Return the number of rows [N] whose cosine to a row is above the threshold, the row itself always among them."""
    sizes = torch.ones(len(features), dtype=torch.int64)
    for rows, columns, cosines in cosine_tiles(features):
        if rows == columns:
            cosines.fill_diagonal_(-torch.inf)
        near = cosines.gt_(threshold)  # 1.0 and 0.0 in place: ten times as fast as a new matrix of bools
        sizes[rows] += near.sum(1).long()
        if rows != columns:
            sizes[columns] += near.sum(0).long()
    return sizes


def leave_balls(sizes: Tensor, features: Tensor, covered: Tensor, threshold: float) -> None:
    """Take newly covered rows off the sizes of the balls that hold them."""
    for block in covered.nonzero().flatten().split(max(1, BLOCK // len(features))):
        near = (features @ features[block].T).gt_(threshold)
        near[block, torch.arange(len(block))] = 1.0
        sizes -= near.sum(1).long()
