"""DCoM: rows whose balls cover most of what labels do not cover yet, and, the more these cover, uncertain ones instead.

Source: Mishal and Weinshall, "DCoM: Active Learning for All Learners", 2024 (arXiv 2407.01804). Label j has the largest ball,
of radius at most `max_radius`, of which a share tau of the predictions is y_j; tau = 0.4 + 0.2 cov, cov the share of images
in such balls. With the competence S = (1 + exp(-k (1 - b))) / (1 + exp(-k (cov - b))), k = `steepness`, b = `coverage`, each
pick is

    argmax_i S u_i + (1 - S) deg_i (1),

u_i = 1 - (p(1) - p(2)), deg_i the images within the mean radius of labels that no ball holds, both scaled to [0, 1] over the
pool; its own ball of that radius is covered then. S is nearly a switch: ProbCover until cov is about 0.8, then margin. A first
round without labels is ProbCover's, with this sampler's `max_pool` and `exact`.
Above `max_pool` images, with `exact: false`, candidates are random ones and deg counts random images, as `maxherding` does.
Ours: all radii are of the current predictions, so that nothing is carried from round to round; the cov of tau is that of balls
with a tau of 0.4; `max_radius` is where a ball holds one in C images (`max_radius: 0`), 1.1 in the paper.
What the authors' code gets wrong: the last images of the pool, n mod 700, get no neighbors; bisection stops within 0.05 of a
radius, as if purity only fell, so that about half of the balls are less pure than tau; radii are rounded to 0.01. Here they
are exact, cosines being rounded to 1e-6, so that copies lie in the same balls. Equal values go to the lowest id (there the
highest).
"""

import math
from typing import Annotated

import torch
from torch import Tensor
from tqdm import tqdm

from active.context import Query, SelectionContext
from active.kernels.herding import mass_radius, subset
from active.kernels.memory import compares_all
from active.kernels.neighbors import TILE
from active.kernels.scores import lowest_of_largest, row_blocks, smallness_of_margin
from active.registry import SAMPLERS
from active.samplers.probcover import by_balls
from dassl.utils.large import unit_rows
from dassl.utils.linear import pair_products
from dassl.utils.progress import BAR
from dassl.utils.registry import AtLeast, AtMost

LOWEST, RISE = 0.4, 0.2  # purity of balls where nothing is covered, and what is added where all is
DECIMALS = 6  # of cosines


@SAMPLERS.register("dcom")
def dcom(
    ctx: SelectionContext, *, max_radius: Annotated[float, AtLeast(0), AtMost(2)] = 0.0,
    steepness: Annotated[float, AtLeast(1e-6), AtMost(1e6)] = 50.0, coverage: Annotated[float, AtLeast(0), AtMost(1)] = 0.8,
    max_pool: Annotated[int, AtLeast(1), AtMost(10**9)] = 200_000, exact: bool = False,
) -> Query:
    """Return `n_query` pool rows by (1)."""
    is_exact = compares_all("dcom", tuple(ctx.features.shape), max_pool, exact=exact)
    if not len(ctx.labels):
        return by_balls(ctx, is_exact=is_exact)
    cap = max_radius or mass_radius(ctx.unlabeled_features, ctx.n_classes, ctx.rng)
    _, covered = label_balls(ctx, cap, LOWEST)
    radii, covered = label_balls(ctx, cap, LOWEST + RISE * float(covered.double().mean()))
    own = competence(float(covered.double().mean()), steepness, coverage)
    uncovered = ~covered[: len(ctx.unlabeled_features)]
    return (by_both if is_exact else by_both_of_some)(ctx, own, float(radii.mean()), uncovered)


def competence(covered: float, steepness: float, coverage: float) -> float:
    """Return S of a share that is covered: 1 where that is all."""
    powers = [-steepness * (share - coverage) for share in (1.0, covered)]
    return math.exp(_softplus(powers[0]) - _softplus(powers[1]))


def label_balls(ctx: SelectionContext, cap: float, purity: float) -> tuple[Tensor, Tensor]:
    """Return the radii [M] of labels' balls, float64, and whether one of them holds an image [N + S + M], labeled ones last."""
    rows = torch.cat([unit_rows(ctx.unlabeled_features), ctx.labeled_features.float()])
    predicted = torch.cat([ctx.unlabeled_logits.argmax(1), ctx.labeled_logits.argmax(1)])
    radii, covered = [], torch.zeros(len(rows), dtype=torch.bool, device=ctx.device)
    for block in row_blocks(len(ctx.labels), len(rows)):
        cosines = pair_products(ctx.labeled_features[block].float(), rows).round(decimals=DECIMALS)
        for own, label in zip(cosines, ctx.labels[block], strict=True):
            radius, least = pure_ball(own, predicted == label, cap, purity)
            radii.append(radius)
            covered |= own >= least
    return torch.tensor(radii, dtype=torch.float64), covered


