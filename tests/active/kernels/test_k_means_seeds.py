"""The rows that k-means starts from: greedy k-means++, one seed or several seeds at a time, against the law of both."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import kmeans_plusplus

import active.kernels.k_means as clustering
from active.kernels.k_means import k_means, k_means_seeds
from active.testing import small_pools
from tests.active.kernels.points import unit
from tests.active.samplers import plain

POINTS = torch.tensor([[0.0, 0.1], [1, 0], [0, 2], [3, 1], [1.3, 1.2]])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])


@pytest.fixture(params=["a seed at a time", "several a pass"])
def form(request, monkeypatch) -> str:
    """Both forms of the seeding; the second is that of large pools."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", 2**60 if request.param == "a seed at a time" else 0)
    return request.param


def _clustered(seed: int, n: int = 600, n_clusters: int = 30) -> torch.Tensor:
    """Unit rows around 30 directions, some of them larger than others."""
    rng = np.random.default_rng(seed)
    sizes = rng.dirichlet(np.full(n_clusters, 2.0))
    rows = unit(n_clusters, 16, seed)[rng.choice(n_clusters, size=n, p=sizes)]
    return F.normalize(rows + 0.15 * torch.from_numpy(rng.normal(size=rows.shape)).float(), dim=1)


def _inertia(points: torch.Tensor, centers: torch.Tensor) -> float:
    return float(torch.cdist(points.double(), centers.double()).amin(1).square().sum())


def _law(n_tried: int) -> dict[tuple[int, ...], float]:
    """The probability of each order of four of the five points, from the formula, all sets of candidates counted."""
    points, weights = POINTS.tolist(), WEIGHTS.tolist()
    law = {(first,): weight / sum(weights) for first, weight in enumerate(weights)}

    def mass(picked):
        return [w * min(plain.squared_distance(x, points[row]) for row in picked) for w, x in zip(weights, points, strict=True)]

    for _ in range(3):
        longer = Counter()
        for picked, p in law.items():
            shares = [own / sum(mass(picked)) for own in mass(picked)]
            for tried in itertools.product(range(5), repeat=n_tried):
                best = min(tried, key=lambda row: sum(mass((*picked, row))))
                longer[(*picked, best)] += p * math.prod(shares[row] for row in tried)
        law = {outcome: p for outcome, p in longer.items() if p > 0}
    return law


@pytest.mark.parametrize("n_tried", [1, 2])
def test_seeds_follow_their_law(form, n_tried, monkeypatch):
    """Chi-square at the 0.1 % level over 4,000 draws of four weighted points; rare outcomes count as one.

    One candidate is plain k-means++; with two, the better one of each pair is kept.
    """
    monkeypatch.setattr(clustering, "n_candidates", lambda k: n_tried)
    law, rng, n = _law(n_tried), np.random.default_rng(0), 4_000
    counts = Counter(tuple(k_means_seeds(POINTS, 4, rng, WEIGHTS).tolist()) for _ in range(n))
    assert set(counts) <= set(law)
    often = [outcome for outcome, p in law.items() if n * p >= 5]
    cells = [(counts[outcome], n * law[outcome]) for outcome in often]
    rare = n - sum(found for found, _ in cells), n - sum(expected for _, expected in cells)
    statistic = sum((found - expected) ** 2 / expected for found, expected in [*cells, rare])
    z = ((statistic / len(often)) ** (1 / 3) - 1 + 2 / (9 * len(often))) / math.sqrt(2 / (9 * len(often)))  # Wilson-Hilferty
    assert len(often) > 10 and z < 3.09


def test_a_seed_at_a_time_is_plain_python():
    """The same rows from the same random numbers, with weights, on 200 pools."""
    for seed, ctx in enumerate(small_pools()):
        weights = torch.from_numpy(plain.fresh(seed + 1000).random(ctx.n_pool)).float()
        k = 1 + seed % 12
        rows = k_means_seeds(ctx.features, k, plain.fresh(seed), weights).tolist()
        assert rows == plain.greedy_seeds(ctx.features.double().tolist(), k, plain.fresh(seed), weights.double().tolist())


@pytest.mark.parametrize(("k", "n"), [(1, 2), (2, 2), (3, 3), (7, 3), (8, 4), (101, 6), (1000, 8), (2000, 9)])
def test_number_of_candidates(k, n):
    """2 + floor(ln k)."""
    assert clustering.n_candidates(k) == n


