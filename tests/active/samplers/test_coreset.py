"""Core-set against hand and a plain greedy k-center."""

from dataclasses import replace

import pytest
import torch

from active.registry import SAMPLERS
from active.selection import select
from active.testing import make_context, sampler_by_name, small_pools, without_labels
from tests.active.samplers import plain


def _angles(*degrees: float) -> torch.Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], 1)


def test_four_points_on_a_circle_solved_by_hand():
    """Labeled at 0 degrees: 170 is farthest, then 80 (80 from 0, 90 from 170), then 10 before 165."""
    ctx = make_context(n_pool=5, n_labeled=1, width=2, n_query=4)
    ctx = replace(ctx, features=_angles(10, 80, 165, 170, 5), labeled_features=_angles(0))
    assert select(sampler_by_name("coreset"), ctx).rows.tolist() == [3, 1, 0, 2]


def test_equals_plain_python():
    """Greedy k-center with Euclidean distances recomputed at every pick, on 200 pools."""
    for ctx in small_pools():
        if ctx.n_query >= ctx.n_pool:
            continue
        points, centers, expected = ctx.features.double().tolist(), ctx.labeled_features.double().tolist(), []
        for _ in range(ctx.n_query):
            gaps = [-1.0 if row in expected else min(plain.squared_distance(x, y) for y in centers)
                    for row, x in enumerate(points)]
            expected.append(gaps.index(max(gaps)))
            centers.append(points[expected[-1]])
        assert select(sampler_by_name("coreset"), ctx).rows.tolist() == expected


def test_without_labels_the_first_pick_is_random_and_the_rest_is_not():
    """Two streams that begin with the same row go on alike, and not every stream begins with the same row."""
    ctx = without_labels(make_context(n_pool=6, n_query=3))
    by_first = {}
    for seed in range(40):
        first, *rest = select(sampler_by_name("coreset"), replace(ctx, rng=plain.fresh(seed))).rows.tolist()
        assert by_first.setdefault(first, rest) == rest
    assert len(by_first) == 6


def test_without_labels_it_may_begin_with_the_medoid():
    """Of 0, 10, 80 and 100 degrees, 80 is nearest to the mean; then 0 is farther from it than 100."""
    ctx = without_labels(make_context(n_pool=4, n_labeled=1, width=2, n_query=2))
    ctx = replace(ctx, features=_angles(0, 10, 80, 100))
    for seed in range(5):
        rows = select(sampler_by_name("coreset", start="medoid"), replace(ctx, rng=plain.fresh(seed))).rows
        assert rows.tolist() == [2, 0]


def test_the_paper_begins_at_random():
    """`ACTIVE.INITIAL_SAMPLER: auto` takes `random` for it."""
    assert SAMPLERS["coreset"].facts["needs_labels"] is True


@pytest.mark.parametrize("n_query", [5, 9])
def test_points_already_labeled_are_asked_last(n_query):
    """A pool row that equals a labeled one has distance 0."""
    ctx = make_context(n_pool=10, n_labeled=1, n_query=n_query)
    ctx = replace(ctx, labeled_features=ctx.features[[4]])
    assert 4 not in select(sampler_by_name("coreset"), ctx).rows.tolist()
