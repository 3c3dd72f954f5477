"""Greedy k-center: its guarantee, and rows that are all alike."""

import itertools

import torch

from active.kernels.k_center import k_center
from tests.active.kernels.points import unit


def test_k_center_radii_never_grow():
    """Each pick is at most as far from the centers before it as the pick before."""
    points = unit(60, 4)
    rows = k_center(points, points[:3], 20)
    radii = [float(torch.cdist(points[row][None], points[torch.cat([torch.arange(3), rows[:i]])]).min())
             for i, row in enumerate(rows)]
    assert all(before >= after - 1e-6 for before, after in itertools.pairwise(radii))


def test_k_center_radius_is_at_most_twice_the_best():
    """The guarantee of the greedy algorithm, against all choices of 3 among 12 points."""
    for seed in range(20):
        points = unit(12, 3, seed)
        distances = torch.cdist(points, points)
        greedy = float(distances[:, k_center(points, points[:0], 3, first=0)].amin(1).max())
        best = min(float(distances[:, list(rows)].amin(1).max()) for rows in itertools.combinations(range(12), 3))
        assert greedy <= 2 * best + 1e-6


def test_k_center_picks_equal_points_once_each():
    """Row 6: nothing is farther than anything else, so only the memory of what was picked keeps rows apart."""
    points = unit(1, 7).expand(5, -1)
    assert sorted(k_center(points, points[:1], 5).tolist()) == [0, 1, 2, 3, 4]
