"""ProbCover: rows whose balls of radius delta cover most rows that no ball covers yet.

Source: Yehuda, Dekel, Hacohen and Weinshall, "Active Learning Through a Covering Lens", NeurIPS 2022, Algorithm 1 and
Section 3.2: delta is the largest radius at which a share `purity` of all balls holds one pseudo-label only, the pseudo-labels
being k-means clusters, as many as classes. A ball is pure up to the distance of the nearest row of another cluster, so delta
is a quantile of these distances: exact, where the authors search a grid. `delta` above 0 sets the radius instead.
The graph of all pairs closer than delta is never stored: balls are counted block by block, and rows that are covered are taken
off the balls around them, so memory is O(N D).
Differences from the authors' code: the above; once all rows are covered, the rest is picked farthest first (there: the first
row, again and again); delta is estimated in every round, on pool and labeled rows, from features of the image tower; cosines
within 1e-6 of the estimated radius are outside. A first round without labels is the paper's own.
The pool is taken in random order, which decides between balls of equal size: once the dense parts are covered most balls
hold one row, and the lowest ids are the first classes where files are sorted (`benchmarks/real_features.md`).
"""

from typing import Annotated

import torch

from active.context import Query, SelectionContext
from active.kernels.coverage import UncoveredBalls, pure_cosine
from active.kernels.k_center import k_center
from active.kernels.k_means import k_means
from active.kernels.memory import need_pairs
from active.kernels.scores import row_blocks, without
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("probcover")
def probcover(
    ctx: SelectionContext, *, delta: Annotated[float, AtLeast(0), AtMost(2)] = 0.0,
    purity: Annotated[float, AtLeast(0), AtMost(1)] = 0.95, max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000,
) -> Query:
    """Return `n_query` pool rows, each covering the most uncovered pool rows; ties in random order."""
    need_pairs("probcover", ctx.n_pool, ctx.features.shape[1], max_pool)
    order = torch.from_numpy(ctx.rng.permutation(ctx.n_pool))
    skipped = ctx.unlabeled_features[ctx.n_pool :]
    features, labeled = torch.cat([ctx.features[order], skipped]).float(), ctx.labeled_features.float()
    everything = torch.cat([features, labeled])
    threshold = 1 - delta**2 / 2 if delta else pure_cosine(everything, k_means(everything, ctx.n_classes, ctx.rng)[1], purity)
    balls = UncoveredBalls(features, threshold, ctx.n_pool)
    uncovered = torch.ones(len(features), dtype=torch.bool)
    for block in row_blocks(len(labeled), len(features)):
        uncovered &= ~(features @ labeled[block].T > threshold).any(1)
    balls.cover((~uncovered).nonzero().flatten())
    picked: list[int] = []
    sizes: list[float] = []
    while len(picked) < ctx.n_query and bool(uncovered.any()):
        row = balls.take_largest()
        ball = features @ features[row] > threshold
        ball[row] = True
        covered = ball & uncovered
        if len(skipped) and not covered.any():  # no candidate reaches what is left
            break
        picked.append(row)
        sizes.append(float(covered.sum()))
        balls.cover(covered.nonzero().flatten())
        uncovered &= ~ball
    covering = torch.tensor(picked, dtype=torch.int64)
    rest, centers = without(covering, ctx.n_pool), torch.cat([features[covering], labeled])
    rows = order[torch.cat([covering, rest[k_center(features[rest], centers, ctx.n_query - len(picked))]])]
    return Query(rows, scores=torch.tensor(sizes + [0.0] * (len(rows) - len(sizes))))
