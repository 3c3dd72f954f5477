"""D^2 sampling against its law."""

from collections import Counter

import numpy as np
import pytest
import torch

from active.kernels.d2_sampling import d2_sampling
from tests.active.samplers import plain

POINTS = torch.tensor([[0.0, 0], [1, 0], [0, 2], [3, 1], [1, 1], [-1, 2]])


def _distances(points):
    return lambda row: (points - points[row]).square().sum(1)


def _law(first):
    """The probability of each (second, third) row after a first one, from the formula."""
    squared, law = [[plain.squared_distance(x, y) for y in POINTS.tolist()] for x in POINTS.tolist()], {}
    for second in set(range(6)) - {first}:
        left = [min(squared[first][i], squared[second][i]) for i in range(6)]
        p_second = squared[first][second] / sum(squared[first])
        law |= {(second, third): p_second * left[third] / sum(left) for third in set(range(6)) - {first, second}}
    return law


def test_d2_sampling_follows_its_law():
    """Chi-square over 20,000 draws of the pair after a fixed first row, 6 points, 20 outcomes, 0.1 % level."""
    rng, counts, law = np.random.default_rng(0), Counter(), _law(0)
    for _ in range(20_000):
        counts[tuple(d2_sampling(3, 6, _distances(POINTS), rng, first=0)[1:].tolist())] += 1
    assert sum((counts[outcome] - 20_000 * p) ** 2 / (20_000 * p) for outcome, p in law.items()) < 43.8  # 19 degrees of freedom


def test_d2_sampling_without_distances_is_uniform_over_the_rest():
    """Equal points: every order of the other two rows comes up, and no row twice."""
    seen = {tuple(d2_sampling(3, 3, lambda row: torch.zeros(3), np.random.default_rng(seed), first=1).tolist())
            for seed in range(40)}
    assert seen == {(1, 0, 2), (1, 2, 0)}


def test_d2_sampling_gives_no_more_rows_than_there_are():
    """Nine picks of four rows give four; one pick of four gives the first row."""
    rows = d2_sampling(9, 4, _distances(POINTS[:4]), np.random.default_rng(0), first=2)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]
    assert d2_sampling(1, 4, _distances(POINTS[:4]), np.random.default_rng(0), first=2).tolist() == [2]


@pytest.mark.parametrize(("u", "row"), [(0.0, 1), (0.25, 2), (1 - 2**-53, 2)])
def test_d2_sampling_never_draws_a_row_without_mass(u, row):
    """Not at 0, where a sum of 0 is not above; not where u times the total meets a sum; not where it rounds to the total."""

    class _Fixed:
        def random(self):
            return u

    distances = torch.tensor([0.0, 1.0, 3.0, 0.0])
    assert d2_sampling(2, 4, lambda row: distances, _Fixed(), first=0).tolist() == [0, row]
