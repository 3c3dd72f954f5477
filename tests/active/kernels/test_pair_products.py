"""Kernels that compare pairs do so by the product that a run has chosen, and their results are the same to rounding."""

import importlib

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
from active.samplers.dcom import label_balls
from active.samplers.purity import _of_cosines
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


@pytest.mark.parametrize(("name", "parameters", "n_calls"), [
    ("activeft", {}, 1), ("dcom", {}, 3), ("probcover", {}, 1), ("probcover", {"max_pool": 10}, 1)])
def test_samplers_that_compare_pairs_themselves_pick_the_same(name, parameters, n_calls, by_onednn, monkeypatch):
    sampler, calls = sampler_by_name(name, **parameters), []
    module = importlib.import_module(f"active.samplers.{name}")
    monkeypatch.setattr(module, "pair_products", lambda *given: calls.append(given) or products.pair_products(*given))
    found = select(sampler, make_context(0, n_pool=200, n_query=10))
    assert len(calls) >= n_calls
    with pairs_by("torch"):
        expected = select(sampler, make_context(0, n_pool=200, n_query=10))
    assert found.rows.tolist() == expected.rows.tolist()


def test_labels_of_dcom_are_compared_by_it(by_onednn):
    ctx = make_context(0, n_pool=200)
    found = label_balls(ctx, 1.0, 0.4)
    assert len(by_onednn) == 1
    with pairs_by("torch"):
        assert torch.allclose(found[0], label_balls(ctx, 1.0, 0.4)[0], atol=1e-5)


def test_purity_compares_by_it(by_onednn):
    points = unit(300, 8)
    found = _of_cosines(lambda cosines: cosines.amax(1), points, points[:5])
    assert len(by_onednn) == 1 and torch.allclose(found, (points @ points[:5].T).amax(1), atol=1e-5)


def test_lists_of_all_pairs_are_kept_apart_by_product(tmp_path, by_onednn):
    """Their last digits differ, so that one run would have other picks after another one's lists."""
    points = unit(300, 8)
    for product in ("torch", ONEDNN, "torch"):
        with pairs_by(product):
            Relations(points, tmp_path).neighbors(5, exact=True)
    assert len(list(tmp_path.glob("neighbors_*.safetensors"))) == 2
