"""The shared kernels against hand-solved cases, slow references and the laws that they promise."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

import active.kernels.k_means as clustering
import active.kernels.neighbors as pairs
import active.kernels.scores as scores
from active.kernels.d2_sampling import squared_distances, squared_norms
from active.kernels.k_center import k_center
from active.kernels.k_means import k_means, k_means_seeds, lloyd, nearest_members
from active.kernels.neighbors import cosine_tiles, neighbors
from active.testing import make_context, small_pools
from tests.active.samplers import plain


def _unit(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


# k-center

def test_k_center_radii_never_grow():
    """Each pick is at most as far from the centers before it as the pick before."""
    points = _unit(60, 4)
    rows = k_center(points, points[:3], 20)
    radii = [float(torch.cdist(points[row][None], points[torch.cat([torch.arange(3), rows[:i]])]).min())
             for i, row in enumerate(rows)]
    assert all(before >= after - 1e-6 for before, after in itertools.pairwise(radii))


def test_k_center_radius_is_at_most_twice_the_best():
    """The guarantee of the greedy algorithm, against all choices of 3 among 12 points."""
    for seed in range(20):
        points = _unit(12, 3, seed)
        distances = torch.cdist(points, points)
        greedy = float(distances[:, k_center(points, points[:0], 3, first=0)].amin(1).max())
        best = min(float(distances[:, list(rows)].amin(1).max()) for rows in itertools.combinations(range(12), 3))
        assert greedy <= 2 * best + 1e-6


def test_k_center_picks_equal_points_once_each():
    """Row 6: nothing is farther than anything else, so only the memory of what was picked keeps rows apart."""
    points = _unit(1, 7).expand(5, -1)
    assert sorted(k_center(points, points[:1], 5).tolist()) == [0, 1, 2, 3, 4]


def test_equal_rows_have_distance_zero():
    """Products of float32 are off in the last digits; what is within that error is exactly 0."""
    points = _unit(200, 300).repeat(2, 1)
    norms = squared_norms(points)
    for row in range(400):
        distances = squared_distances(norms, norms[row], points @ points[row])
        assert (distances == 0).nonzero().flatten().tolist() == [row % 200, row % 200 + 200]


# k-means

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
    points, seeds = _unit(400, 6), _unit(400, 6)[:12]
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
    points = _unit(80, 5)
    times = torch.from_numpy(np.random.default_rng(0).integers(1, 5, size=80))
    weighted, assignment = lloyd(points, points[:6], times.float())
    repeated, labels = lloyd(points.repeat_interleave(times, 0), points[:6], torch.ones(int(times.sum())))
    assert torch.allclose(weighted, repeated, atol=1e-5)
    assert torch.equal(assignment.repeat_interleave(times), labels)


def test_k_means_ignores_the_scale_of_the_weights():
    """Only ratios matter."""
    points, weights = _unit(90, 4), torch.from_numpy(np.random.default_rng(0).random(90)).float()
    answers = [k_means(points, 7, np.random.default_rng(3), weights=scale * weights) for scale in (1.0, 1e-6, 4096.0, 37.0)]
    for centers, assignment in answers[1:]:
        assert torch.equal(assignment, answers[0][1])
        assert torch.allclose(centers, answers[0][0], atol=1e-6)


def test_weights_of_one_and_of_zero_are_no_weights():
    """Nothing can be told apart by weights that are all equal, also if they are all 0."""
    points = _unit(40, 4)
    plain_answer = k_means(points, 5, np.random.default_rng(0))
    for weights in (torch.ones(40), torch.zeros(40)):
        assert torch.equal(k_means(points, 5, np.random.default_rng(0), weights=weights)[1], plain_answer[1])


@pytest.mark.parametrize("limit", [10**12, 0])
def test_k_is_capped_at_the_distinct_points(limit, monkeypatch):
    """Row 6: four points, ten times each, asked for nine clusters."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
    points = _unit(4, 6).repeat(10, 1)
    centers, assignment = k_means(points, 9, np.random.default_rng(0))
    assert len(centers) == 4
    assert all(len(assignment[row::4].unique()) == 1 for row in range(4))
    assert assignment.bincount().tolist() == [10] * 4


