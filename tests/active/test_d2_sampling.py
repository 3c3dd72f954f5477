"""D^2 sampling, row by row and in batches, against the law that both promise."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import active.geometry as geometry
from active.geometry import d2_sampling, d2_sampling_in_batches
from tests.active.samplers import plain


def _unit(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def _distances(points):
    return lambda row: (points - points[row]).square().sum(1)


POINTS = torch.tensor([[0.0, 0], [1, 0], [0, 2], [3, 1], [1, 1], [-1, 2]])
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])


def _law(first):
    """The probability of each (second, third) row after a first one, from the formula."""
    squared = [[plain.squared_distance(x, y) for y in POINTS.tolist()] for x in POINTS.tolist()]
    weights, law = WEIGHTS.tolist(), {}
    for second in set(range(6)) - {first}:
        p_second = weights[second] * squared[first][second] / sum(weights[i] * squared[first][i] for i in range(6))
        left = [weights[i] * min(squared[first][i], squared[second][i]) for i in range(6)]
        law |= {(second, third): p_second * left[third] / sum(left) for third in set(range(6)) - {first, second}}
    return law


def _chi_square(counts, law):
    n = sum(counts.values())
    return sum((counts.get(outcome, 0) - n * p) ** 2 / (n * p) for outcome, p in law.items())


def test_d2_sampling_follows_its_law():
    """Chi-square over 20,000 draws of the pair after a fixed first row, 6 weighted points, 20 outcomes, 0.1 % level."""
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(20_000):
        counts[tuple(d2_sampling(3, 6, _distances(POINTS), rng, first=0, weights=WEIGHTS)[1:].tolist())] += 1
    assert _chi_square(counts, _law(0)) < 43.8  # 19 degrees of freedom


@pytest.mark.parametrize("candidates", [1, 5])
def test_d2_sampling_in_batches_follows_the_same_law(candidates, monkeypatch):
    """All three rows, 120 outcomes, at the 0.1 % level: with one candidate a pass, and with batches of five."""
    monkeypatch.setattr(geometry, "CANDIDATES", candidates)
    law = {(first, *pair): float(WEIGHTS[first] / WEIGHTS.sum()) * p for first in range(6) for pair, p in _law(first).items()}
    rng, counts = np.random.default_rng(0), Counter()
    for _ in range(4_000):
        counts[tuple(d2_sampling_in_batches(POINTS, 3, rng, weights=WEIGHTS).tolist())] += 1
    assert set(counts) <= set(law)
    assert _chi_square(counts, law) < 173.6  # 119 degrees of freedom


def test_d2_sampling_in_batches_takes_few_passes(monkeypatch):
    """300 rows of 2,000 points without clusters come from a few batches of 1,024 candidates."""
    batches, drawn = [], geometry._drawn_rows
    monkeypatch.setattr(geometry, "_drawn_rows", lambda *arguments: batches.append(1) or drawn(*arguments))
    rows = d2_sampling_in_batches(_unit(2000, 64), 300, np.random.default_rng(0), weights=torch.ones(2000))
    assert len(rows.unique()) == 300
    assert len(batches) <= 4


def test_d2_sampling_in_batches_stops_at_the_distinct_points_of_positive_weight():
    """Three copies each of five points, one of them without weight, give four rows, none a copy of another."""
    points, weights = _unit(5, 300).repeat(3, 1), torch.tensor([1.0, 1.0, 0.0, 2.0, 1.0]).repeat(3)
    for seed in range(20):
        rows = d2_sampling_in_batches(points, 9, np.random.default_rng(seed), weights=weights).tolist()
        assert sorted(row % 5 for row in rows) == [0, 1, 3, 4]


def test_d2_sampling_in_batches_gives_exactly_n_rows():
    """A batch that keeps more than are wanted is cut."""
    for n in (1, 2, 7, 40):
        assert len(d2_sampling_in_batches(_unit(40, 8), n, np.random.default_rng(n), weights=torch.ones(40)).unique()) == n


def test_d2_sampling_without_distances_is_uniform_over_the_rest():
    """Equal points: every order of the other two rows comes up, and no row twice."""
    seen = {tuple(d2_sampling(3, 3, lambda row: torch.zeros(3), np.random.default_rng(seed), first=1).tolist())
            for seed in range(40)}
    assert seen == {(1, 0, 2), (1, 2, 0)}


def test_d2_sampling_stops_at_the_distinct_points():
    """With `fill=False` three copies each of two points give two rows."""
    points = torch.tensor([[0.0, 1], [1, 0]]).repeat(3, 1)
    rows = d2_sampling(5, 6, _distances(points), np.random.default_rng(0), fill=False)
    assert len(rows) == 2
    assert {row % 2 for row in rows.tolist()} == {0, 1}


@pytest.mark.parametrize(("u", "row"), [(0.0, 1), (0.25, 2), (1 - 2**-53, 2)])
def test_d2_sampling_never_draws_a_row_without_mass(u, row):
    """Not at 0, where a sum of 0 is not above; not where u times the total meets a sum; not where it rounds to the total."""

    class _Fixed:
        def random(self):
            return u

    weights = torch.tensor([0.0, 1.0, 3.0, 0.0])
    assert d2_sampling(1, 4, _distances(torch.eye(4)), _Fixed(), weights=weights).tolist() == [row]
