"""Balls around unit-norm rows, by cosine: how large they may be to stay pure, and how many rows they hold.

A ball is {cosine > threshold}. No graph is stored: all pairs are compared tile by tile, in O(N D) memory.
"""

import torch
from torch import Tensor

from active.kernels.neighbors import TILE, cosine_tiles
from active.kernels.scores import top_rows
from dassl.utils.linear import pair_products

RECOUNTED = 256  # balls that are counted anew for a pick
TAKEN = -(2**62)  # the size of a ball that was taken


def pure_cosine(features: Tensor, clusters: Tensor, purity: float) -> float:
    """Return the least cosine t such that a share `purity` of the balls {cosine > t} holds rows of one cluster only."""
    foreign = torch.full((len(features),), -torch.inf, device=features.device)  # largest cosine to another cluster's row, [N]
    for rows, columns, cosines in cosine_tiles(features):
        cosines.masked_fill_(clusters[rows, None] == clusters[columns], -torch.inf)
        foreign[rows] = torch.maximum(foreign[rows], cosines.amax(1))
        foreign[columns] = torch.maximum(foreign[columns], cosines.amax(0))
    return cosine_at_purity(foreign, purity)


def cosine_at_purity(foreign: Tensor, purity: float) -> float:
    """Return `pure_cosine`, given the largest cosine [N] of each row to one of another cluster."""
    n_impure = max(0, int((1 - purity) * len(foreign) + 1e-9))
    return float(foreign.sort(descending=True).values[min(n_impure, len(foreign) - 1)]) + 1e-6


def ball_sizes(features: Tensor, threshold: float) -> Tensor:
    """Return the number of rows [N] whose cosine to a row is above the threshold, the row itself always among them."""
    sizes = torch.ones(len(features), dtype=torch.int64, device=features.device)
    for rows, columns, cosines in cosine_tiles(features):
        if rows == columns:
            cosines.fill_diagonal_(-torch.inf)
        near = cosines.gt_(threshold)  # 1.0 and 0.0 in place: ten times as fast as a new matrix of bools
        sizes[rows] += near.sum(1).long()
        if rows != columns:
            sizes[columns] += near.sum(0).long()
    return sizes


class UncoveredBalls:
    """How many uncovered rows each ball holds, as upper bounds that are exact where it matters.

    Updates are batched, since each is a pass over all rows: covered rows wait until there are `TILE` of them. Until then
    balls only shrink, and their sizes from before are bounds. The `RECOUNTED` balls of the largest bounds are counted anew;
    only if a ball outside them may be as large, the rows that wait are taken off all balls at once.
    """

    def __init__(self, features: Tensor, threshold: float, n_candidates: int | None = None) -> None:
        """Balls are taken of the first `n_candidates` rows alone, by default of all."""
        self._features, self._threshold = features, threshold
        self._bounds = ball_sizes(features, threshold)
        self._waiting = self._bounds[:0]
        self._bounds[len(features) if n_candidates is None else n_candidates :] = TAKEN

    def ball(self, row: int) -> Tensor:
        """Return the rows of a ball, its own among them, ascending."""
        inside = self._features @ self._features[row] > self._threshold
        inside[row] = True
        return inside.nonzero().flatten()

    def cover(self, rows: Tensor) -> None:
        """Take rows, each covered for the first time, off the sizes of the balls that hold them."""
        self._waiting = torch.cat([self._waiting, rows])
        if len(self._waiting) >= TILE:
            self._take_off()

    def take_largest(self) -> int:
        """Return the row whose ball holds most uncovered rows, among equals the lowest row, and never that row again.

        Never, because products of different shapes round differently: a row whose cosine is at the threshold may be in a ball
        when its rows are counted and outside when they are covered.
        """
        top = top_rows(self._bounds, RECOUNTED)
        bounds = self._bounds[top]
        sizes = bounds - self._waiting_in(top)
        if len(top) < len(self._bounds) and sizes.max() <= bounds[-1]:
            self._take_off()
            row = int(self._bounds.argmax())
        else:
            row = int(top.where(sizes == sizes.max(), len(self._bounds)).min())
        self._bounds[row] = TAKEN
        return row

    def _take_off(self) -> None:
        for tile in torch.arange(len(self._bounds), device=self._bounds.device).split(TILE):
            self._bounds[tile] -= self._waiting_in(tile)
        self._waiting = self._waiting[:0]

    def _waiting_in(self, rows: Tensor) -> Tensor:
        """Return the number of waiting rows in the balls of some rows; a row is in its own, however its cosine is rounded."""
        counts = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        for block in self._waiting.split(TILE):
            near = pair_products(self._features[rows], self._features[block]).gt_(self._threshold)
            counts += near.masked_fill_(rows[:, None] == block, 1.0).sum(1).long()
        return counts
