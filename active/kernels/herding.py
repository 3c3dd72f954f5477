"""Herding: rows whose kernels cover most of what weighted targets lack yet, lazily and without a kernel matrix.

With k_ij = exp(-|v_i - v_j|^2 / h^2) and m_j the largest k_.j of what covers target j so far, a row's gain is
sum_j u_j max(0, k_ij - m_j). Gains never rise, so that old ones are bounds: a pick evaluates anew only rows whose bound
reaches the best gain. Two rows that cover only each other have equal gains, of which rounding would choose one: among gains
within `TIE` of the largest the lowest row is taken. A row's kernel with itself is 1, whatever its length is rounded to.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from active.context import Query, SelectionContext
from active.kernels.d2_sampling import ROUNDING
from active.kernels.scores import row_blocks
from dassl.utils.large import unit_rows
from dassl.utils.linear import pair_products
from dassl.utils.progress import BAR

TIE = 1e-5  # share of the largest gain
EVALUATED = 64  # rows at once, first; then as many as so far, up to four times as many
CANDIDATES, TARGETS, MOST_TARGETS = 200_000, 50, 100_000  # of herding on a subset
SAMPLE = 1000  # rows of whose neighbors the radius by mass is the median
DOUBLE = 2**24  # pairs up to which float64 costs nothing that a user would see


class Herd:
    """What rows [N, D] of unit length gain, of which the first n_candidates can be picked; all or some are targets.

    `weights` [N] are u, `centers` [M, D] what covers them before the first pick, `radius` h; `targets` [T] are rows.
    """

    def __init__(
        self, rows: Tensor, weights: Tensor, centers: Tensor, radius: float, n_candidates: int, targets: Tensor | None = None
    ) -> None:
        precision = torch.float64 if len(rows) * max(len(rows), len(centers)) <= DOUBLE else torch.float32
        self._rows, self._radius = rows.to(precision), radius
        self._places, self._targets = targets, self._rows if targets is None else self._rows[targets]
        self._weights = (weights if targets is None else weights[targets]).to(rows.device, precision)
        self._column = torch.arange(len(rows), device=rows.device)  # of a row among the targets, [N]; -1 of one that is none
        if targets is not None:
            self._column[:] = -1
            self._column[targets] = torch.arange(len(targets), device=rows.device)
        self._covered = self._rows.new_zeros(len(self._targets))  # m, [T]
        for block in row_blocks(len(centers), len(self._targets)):
            self._covered = torch.maximum(self._covered, self._kernel(centers[block].to(precision)).amax(0))
        self._bounds = self._rows.new_empty(n_candidates)
        for block in row_blocks(n_candidates, len(self._targets)):
            self._bounds[block] = self._gains(torch.arange(n_candidates, device=rows.device)[block])

    @property
    def bounds(self) -> Tensor:
        """What rows [n_candidates] gain at most: exactly that before the first pick."""
        return self._bounds

    def pick(self) -> tuple[int, float]:
        """Return the row that gains most, and its gain, and let it cover; never a row twice."""
        best, row = self._best()
        if best > 0:
            self._covered = torch.maximum(self._covered, self._kernels_of(row)[0])
        number, gain = torch.cat([row.double(), self._bounds[row].double()]).tolist()  # both at once: one wait for the card
        self._bounds.index_fill_(0, row, -torch.inf)
        return int(number), gain

    def reweigh(self, weights: Tensor) -> None:
        """Let targets count by other weights [N], none of them larger than before, so that old gains stay bounds."""
        self._weights = (weights if self._places is None else weights[self._places]).to(self._weights)

    def _best(self) -> tuple[float, Tensor]:
        """Return the largest gain, and the lowest row [1] that reaches it within `TIE`."""
        bounds, order = self._bounds.sort(descending=True, stable=True)
        best, done, bound = 0.0, 0, float(bounds[0])
        while bound > 0 and bound >= (1 - TIE) * best:
            rows = order[done : done + min(max(EVALUATED, done), 4 * EVALUATED)]
            done += len(rows)
            gains = self._gains(rows).where(self._bounds[rows] > 0, self._bounds[rows])
            self._bounds[rows] = gains
            largest, bound = torch.stack([gains.max(), bounds[min(done, len(bounds) - 1)]]).tolist()
            best, bound = max(best, largest), bound if done < len(bounds) else 0.0
        tied = self._bounds >= (1 - TIE) * best if best > 0 else self._bounds > -torch.inf
        return best, tied.int().argmax(0, keepdim=True)

    def _gains(self, rows: Tensor) -> Tensor:
        """Return the gains [n] of rows as they are now."""
        return self._kernels_of(rows).sub_(self._covered).clamp_(min=0) @ self._weights

    def _kernels_of(self, rows: Tensor) -> Tensor:
        """Return the kernels [n, T] of rows with all targets."""
        kernel, columns = self._kernel(self._rows[rows]), self._column[rows, None]
        own = columns.clamp(min=0)
        return kernel.scatter_(1, own, kernel.gather(1, own).masked_fill_(columns >= 0, 1))

    def _kernel(self, others: Tensor) -> Tensor:
        cosines = pair_products(others, self._targets)
        return cosines.sub_(1).mul_(2 / self._radius**2).clamp_(max=0).exp_()


def herd(ctx: SelectionContext, weights: Tensor, radius: float) -> Query:
    """Return `n_query` pool rows in the order in which they are picked; skipped images are targets, labeled ones centers."""
    return asked(Herd(ctx.unlabeled_features, weights, ctx.labeled_features, radius, ctx.n_pool), ctx.n_query)


def asked(covering: Herd, n_query: int, after: Callable[[int], None] = lambda row: None) -> Query:
    """Return the first picks in their order; `after` is told each of them before the next one.

    Greedy, and so, with weights that stay, at least 1 - 1/e of the best rows' coverage. Time: a pass over all pairs, and 1 to 4
    more for all picks.
    """
    at_first, rows, gains = covering.bounds.clone(), [], []
    for _ in tqdm(range(n_query), "herding", **BAR):
        row, gain = covering.pick()
        rows.append(row)
        gains.append(gain)
        after(row)
    picked, scores = (torch.tensor(own, device=at_first.device) for own in (rows, gains))
    return Query(picked.long(), scores=scores, pool_scores=at_first)


def herd_subset(ctx: SelectionContext, weights: Tensor, radius: float) -> Query:
    """Return `n_query` pool rows as `herd` does, out of `CANDIDATES` random ones, by what they cover of random targets.

    Targets are drawn in proportion to their weights [N + S] and then weigh as often as they were drawn: few images may weigh
    much. `benchmarks/samplers.md` has the share that is kept of what exact picks cover more than random ones.
    """
    counts = weights.float()
    if n_targets(ctx) < len(weights) and bool(weights.any()):
        counts = drawn(weights.cpu(), n_targets(ctx), ctx.rng).to(weights.device)
    targets = counts.nonzero().flatten()
    rows, targets, facts = subset(ctx, targets if len(targets) else None)
    covering = Herd(unit_rows(ctx.unlabeled_features[rows]), counts[rows], ctx.labeled_features, radius, facts["candidates"],
                    targets)
    return of_subset(asked(covering, ctx.n_query), rows, ctx.n_pool, facts)


def drawn(weights: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """Return how often each row [N] is drawn in n draws in proportion to its weight, on the CPU, float32.

    Systematic sampling of the rows in random order: n points at equal distances on the line of all weights. So a row is drawn
    n w / sum(w) times, rounded up or down, and that is the expectation; of equal rows, n or more, none is drawn twice.
    """
    order = torch.from_numpy(rng.permutation(len(weights)))
    ends = weights[order].double().cumsum(0)
    points = (torch.arange(n, dtype=torch.float64) + rng.random()) * (ends[-1] / n)
    places = torch.searchsorted(ends, points, right=True).clamp(max=len(weights) - 1)
    return order[places].bincount(minlength=len(weights)).float()


def of_subset(found: Query, rows: Tensor, n_pool: int, facts: dict[str, Any]) -> Query:
    """Return a query among some rows, see `subset`, as one among all of the pool, of which candidates alone have a score."""
    assert found.pool_scores is not None
    at_first = torch.full((n_pool,), torch.nan, device=rows.device)
    at_first[rows[: facts["candidates"]]] = found.pool_scores.float()
    return replace(found, rows=rows[found.rows], pool_scores=at_first, approximation=facts)


def n_targets(ctx: SelectionContext) -> int:
    """Return the number of targets of a subset: `TARGETS` for each labeled row and pick, at most `MOST_TARGETS`."""
    return min(TARGETS * (len(ctx.labels) + ctx.n_query), MOST_TARGETS, len(ctx.unlabeled_features))


def subset(ctx: SelectionContext, targets: Tensor | None = None) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Return random rows without a label [n], the candidates first, with the places of the targets among them, and facts.

    `targets` [T], ascending, are random ones too unless they are given.
    """
    n_rows = len(ctx.unlabeled_features)
    n_candidates = min(max(CANDIDATES, ctx.n_query), ctx.n_pool)
    candidates = ctx.permutation(ctx.n_pool)[:n_candidates].sort().values
    targets = ctx.permutation(n_rows)[: n_targets(ctx)].sort().values if targets is None else targets
    place = torch.full((n_rows,), -1, device=ctx.device)
    place[candidates] = torch.arange(n_candidates, device=ctx.device)
    others = targets[place[targets] < 0]
    place[others] = torch.arange(n_candidates, n_candidates + len(others), device=ctx.device)
    facts = {"index": "subset", "candidates": n_candidates, "targets": len(targets)}
    return torch.cat([candidates, others]), place[targets], facts


def mass_radius(features: Tensor, n_balls: int, rng: np.random.Generator) -> float:
    """Return the median, over at most `SAMPLE` of unit rows [N, D], of the distance at which a ball holds its share of them.

    Its share is 1 / `n_balls` of all, and at least the nearest other row. 1 where that distance is 0, as with copies alone.
    """
    features = unit_rows(features)
    rank = min(len(features), max(2, math.ceil(len(features) / n_balls)))  # the first is the row itself
    sample = features[torch.from_numpy(rng.permutation(len(features))[:SAMPLE]).to(features.device).sort().values]
    distances = torch.cat([(2 - 2 * pair_products(sample[block], features)).kthvalue(rank, dim=1).values
                           for block in row_blocks(len(sample), len(features))])
    median = float(distances.median())
    return math.sqrt(median) if median > ROUNDING else 1.0
