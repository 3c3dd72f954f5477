"""ProbCover against hand-solved cases and a plain Python graph."""

import bisect
import math
from dataclasses import replace

import pytest
import torch

import active.kernels.coverage as coverage
import active.kernels.neighbor_lists as listing
import active.kernels.neighbors as pairs
from active.kernels.coverage import UncoveredBalls, ball_sizes, pure_cosine
from active.registry import SAMPLERS
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels
from dassl.utils.errors import UserError
from tests.active.samplers import plain

SPAN = 2 * math.sin(math.radians(20.1) / 2)  # the chord of 20.1 degrees


def _circle(*degrees: float) -> torch.Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], 1)


def _chords(points) -> list[list[float]]:
    return [[math.sqrt(plain.squared_distance(x, y)) for y in points] for x in points]


def _purity(chords, labels, delta) -> float:
    """The share of balls of radius delta in which every row has the label of the center, by the distances of all pairs."""
    pure = [all(other == own for other, gap in zip(labels, gaps, strict=True) if gap < delta)
            for own, gaps in zip(labels, chords, strict=True)]
    return sum(pure) / len(labels)


def _plain(ctx, rng, purity=0.95, delta=0.0) -> list[int]:
    """Shuffle, try every distance as the radius, store the graph as sets, pick by coverage, then farthest first."""
    order = rng.permutation(ctx.n_pool).tolist()
    pool, labeled = ctx.features[order].double().tolist(), ctx.labeled_features.double().tolist()
    threshold = 1 - delta**2 / 2
    if not delta:
        points = pool + labeled
        _, labels = plain.k_means(points, ctx.n_classes, rng)
        chords = _chords(points)
        radii = sorted({gap for i, gaps in enumerate(chords) for gap in gaps[:i]} | {10.0})
        place = bisect.bisect(radii, 1e-9 - purity, key=lambda radius: -_purity(chords, labels, radius))  # purity falls
        threshold = 1 - radii[place - 1] ** 2 / 2 + 1e-6
    balls = [{j for j, y in enumerate(pool) if i == j or plain.dot(x, y) > threshold} for i, x in enumerate(pool)]
    left = {i for i, x in enumerate(pool) if not any(plain.dot(x, y) > threshold for y in labeled)}
    picked = []
    while left and len(picked) < ctx.n_query:
        sizes = [len(ball & left) for ball in balls]
        picked.append(sizes.index(max(sizes)))
        left -= balls[picked[-1]]
    while len(picked) < ctx.n_query:
        centers = [pool[row] for row in picked] + labeled
        gaps = [-1.0 if row in picked else min(plain.squared_distance(x, y) for y in centers) for row, x in enumerate(pool)]
        picked.append(gaps.index(max(gaps)))
    return [order[row] for row in picked]