def test_lloyd_does_not_raise_the_inertia():
    """The result is no worse than its seeds."""
    points = _unit(200, 6)
    centers, assignment = lloyd(points, points[:12], torch.ones(200))
    assert (points - centers[assignment]).square().sum() <= torch.cdist(points, points[:12]).amin(1).square().sum()


@pytest.mark.parametrize("limit", [10**12, 0])
def test_k_means_repeats_itself_and_leaves_the_global_generators(limit, monkeypatch, global_random_state):
    """The stream decides, and nothing else."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
    points = _unit(300, 8)
    first, second, other = (k_means(points, 9, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert not torch.equal(first[1], other[1])


def test_nearest_members_are_a_clusters_own_in_order_of_distance():
    """Against a sort in plain Python; a duplicate stands behind the lower row."""
    points = _unit(60, 3)
    points = torch.cat([points, points[:20]])
    centers, assignment = k_means(points, 7, np.random.default_rng(0))
    for cluster, members in enumerate(nearest_members(points, centers, assignment)):
        mine = (assignment == cluster).nonzero().flatten().tolist()
        center = centers[cluster].tolist()
        order = sorted(mine, key=lambda row: (round(plain.squared_distance(points[row].tolist(), center), 6), row))
        assert members.tolist() == order


# neighbors

@pytest.mark.parametrize(("queries", "block"), [(1, 1), (7, 64), (512, 2**22)])
def test_neighbors_equal_plain_python(queries, block, monkeypatch):
    """For any size of block, on 40 pools."""
    monkeypatch.setattr(pairs, "QUERIES", queries)
    monkeypatch.setattr(scores, "BLOCK", block)
    for seed, ctx in enumerate(small_pools(40)):
        points, k = ctx.features.double().tolist(), 1 + seed % 12
        rows, cosines = neighbors(ctx.features, k)
        assert rows.tolist() == [plain.nearest_rows(points, row, k) for row in range(len(points))]
        assert cosines.shape == rows.shape == (ctx.n_pool, min(k, ctx.n_pool - 1))
        assert torch.allclose(cosines, (ctx.features[:, None] * ctx.features[rows]).sum(2), atol=1e-6)


def test_a_row_is_not_its_own_neighbor_but_its_duplicate_is():
    """Self is left out by its number and not as the first column; among duplicates the lower row comes first."""
    points = torch.eye(3).repeat(3, 1)
    rows, cosines = neighbors(points, 3)
    assert rows[:3].tolist() == [[3, 6, 1], [4, 7, 0], [5, 8, 0]]
    assert rows[3].tolist() == [0, 6, 1]
    assert cosines[0].tolist() == [1.0, 1.0, 0.0]


def test_neighbors_in_a_bank_leave_nothing_out():
    """A query that stands in the bank finds itself."""
    rows, cosines = neighbors(torch.eye(3)[[2]], 2, bank=torch.eye(3))
    assert rows.tolist() == [[2, 0]]
    assert cosines.tolist() == [[1.0, 0.0]]


def test_tiles_cover_each_pair_once(monkeypatch):
    """The sum over tiles, off-diagonal ones twice, is the whole matrix."""
    monkeypatch.setattr(pairs, "TILE", 7)
    points, whole = _unit(30, 4), torch.zeros(30, 30)
    for rows, columns, cosines in cosine_tiles(points):
        whole[rows, columns] += cosines
        if rows != columns:
            whole[columns, rows] += cosines.T
    assert torch.allclose(whole, points @ points.T, atol=1e-6)


def test_half_precision_rows_are_compared_in_single():
    """float16 rows give what the same numbers as float32 give; sqrt(2) apart is seen at 1e-4."""
    points = _unit(50, 8).half()
    assert torch.equal(neighbors(points, 5)[0], neighbors(points.float(), 5)[0])
    assert torch.equal(k_center(points, points[:2], 9), k_center(points.float(), points[:2].float(), 9))
    answers = [k_means(features, 5, np.random.default_rng(0))[1] for features in (points, points.float())]
    assert torch.equal(*answers)
    assert math.isclose(float(squared_norms(points)[0]), float(points[0].double().square().sum()), rel_tol=1e-6)


def test_k_means_stops_as_scikit_learn_s_does_by_default():
    """The same number of steps and the same tolerance, in either backend."""
    defaults = KMeans().get_params()
    assert (defaults["max_iter"], defaults["tol"]) == (clustering.MAX_STEPS, clustering.TOLERANCE)
