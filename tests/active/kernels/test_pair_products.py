"""Kernels that compare pairs do so by the product that a run has chosen, and their results are the same to rounding."""

import numpy as np
import pytest
import torch

import dassl.utils.linear as products
from active.kernels.coverage import UncoveredBalls, ball_sizes
from active.kernels.herding import Herd, mass_radius
from active.kernels.k_center import k_center
from active.kernels.neighbor_lists import exact_lists
from active.kernels.neighbors import neighbors
from active.relations import Relations
from active.selection import select
from active.testing import make_context, sampler_by_name
from dassl.utils.linear import ONEDNN, is_exact, pairs_by
from tests.active.kernels.points import unit

pytestmark = pytest.mark.skipif(not is_exact(), reason="torch without oneDNN")


def _largest_balls(points):
    with pairs_by("torch"):
        balls = UncoveredBalls(points, 0.3)
    balls.cover(balls.ball(balls.take_largest()))
    return torch.tensor([balls.take_largest() for _ in range(5)]), balls._waiting_in(torch.arange(len(points)))


def _herded(points):
    covering = Herd(points, torch.ones(len(points)), points[:3], 0.9, len(points))
    return torch.tensor([covering.pick()[0] for _ in range(5)]), covering.bounds.clamp(min=-1)


KERNELS = {
    "neighbors": lambda points: neighbors(points, 7),
    "exact_lists": lambda points: exact_lists(points, torch.arange(40), 7),
    "ball_sizes": lambda points: [ball_sizes(points, 0.3)],
    "UncoveredBalls": _largest_balls,
    "Herd": _herded,
    "k_center": lambda points: [k_center(points, points[:3], 5)],
    "k_center of float16": lambda points: [k_center(points.half(), points[:3], 5)],
    "mass_radius": lambda points: [torch.tensor(mass_radius(points, 20, np.random.default_rng(0)))],
}


@pytest.fixture
def by_onednn(monkeypatch):
    """Return the list of the calls of oneDNN's product, which is in force."""
    own, calls = products._product, []
    monkeypatch.setattr(products, "_product", lambda *given: calls.append(given) or own(*given))
    monkeypatch.setattr("active.kernels.herding.DOUBLE", 0)  # else a small pool is herded in float64
    with pairs_by(ONEDNN):
        yield calls


@pytest.mark.parametrize("name", KERNELS)
def test_the_results_are_the_same_to_rounding(name, by_onednn):
    points = unit(300, 8)
    found = KERNELS[name](points)
    n_calls = len(by_onednn)
    with pairs_by("torch"):
        expected = KERNELS[name](points)
    assert n_calls and len(by_onednn) == n_calls
    for own, other in zip(found, expected, strict=True):
        assert torch.allclose(own.double(), other.double(), atol=1e-5)


@pytest.mark.parametrize(("name", "parameters"), [
    ("activeft", {}), ("dcom", {}), ("probcover", {}), ("probcover", {"max_pool": 10}), ("uherding", {}),
    ("promptherding", {})])
def test_samplers_that_compare_pairs_pick_the_same(name, parameters, by_onednn):
    sampler = sampler_by_name(name, **parameters)
    found = select(sampler, make_context(0, n_pool=200, n_query=10))
    n_calls = len(by_onednn)
    with pairs_by("torch"):
        expected = select(sampler, make_context(0, n_pool=200, n_query=10))
    assert n_calls and len(by_onednn) == n_calls
    assert found.rows.tolist() == expected.rows.tolist()


def test_lists_of_all_pairs_are_kept_apart_by_product(tmp_path, by_onednn):
    """Their last digits differ, so that one run would have other picks after another one's lists."""
    points = unit(300, 8)
    for product in ("torch", ONEDNN, "torch"):
        with pairs_by(product):
            Relations(points, tmp_path).neighbors(5, exact=True)
    assert len(list(tmp_path.glob("neighbors_*.safetensors"))) == 2
