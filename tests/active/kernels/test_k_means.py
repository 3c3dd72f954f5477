"""K-means against hand-solved cases, slow references and the laws that it promises."""


import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

import active.kernels.k_means as clustering
from active.kernels.k_means import k_means, k_means_seeds, lloyd, nearest_members
from active.testing import make_context, small_pools
from tests.active.kernels.points import unit
from tests.active.samplers import plain


def test_k_means_equals_plain_python():
    """Seeds, Lloyd's steps and the assignment, on 200 pools with random weights."""
    for seed, ctx in enumerate(small_pools()):
        weights = torch.from_numpy(plain.fresh(seed + 1000).random(ctx.n_pool)).float()
        k = 1 + seed % 9
        centers, assignment = k_means(ctx.features, k, plain.fresh(seed), weights=weights)
        means, labels = plain.k_means(ctx.features.double().tolist(), k, plain.fresh(seed), weights.double().tolist())
        assert assignment.tolist() == labels
        assert torch.allclose(centers, torch.tensor(means), atol=1e-5)


def test_faiss_and_scikit_learn_agree(monkeypatch):
    """From the same seeds the two give the same clusters, weights included, and faiss does not sub-sample."""
    features = make_context(n_pool=6000, width=16, n_classes=12).features
    weights = torch.from_numpy(np.random.default_rng(1).random(6000)).float()
    seeds, answers = features[k_means_seeds(features, 8, np.random.default_rng(0), weights)], []
    for limit in (10**12, 0):
        monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
        answers.append(lloyd(features, seeds, weights))  # 750 rows a center, above 256
    assert (answers[0][1] == answers[1][1]).float().mean() > 0.999
    assert torch.allclose(answers[0][0], answers[1][0], atol=1e-3)


def test_large_k_means_takes_the_stated_number_of_steps(monkeypatch):
    """Above `LARGE` the result is that of `LARGE_STEPS` plain steps, which have not converged; below, that of convergence."""
    points, seeds = unit(400, 6), unit(400, 6)[:12]
    centers = seeds
    for _ in range(3):
        nearest = torch.cdist(points, centers).argmin(1)
        centers = torch.stack([points[nearest == cluster].mean(0) for cluster in range(12)])
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", 0)
    monkeypatch.setattr(clustering, "LARGE_STEPS", 3)
    converged = lloyd(points, seeds, torch.ones(400))[0]
    monkeypatch.setattr(clustering, "LARGE", 0)
    assert torch.allclose(lloyd(points, seeds, torch.ones(400))[0], centers, atol=1e-5)
    assert not torch.allclose(converged, centers, atol=1e-2)


@pytest.mark.parametrize("limit", [10**12, 0])
def test_whole_weights_are_repeated_points(limit, monkeypatch):
    """A weight of 3 is the point three times: same centers from the same seeds."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
    points = unit(80, 5)
    times = torch.from_numpy(np.random.default_rng(0).integers(1, 5, size=80))
    weighted, assignment = lloyd(points, points[:6], times.float())
    repeated, labels = lloyd(points.repeat_interleave(times, 0), points[:6], torch.ones(int(times.sum())))
    assert torch.allclose(weighted, repeated, atol=1e-5)
    assert torch.equal(assignment.repeat_interleave(times), labels)


def test_k_means_ignores_the_scale_of_the_weights():
    """Only ratios matter."""
    points, weights = unit(90, 4), torch.from_numpy(np.random.default_rng(0).random(90)).float()
    answers = [k_means(points, 7, np.random.default_rng(3), weights=scale * weights) for scale in (1.0, 1e-6, 4096.0, 37.0)]
    for centers, assignment in answers[1:]:
        assert torch.equal(assignment, answers[0][1])
        assert torch.allclose(centers, answers[0][0], atol=1e-6)


def test_weights_of_one_and_of_zero_are_no_weights():
    """Equal weights tell nothing apart, even if all are 0."""
    points = unit(40, 4)
    plain_answer = k_means(points, 5, np.random.default_rng(0))
    for weights in (torch.ones(40), torch.zeros(40)):
        assert torch.equal(k_means(points, 5, np.random.default_rng(0), weights=weights)[1], plain_answer[1])


@pytest.mark.parametrize("limit", [10**12, 0])
def test_k_is_capped_at_the_distinct_points(limit, monkeypatch):
    """Row 6: four points, ten times each, asked for nine clusters."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
    points = unit(4, 6).repeat(10, 1)
    centers, assignment = k_means(points, 9, np.random.default_rng(0))
    assert len(centers) == 4
    assert all(len(assignment[row::4].unique()) == 1 for row in range(4))
    assert assignment.bincount().tolist() == [10] * 4


def test_lloyd_does_not_raise_the_inertia():
    """The result is no worse than its seeds."""
    points = unit(200, 6)
    centers, assignment = lloyd(points, points[:12], torch.ones(200))
    assert (points - centers[assignment]).square().sum() <= torch.cdist(points, points[:12]).amin(1).square().sum()


@pytest.mark.parametrize("limit", [10**12, 0])
def test_k_means_repeats_itself_and_leaves_the_global_generators(limit, monkeypatch, global_random_state):
    """The random stream alone decides the result."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
    points = unit(300, 8)
    first, second, other = (k_means(points, 9, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


def test_nearest_members_are_a_clusters_own_in_order_of_distance():
    """Against a sort in plain Python; a duplicate stands behind the lower row."""
    points = unit(60, 3)
    points = torch.cat([points, points[:20]])
    centers, assignment = k_means(points, 7, np.random.default_rng(0))
    for cluster, members in enumerate(nearest_members(points, centers, assignment)):
        mine = (assignment == cluster).nonzero().flatten().tolist()
        center = centers[cluster].tolist()
        order = sorted(mine, key=lambda row: (round(plain.squared_distance(points[row].tolist(), center), 6), row))
        assert members.tolist() == order


def test_k_means_stops_as_scikit_learn_s_does_by_default():
    """The same number of steps and the same tolerance, in either backend."""
    defaults = KMeans().get_params()
    assert (defaults["max_iter"], defaults["tol"]) == (clustering.MAX_STEPS, clustering.TOLERANCE)
