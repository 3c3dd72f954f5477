"""TypiClust against hand-solved cases and plain Python."""

import math
from dataclasses import replace

import torch

from active.registry import SAMPLERS
from active.selection import select
from active.testing import make_context, sampler_by_name, small_pools, without_labels
from tests.active.samplers import plain


def _circle(*degrees: float) -> torch.Tensor:
    radians = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([radians.cos(), radians.sin()], 1)


def _plain(ctx, rng, n_neighbors=20, max_clusters=500, min_size=5, distance="plain") -> list[int]:
    """Cluster all rows; visit the clusters in turn and take the row of smallest mean distance, or mean squared distance."""
    points = ctx.features.double().tolist() + ctx.labeled_features.double().tolist()
    n, picked = ctx.n_pool, []
    _, labels = plain.k_means(points, min(len(ctx.labels) + ctx.n_query, max_clusters), rng)
    clusters = sorted(set(labels), key=lambda c: (labels[n:].count(c), -labels.count(c), c))
    for group in ([c for c in clusters if labels.count(c) > min_size], [c for c in clusters if labels.count(c) <= min_size]):
        while len(picked) < ctx.n_query and any(labels[row] in group and row not in picked for row in range(n)):
            for cluster in group:
                mine = [row for row in range(n) if labels[row] == cluster and row not in picked]
                if mine and len(picked) < ctx.n_query:
                    means = []
                    for row in mine:
                        gaps = sorted(plain.squared_distance(points[row], points[other])
                                      for other in mine if other != row)[: min(n_neighbors, len(mine) // 2)]
                        gaps = gaps if distance == "squared" else [math.sqrt(gap) for gap in gaps]
                        means.append(sum(gaps) / max(1, len(gaps)))
                    picked.append(next(row for row, mean in zip(mine, means, strict=True) if mean <= min(means) + 1e-9))
    return picked


def test_equals_plain_python():
    """The picks on 200 pools, with and without labels and with several sizes of neighborhood and cluster."""
    for seed, ctx in enumerate(small_pools(200, n_labeled=4)):
        ctx = replace(without_labels(ctx) if seed % 2 else ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        options = {"n_neighbors": (1, 3, 20)[seed % 3], "max_clusters": (2, 5, 500)[seed // 3 % 3],
                   "distance": ("plain", "squared")[seed // 2 % 2]}
        if ctx.n_query:
            sampler = sampler_by_name("typiclust", **options)
            rows = select(sampler, replace(ctx, rng=plain.fresh(seed))).rows.tolist()
            assert rows == _plain(ctx, plain.fresh(seed), **options), seed


A, B = (0, 6, 9, 10, 11, 16, 20), (180, 181, 185, 186, 187, 191)


def test_two_clusters_solved_by_hand():
    """Two nearest neighbors: 10 has both at 1 degree, 186 too; the larger cluster is visited first."""
    ctx = make_context(n_pool=13, n_labeled=1, width=2, n_query=2)
    ctx = replace(without_labels(ctx), features=_circle(*A, *B))
    assert select(sampler_by_name("typiclust", n_neighbors=2), ctx).rows.tolist() == [3, 10]


def test_mean_distance_and_mean_squared_distance_differ_by_hand():
    """Row 1 has neighbors at 1.5 and 5.5 degrees, row 4 two at 4: 7 against 8 together, squared 32.5 against 32."""
    ctx = without_labels(make_context(n_pool=6, n_labeled=1, width=2, n_query=1))
    ctx = replace(ctx, features=_circle(0, 1.5, 7, 40, 44, 48))
    rows = [select(sampler_by_name("typiclust", n_neighbors=2, max_clusters=1, distance=distance), ctx).rows.tolist()
            for distance in ("plain", "squared")]
    assert rows == [[1], [4]]


def test_a_cluster_with_a_label_is_visited_later():
    """With a label in the larger cluster the smaller one comes first, and then the larger one again."""
    ctx = make_context(n_pool=13, n_labeled=1, width=2, n_query=1)
    ctx = replace(ctx, features=_circle(*A, *B), labeled_features=_circle(10.0))
    assert select(sampler_by_name("typiclust", n_neighbors=2), ctx).rows.tolist() == [10]
    two = select(sampler_by_name("typiclust", n_neighbors=2, max_clusters=2), replace(ctx, n_query=2)).rows.tolist()
    assert two == [10, 3]


def test_small_clusters_come_last():
    """Five rows at 180 degrees are not visited although they have no label, until the other seven are used up."""
    ctx = replace(without_labels(make_context(n_pool=12, n_labeled=1, width=2)), features=_circle(*A, *B[:5]))
    sampler = sampler_by_name("typiclust", max_clusters=2, n_neighbors=2)
    rows = select(sampler, replace(ctx, n_query=9)).rows.tolist()
    assert set(rows[:7]) == set(range(7))
    assert set(rows[7:]) < set(range(7, 12))
    assert set(select(sampler_by_name("typiclust", max_clusters=2, min_cluster_size=4), replace(ctx, n_query=2)).rows.tolist()
               ) & set(range(7, 12))


def test_starts_cold():
    """It was made for the first round, so it selects in round 0 itself."""
    assert not SAMPLERS["typiclust"].facts.get("needs_labels")
