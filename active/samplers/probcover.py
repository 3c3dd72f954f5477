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
Above `max_pool` images, with `exact: false`, balls and the radius are those of neighbor lists (`active.kernels.listed_balls`),
and clusters are of all images of the train split, the same in all rounds.
The pool is taken in random order, which decides between balls of equal size: once the dense parts are covered most balls
hold one row, and the lowest ids are the first classes where files are sorted (`benchmarks/real_features.md`).
"""

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.coverage import UncoveredBalls, pure_cosine
from active.kernels.k_center import k_center
from active.kernels.k_means import k_means
from active.kernels.listed_balls import ListedBalls, listed_pure_cosine
from active.kernels.memory import compares_all
from active.kernels.pool_lists import among, whole_split
from active.kernels.scores import row_blocks, without
from active.registry import SAMPLERS
from dassl.utils.linear import pair_products
from dassl.utils.registry import AtLeast, AtMost

PURITY = 0.95


@SAMPLERS.register("probcover")
def probcover(
    ctx: SelectionContext, *, delta: Annotated[float, AtLeast(0), AtMost(2)] = 0.0,
    purity: Annotated[float, AtLeast(0), AtMost(1)] = PURITY, max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000,
    exact: bool = False,
) -> Query:
    """Return `n_query` pool rows, each covering the most uncovered pool rows; ties in random order."""
    is_exact = compares_all("probcover", tuple(ctx.features.shape), max_pool, exact=exact)
    return by_balls(ctx, delta, purity, is_exact=is_exact)


def by_balls(ctx: SelectionContext, delta: float = 0.0, purity: float = PURITY, *, is_exact: bool) -> Query:
    """Return the picks: from all pairs compared if `is_exact`, else from neighbor lists."""
    order = ctx.permutation(ctx.n_pool)
    return (compared if is_exact else listed)(ctx, order, delta, purity)


def compared(ctx: SelectionContext, order: Tensor, delta: float, purity: float) -> Query:
    """Return picks of the pool taken in some order [N], all pairs compared."""
    skipped = ctx.unlabeled_features[ctx.n_pool :]
    features, labeled = torch.cat([ctx.features[order], skipped]).float(), ctx.labeled_features.float()
    everything = torch.cat([features, labeled])
    threshold = 1 - delta**2 / 2 if delta else pure_cosine(everything, k_means(everything, ctx.n_classes, ctx.rng)[1], purity)
    uncovered = torch.ones(len(features), dtype=torch.bool, device=ctx.device)
    for block in row_blocks(len(labeled), len(features)):
        uncovered &= ~(pair_products(features, labeled[block]) > threshold).any(1)
    picked, sizes = covering(ctx, UncoveredBalls(features, threshold, ctx.n_pool), uncovered)
    return with_farthest(ctx, order, picked, sizes)


def listed(ctx: SelectionContext, order: Tensor, delta: float, purity: float) -> Query:
    """Return picks of the pool taken in some order [N], by neighbor lists."""
    relations, rows = whole_split(ctx, torch.cat([ctx.unlabeled_features, ctx.labeled_features])
                                  if ctx.relations is None else ctx.unlabeled_features)
    lists = relations.neighbors(0, device=ctx.device)
    threshold = 1 - delta**2 / 2 if delta else listed_pure_cosine(
        lists, relations.clusters(ctx.n_classes).to(ctx.device), purity)
    places = torch.cat([order, torch.arange(ctx.n_pool, len(ctx.unlabeled_features), device=ctx.device)])
    balls = ListedBalls(among(lists, rows[places], lists.rows.shape[1]), threshold, ctx.n_pool)
    labeled, uncovered = ctx.labeled_features.float(), torch.ones(len(places), dtype=torch.bool, device=ctx.device)
    for block in row_blocks(len(places), max(len(labeled), labeled.shape[1])):
        uncovered[block] = ~(pair_products(ctx.unlabeled_features[places[block]].float(), labeled) > threshold).any(1)
    query = with_farthest(ctx, order, *covering(ctx, balls, uncovered))
    return replace(query, approximation=lists.facts | {"cosine": round(threshold, 6), "balls_cut": round(balls.cut, 4)})


def covering(
    ctx: SelectionContext, balls: UncoveredBalls | ListedBalls, uncovered: Tensor
) -> tuple[list[int], list[float]]:
    """Return at most `n_query` rows, each the one whose ball covers most, and how many; `uncovered` [N + S] is used up."""
    balls.cover((~uncovered).nonzero().flatten())
    picked: list[int] = []
    sizes: list[float] = []
    while len(picked) < ctx.n_query and bool(uncovered.any()):
        row = balls.take_largest()
        ball = balls.ball(row)
        covered = ball[uncovered[ball]]
        if not len(covered) and len(uncovered) > ctx.n_pool:  # no candidate reaches what is left: skipped images
            break
        picked.append(row)
        sizes.append(float(len(covered)))
        balls.cover(covered)
        uncovered[covered] = False
    return picked, sizes


def with_farthest(ctx: SelectionContext, order: Tensor, picked: list[int], sizes: list[float]) -> Query:
    """Return the picks, places in `order`, and farthest first as many others as are still asked for."""
    n_more, places = ctx.n_query - len(picked), torch.tensor(picked, dtype=torch.int64, device=order.device)
    rows = order[places]
    if n_more:
        rest = order[without(places, ctx.n_pool)]
        centers = torch.cat([ctx.features[rows].float(), ctx.labeled_features.float()])
        rows = torch.cat([rows, rest[k_center(ctx.features[rest], centers, n_more)]])
    return Query(rows, scores=torch.tensor(sizes + [0.0] * n_more))