def pure_ball(cosines: Tensor, is_own: Tensor, cap: float, purity: float) -> tuple[float, float]:
    """Return radius and least cosine of the largest ball within a cap of which a share `purity` is its own; 0 and 2 for none.

    Candidates are the distances to rows [N], and the cap.
    """
    inside = (cosines >= 1 - cap**2 / 2).nonzero().flatten()
    order = inside[cosines[inside].argsort(descending=True, stable=True)]
    ordered, n_own = cosines[order], is_own[order].cumsum(0)
    is_last = torch.ones_like(order, dtype=torch.bool)  # the last row of those at its distance
    is_last[:-1] = ordered.diff() < 0
    n_all = torch.arange(1, len(order) + 1, dtype=torch.float64, device=order.device)
    least_own = purity * n_all - 1e-9  # in floats 0.4 + 0.2 is above 0.6
    pure = (is_last & (n_own >= least_own)).nonzero().flatten()
    if not len(pure):
        return 0.0, 2.0
    least = float(ordered[pure[-1]])
    return (cap if pure[-1] == len(order) - 1 else math.sqrt(max(2 - 2 * least, 0.0))), least


def by_both(ctx: SelectionContext, own: float, radius: float, uncovered: Tensor) -> Query:
    """Return rows by (1), given S, the radius of new balls and which images without a label [N + S] no ball holds."""
    features = unit_rows(ctx.unlabeled_features)
    uncertainty = own * scaled(smallness_of_margin(ctx.logits))
    picked, values, at_first = greedy(
        ctx.n_query, features[: ctx.n_pool], features, (uncertainty, 1 - own), (radius, uncovered))
    return Query(picked, scores=values, pool_scores=at_first)


def by_both_of_some(ctx: SelectionContext, own: float, radius: float, uncovered: Tensor) -> Query:
    """Return rows as `by_both` does, out of random candidates, whose balls hold random images: see `subset`."""
    rows, targets, facts = subset(ctx)
    features, candidates = unit_rows(ctx.unlabeled_features[rows]), rows[: facts["candidates"]]
    uncertainty = own * scaled(smallness_of_margin(ctx.logits))[candidates]
    picked, values, at_first = greedy(ctx.n_query, features[: len(candidates)], features[targets], (uncertainty, 1 - own),
                                      (radius, uncovered[rows[targets]]))
    at_first = at_first.new_full((ctx.n_pool,), torch.nan).index_copy_(0, candidates, at_first)
    return Query(candidates[picked], scores=values, pool_scores=at_first, approximation=facts)


def greedy(
    n: int, pool: Tensor, targets: Tensor, by: tuple[Tensor, float], balls: tuple[float, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of the pool [n], their values, and those of all at first.

    `by` is the first term of (1) and the factor of the second, `balls` their radius and which targets no ball holds yet.
    """
    (uncertainty, share), (radius, uncovered) = by, balls
    threshold, picked, values, at_first = 1 - radius**2 / 2 - 10**-DECIMALS, [], [], torch.empty(0)
    degrees, free = n_within(pool, targets[uncovered], threshold), torch.ones_like(uncertainty, dtype=torch.bool)
    for _ in tqdm(range(n), "DCoM", **BAR):
        scores = uncertainty + share * scaled(degrees)
        at_first = at_first if picked else scores
        scores = scores.where(free, -torch.inf)
        picked.append(lowest_of_largest(scores))
        free[picked[-1]] = False
        values.append(scores[picked[-1]].clone())  # a view would keep the whole alive
        ball = (targets @ pool[picked[-1]] > threshold) & uncovered
        degrees -= n_within(pool, targets[ball], threshold)
        uncovered = uncovered & ~ball
    return torch.tensor(picked, dtype=torch.int64, device=pool.device), torch.stack(values).float(), at_first


def n_within(rows: Tensor, others: Tensor, threshold: float) -> Tensor:
    """Return to how many others each row [N] has a cosine above the threshold, float64."""
    counts = rows.new_zeros(len(rows), dtype=torch.float64)
    for block in row_blocks(len(rows), TILE):
        for part in others.split(TILE):
            counts[block] += pair_products(rows[block], part).gt_(threshold).sum(1)
    return counts


def scaled(values: Tensor) -> Tensor:
    """Return values [N] from 0 to 1, in float64; all 0 where they are equal."""
    values = values.double()
    return (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)


def _softplus(power: float) -> float:
    return max(power, 0.0) + math.log1p(math.exp(-abs(power)))
