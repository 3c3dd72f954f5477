"""Balls around unit-norm rows by their neighbor lists: what `active.kernels.coverage` does where all pairs are too many.

A list is a ball as far as it reaches: of a larger ball the nearest rows are known, and others whose own lists hold its center.
"""

import math

import torch
from torch import Tensor

from active.kernels.coverage import TAKEN, cosine_at_purity
from active.kernels.neighbor_lists import NeighborLists
from active.kernels.scores import row_blocks


def listed_pure_cosine(near: NeighborLists, clusters: Tensor, purity: float) -> float:
    """Return `pure_cosine` by lists; a row whose whole list is of its own cluster counts as pure.

    Where so many rows are pure that any radius would do, their balls count as pure only as far as their lists reach.
    """
    foreign = torch.full((len(clusters),), -torch.inf, device=near.rows.device)
    last = torch.ones_like(foreign)  # cosine that a list reaches
    for block in row_blocks(*near.rows.shape):
        rows = near.rows[block].long()
        is_own = (clusters[rows.clamp(min=0)] == clusters[block, None]) | (rows < 0)
        foreign[block] = near.cosines[block].where(~is_own, -torch.inf).amax(1)
        last[block] = near.cosines[block].where(rows >= 0, 1.0).amin(1)
    cosine = cosine_at_purity(foreign, purity)
    return cosine if math.isfinite(cosine) else cosine_at_purity(foreign.where(foreign.isfinite(), last), purity)


class ListedBalls:
    """How many uncovered rows the ball {cosine > threshold} of each row holds, by lists made symmetric."""

    def __init__(self, near: NeighborLists, threshold: float, n_candidates: int) -> None:
        """Balls are taken of the first `n_candidates` rows alone."""
        n_rows = len(near.rows)
        inside = (near.cosines > threshold) & (near.rows >= 0)
        self.cut = float(inside.all(1).double().mean())  # share of balls that may hold more rows than are listed
        row, column = inside.nonzero()[:, 0], near.rows[inside].long()
        pairs = torch.cat([row * n_rows + column, column * n_rows + row]).unique()
        self._others, counts = pairs % n_rows, (pairs // n_rows).bincount(minlength=n_rows)
        self._starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        self._sizes = counts + 1
        self._sizes[n_candidates:] = TAKEN

    def ball(self, row: int) -> Tensor:
        """Return the rows of a ball, its own among them."""
        start, end = self._starts[row : row + 2].tolist()
        return torch.cat([torch.tensor([row], device=self._others.device), self._others[start:end]])

    def cover(self, rows: Tensor) -> None:
        """Take rows, each covered for the first time, off the sizes of the balls that hold them."""
        counts = self._starts[rows + 1] - self._starts[rows]
        ends, n_holding = counts.cumsum(0), int(counts.sum())
        firsts = (self._starts[rows] + counts - ends).repeat_interleave(counts, output_size=n_holding)
        places = torch.arange(n_holding, device=rows.device) + firsts
        holding = torch.cat([rows, self._others[places]])
        self._sizes.index_add_(0, holding, torch.full_like(holding, -1))

    def take_largest(self) -> int:
        """Return the row whose ball holds most uncovered rows, among equals the lowest row, and never that row again."""
        row = int(self._sizes.argmax())
        self._sizes[row] = TAKEN
        return row