def test_greedy_seeds_end_lower_than_plain_ones(form, monkeypatch):
    """On 30 clustered pools: the seeds' inertia in each, and that after Lloyd's steps, 1 % on average."""
    greedy, plain_seeds = [], []
    for found, tried in ((greedy, clustering.n_candidates), (plain_seeds, lambda k: 1)):
        monkeypatch.setattr(clustering, "n_candidates", tried)
        for seed in range(30):
            points, rng = _clustered(seed), np.random.default_rng(seed)
            seeds = k_means_seeds(points, 30, rng, torch.ones(len(points)))
            centers = clustering.lloyd(points, points[seeds], torch.ones(len(points)))[0]
            found.append((_inertia(points, points[seeds]), _inertia(points, centers)))
    ratios = np.array(greedy) / np.array(plain_seeds)
    assert (ratios[:, 0] < 1).all()
    assert ratios[:, 1].mean() < 0.99


def test_seeds_are_as_good_as_those_of_scikit_learn(form):
    """The inertia of greedy seeds, mean over 60 clustered pools, is within 1 % of that of `kmeans_plusplus`."""
    pools = [_clustered(seed) for seed in range(60)]
    own = [_inertia(points, points[k_means_seeds(points, 30, np.random.default_rng(seed), torch.ones(len(points)))])
           for seed, points in enumerate(pools)]
    theirs = [_inertia(points, torch.from_numpy(kmeans_plusplus(points.numpy(), 30, random_state=seed)[0]))
              for seed, points in enumerate(pools)]
    assert np.mean(own) == pytest.approx(np.mean(theirs), rel=0.01)


def test_large_pools_take_few_passes(monkeypatch):
    """300 seeds, seven candidates each, from a dozen passes instead of 300."""
    batches, drawn = [], clustering.drawn_rows
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", 0)
    monkeypatch.setattr(clustering, "drawn_rows", lambda *arguments: batches.append(1) or drawn(*arguments))
    rows = k_means_seeds(unit(2000, 64), 300, np.random.default_rng(0), torch.ones(2000))
    assert len(rows.unique()) == 300
    assert len(batches) <= 15


def test_a_pass_holds_no_more_distances_than_stated(monkeypatch):
    """With room for 20,000 distances, 500 rows are compared with 40 candidates at most, 35 for seven a seed."""
    monkeypatch.setattr(clustering, "SKLEARN_LIMIT", 0)
    monkeypatch.setattr(clustering, "BATCH", 20_000)
    widths, own = [], clustering._Seeds._distances
    monkeypatch.setattr(clustering._Seeds, "_distances", lambda self, rows: widths.append(len(rows)) or own(self, rows))
    assert len(k_means_seeds(unit(500, 8), 150, np.random.default_rng(0), torch.ones(500)).unique()) == 150
    assert max(widths) == 35


def test_seeds_stop_at_the_distinct_points_of_positive_weight(form):
    """Three copies each of five points, one of them without weight, give four rows, none a copy of another."""
    points, weights = unit(5, 300).repeat(3, 1), torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0]).repeat(3)
    for seed in range(20):
        rows = k_means_seeds(points, 9, np.random.default_rng(seed), weights).tolist()
        assert sorted(row % 5 for row in rows) == [0, 1, 3, 4]


def test_seeds_are_exactly_k_rows(form):
    """All distinct, from one to all."""
    for k in (1, 2, 7, 40):
        assert len(k_means_seeds(unit(40, 8), k, np.random.default_rng(k), torch.ones(40)).unique()) == k


@pytest.mark.parametrize(("u", "row"), [(0.0, 1), (0.25, 2), (1 - 2**-53, 2)])
def test_the_first_seed_is_never_a_row_without_weight(u, row):
    """Not at 0, where a sum of 0 is not above; not where u times the total meets a sum; not where it rounds to the total."""

    class _Fixed:
        def random(self):
            return u

    assert k_means_seeds(torch.eye(4), 1, _Fixed(), torch.tensor([0.0, 1.0, 3.0, 0.0])).tolist() == [row]


def test_of_candidates_that_tie_the_first_drawn_is_kept():
    """Six corners of equal distances, turned at random: after one, all others leave the same, but for rounding."""
    for seed in range(40):
        turn = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
        points = (torch.eye(6, 64, dtype=torch.float64) @ turn).float()
        for k in (2, 5):
            rows = k_means_seeds(points, k, plain.fresh(seed), torch.ones(6)).tolist()
            assert rows == plain.greedy_seeds(points.double().tolist(), k, plain.fresh(seed), [1.0] * 6)
            if k == 2:
                rng = plain.fresh(seed)
                first, second = plain.drawn([1.0] * 6, rng.random()), rng.random()
                assert rows == [first, plain.drawn([float(row != first) for row in range(6)], second)]


def test_seeds_do_not_depend_on_the_number_of_threads(form):
    """The sums that decide are float64, and what differs by rounding ties."""
    points, threads = _clustered(0), torch.get_num_threads()
    try:
        answers = []
        for n in (1, 2):
            torch.set_num_threads(n)
            answers.append(k_means(points, 30, np.random.default_rng(0))[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*answers)