@pytest.mark.parametrize("delta", [0.0, 0.4])
def test_equals_plain_python(delta):
    """The picks on 200 pools with the estimated radius, and with a given one."""
    for seed, ctx in enumerate(small_pools(200)):
        ctx = replace(without_labels(ctx) if seed % 4 == 0 else ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        purity = (0.95, 0.8, 1.0)[seed % 3]
        if ctx.n_query:
            sampler = sampler_by_name("probcover", purity=purity, delta=delta)
            rows = select(sampler, replace(ctx, rng=plain.fresh(seed))).rows.tolist()
            assert rows == _plain(ctx, plain.fresh(seed), purity, delta), seed


def test_four_picks_solved_by_hand():
    """20 degrees around: 10 covers 0, 10, 25, 30; then 90 covers 75, 90, 105; then 180 itself; then 30 is farthest."""
    ctx = make_context(n_pool=8, n_labeled=1, width=2, n_query=4)
    ctx = replace(without_labels(ctx), features=_circle(0, 10, 25, 30, 75, 90, 105, 180))
    assert select(sampler_by_name("probcover", delta=SPAN), ctx).rows.tolist() == [1, 5, 7, 3]
    labeled = replace(ctx, labeled_features=_circle(95), labels=torch.tensor([0]), labeled_ids=ctx.ids.max()[None] + 1)
    labeled = replace(labeled, labeled_logits=ctx.logits[:1])
    assert select(sampler_by_name("probcover", delta=SPAN), replace(labeled, n_query=2)).rows.tolist() == [1, 7]


def test_the_radius_is_the_largest_pure_enough():
    """At the radius the purity is at least the one asked for, and a little above it is not."""
    for seed, ctx in enumerate(small_pools(50)):
        points = ctx.features.double().tolist()
        _, labels = plain.k_means(points, 3, plain.fresh(seed))
        if len(set(labels)) > 1:
            chords = _chords(points)
            for purity in (0.6, 0.95):
                radius = math.sqrt(max(0.0, 2 - 2 * pure_cosine(ctx.features, torch.tensor(labels), purity)))
                assert _purity(chords, labels, radius) >= purity - 1e-9
                assert _purity(chords, labels, math.sqrt(radius**2 + 1e-5)) < purity


def test_one_cluster_is_pure_at_any_radius():
    """Then the first pick covers all, and the rest is picked farthest first."""
    assert pure_cosine(_circle(0, 90, 180), torch.zeros(3, dtype=torch.int64), 0.95) == -math.inf


def test_ball_sizes_do_not_depend_on_the_tiles(monkeypatch):
    """Tiles of 7 rows give the counts of the whole matrix, a row always in its own ball."""
    points = make_context(n_pool=30, width=3).features
    expected = (points @ points.T > 0.6).fill_diagonal_(True).sum(1)
    for tile in (7, 1024):
        monkeypatch.setattr(pairs, "TILE", tile)
        assert torch.equal(ball_sizes(points, 0.6), expected)
    assert ball_sizes(points, 1.5).tolist() == [1] * 30


@pytest.mark.parametrize(("recounted", "tile"), [(1, 1), (3, 50), (1, 4), (256, 1024)])
def test_the_largest_ball_is_that_of_a_full_count(recounted, tile, monkeypatch):
    """However few balls are counted anew and however many rows wait: the lowest row of the largest count of uncovered rows."""
    monkeypatch.setattr(coverage, "RECOUNTED", recounted)
    monkeypatch.setattr(coverage, "TILE", tile)
    for seed in range(20):
        points = make_context(seed, n_pool=40, width=3).features
        holds = (points @ points.T > 0.8).fill_diagonal_(True)
        balls, uncovered = UncoveredBalls(points, 0.8), torch.ones(40, dtype=torch.bool)
        while uncovered.any():
            row = balls.take_largest()
            assert row == int((holds & uncovered).sum(1).argmax())
            balls.cover((holds[row] & uncovered).nonzero().flatten())
            uncovered &= ~holds[row]


def test_no_ball_is_taken_twice():
    """This holds even if rounding left the ball as large as before: covered rows that no count saw are removed."""
    balls = UncoveredBalls(make_context(n_pool=9, width=3).features, 0.8)
    assert sorted(balls.take_largest() for _ in range(9)) == list(range(9))


def test_the_radius_does_not_depend_on_the_tiles(monkeypatch):
    """Tiles of 7 rows see the same rows of other clusters as one tile."""
    points, clusters = make_context(n_pool=30, width=3).features, torch.arange(30) % 4
    whole = {purity: pure_cosine(points, clusters, purity) for purity in (0.2, 0.5, 0.9, 1.0)}
    monkeypatch.setattr(pairs, "TILE", 7)
    for purity, cosine in whole.items():
        assert pure_cosine(points, clusters, purity) == pytest.approx(cosine, abs=1e-6)


def test_a_radius_below_rounding_covers_one_row_at_a_time():
    """A row's own cosine may round below the threshold; it still covers itself, so rows are asked one by one, each once."""
    ctx = without_labels(make_context(n_query=9))
    assert len(set(select(sampler_by_name("probcover", delta=1e-6), ctx).rows.tolist())) == 9


def test_equal_balls_come_in_an_order_in_which_ids_have_no_part():
    """If every ball holds one row, the pick is random. The lowest ids would not do, as files sort them by class."""
    ctx = without_labels(make_context(n_query=9))
    for seed in range(5):
        rows = select(sampler_by_name("probcover", delta=1e-6), replace(ctx, rng=plain.fresh(seed))).rows.tolist()
        assert rows == plain.fresh(seed).permutation(ctx.n_pool)[:9].tolist()


def test_starts_cold():
    """It was made for the first round, so it selects in round 0 itself."""
    assert not SAMPLERS["probcover"].facts.get("needs_labels")


def test_a_pool_above_max_pool_is_refused_with_the_arithmetic():
    """This happens before anything is computed. The error names the key that raises the limit."""
    with pytest.raises(UserError, match=r"all pairs of 70 images.*GiB.*ACTIVE\.PROBCOVER\.MAX_POOL, now 69"):
        picks(sampler_by_name("probcover", max_pool=69, exact=True), make_context())


def test_a_ball_is_open():
    """A row whose cosine equals the threshold is outside. A row is always in its own ball."""
    features = torch.tensor([[1.0, 0.0], [0.5, 0.75 ** 0.5], [0.5, -0.75 ** 0.5]])
    assert ball_sizes(features, 0.5).tolist() == [1, 1, 1]
    assert ball_sizes(features, 0.49).tolist() == [3, 2, 2]


def test_a_covered_row_leaves_its_own_ball_however_its_cosine_is_rounded():
    """At a threshold of 1 a ball holds its own row alone; once that is covered, another ball is larger."""
    balls = UncoveredBalls(torch.eye(3), 1.0)
    balls.cover(torch.tensor([0]))
    assert [balls.take_largest(), balls.take_largest()] == [1, 2]


@pytest.mark.parametrize("name", ["probcover", "dcom"])
@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_pure_lists_leave_balls_that_cover_a_part(monkeypatch, name, n_classes, spread):
    """Few classes in a large pool: all 32 neighbors of nearly all images are of their own cluster. So are those of copies.

    The radius is finite, as records take no other number, and the first ball does not cover everything.
    """
    monkeypatch.setattr(listing, "CHECKED", 60)
    ctx = without_labels(make_context(n_pool=600, n_classes=n_classes, width=16, n_query=8))
    rows = torch.eye(16)[torch.arange(600) % n_classes] + spread * ctx.features
    query = select(sampler_by_name(name, max_pool=100), replace(ctx, features=torch.nn.functional.normalize(rows, dim=1)))
    assert math.isfinite(query.approximation["cosine"]) and (query.scores >= 1).all() and query.scores[0] < 600 / n_classes
