"""Distances by products: exact zeros, and precision."""

import math

import numpy as np
import torch

from active.kernels.d2_sampling import squared_distances, squared_norms
from active.kernels.k_center import k_center
from active.kernels.k_means import k_means
from active.kernels.neighbors import neighbors
from tests.active.kernels.points import unit


def test_equal_rows_have_distance_zero():
    """Products of float32 are off in the last digits; what is within that error is exactly 0."""
    points = unit(200, 300).repeat(2, 1)
    norms = squared_norms(points)
    for row in range(400):
        distances = squared_distances(norms, norms[row], points @ points[row])
        assert (distances == 0).nonzero().flatten().tolist() == [row % 200, row % 200 + 200]


def test_half_precision_rows_are_compared_in_single():
    """float16 rows give the same results as the same numbers in float32."""
    points = unit(50, 8).half()
    assert torch.equal(neighbors(points, 5)[0], neighbors(points.float(), 5)[0])
    assert torch.equal(k_center(points, points[:2], 9), k_center(points.float(), points[:2].float(), 9))
    answers = [k_means(features, 5, np.random.default_rng(0))[1] for features in (points, points.float())]
    assert torch.equal(*answers)
    assert math.isclose(float(squared_norms(points)[0]), float(points[0].double().square().sum()), rel_tol=1e-6)
