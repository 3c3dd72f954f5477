"""MaxHerding and UHerding against a dense float64 reference, and the limits in which they are other samplers."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from active.context import SelectionContext
from active.kernels import herding
from active.kernels.herding import Herd
from active.kernels.scores import smallness_of_margin, top_rows
from active.samplers.uherding import labeled_radius, mass_radius
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels
from dassl.utils.errors import UserError
from tests.active.samplers import plain


def dense(features: np.ndarray, centers: np.ndarray, weights: list[float], radius: float, n: int) -> list[int]:
    """Loop over all candidates B times, with the whole kernel matrix and the tie rule."""
    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum((2 * x @ y.T - 2) / radius**2, 0))

    kernels = kernel(features, features)
    np.fill_diagonal(kernels, 1)
    covered = kernel(features, centers).max(1) if len(centers) else np.zeros(len(features))
    found: list[int] = []
    for _ in range(n):
        gains = [-1.0 if row in found else float((np.maximum(kernels[row] - covered, 0) * weights).sum())
                 for row in range(len(features))]
        largest = max(gains)
        row = next(row for row, gain in enumerate(gains) if gain >= (1 - 1e-5) * largest and row not in found)
        found.append(row)
        covered = np.maximum(covered, kernels[row])
    return found


def margins(logits: torch.Tensor) -> list[float]:
    rows = [sorted(plain.softmax(row), reverse=True) for row in logits.double().tolist()]
    return [1 - row[0] + row[1] for row in rows]


def arrays(ctx: SelectionContext) -> tuple[np.ndarray, np.ndarray]:
    return ctx.features.double().numpy(), ctx.labeled_features.double().numpy()


def test_maxherding_is_the_dense_form():
    """On 200 small pools, with labels and without."""
    sampler = sampler_by_name("maxherding")
    for number, ctx in enumerate(small_pools(200)):
        ctx = without_labels(ctx) if number % 4 == 0 else ctx
        n = min(ctx.n_query, ctx.n_pool - 1)
        expected = dense(*arrays(ctx), [1.0] * ctx.n_pool, 1.0, n)
        assert picks(sampler, replace(ctx, n_query=n)) == ctx.ids[expected].tolist()


WEIGHTS = {"margin": margins,
           "entropy": lambda logits: [plain.entropy_of(plain.softmax(row)) for row in logits.double().tolist()],
           "least_confidence": lambda logits: [1 - max(plain.softmax(row)) for row in logits.double().tolist()]}


@pytest.mark.parametrize(("uncertainty", "n_pools"), [("margin", 200), ("entropy", 50), ("least_confidence", 50)])
def test_uherding_is_the_dense_form(uncertainty, n_pools):
    """On small pools; its radius is the smallest distance of two labeled rows that are no copies, 1 if there are none."""
    sampler = sampler_by_name("uherding", uncertainty=uncertainty)
    for ctx in small_pools(n_pools):
        n, (features, centers) = min(ctx.n_query, ctx.n_pool - 1), arrays(ctx)
        distances = [math.dist(x, y) for place, x in enumerate(centers) for y in centers[:place]]
        radius = min([own for own in distances if own**2 > plain.ROUNDING], default=1.0)
        expected = dense(features, centers, WEIGHTS[uncertainty](ctx.logits), radius, n)
        assert picks(sampler, replace(ctx, n_query=n)) == ctx.ids[expected].tolist()


@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_lazy_picks_are_those_of_all_gains(monkeypatch, at_once):
    """However many rows are evaluated at a time, in float32 too, and gains of picks never rise."""
    monkeypatch.setattr(herding, "EVALUATED", at_once)
    for precision in (0, 2**24):
        monkeypatch.setattr(herding, "DOUBLE", precision)
        for seed in range(10):
            ctx = make_context(seed, n_pool=60, width=5)
            own = Herd(ctx.features, torch.ones(60), ctx.labeled_features, 0.5, 60)
            gains = []
            for _ in range(20):
                everything = own._gains(torch.arange(60)).where(own._bounds > -torch.inf, -torch.inf)
                row, gain = own.pick()
                gains.append(float(everything[row]))
                assert gain == pytest.approx(gains[-1], rel=1e-5)
                assert row == int((everything >= (1 - 1e-5) * everything.max()).nonzero()[0])
            assert all(after <= before * (1 + 1e-6) for before, after in pairwise(gains))


def test_a_tiny_radius_asks_what_is_uncertain():
    """Nothing covers anything else then, so rows are asked by weight, as margin does."""
    ctx = make_context(3, n_query=12)
    found = herding.herd(ctx, smallness_of_margin(ctx.logits), 1e-3).rows
    assert found.tolist() == top_rows(smallness_of_margin(ctx.logits), 12).tolist()


def test_equal_weights_are_maxherding():
    """Without labels u is 1 and the radius 1, unless the weights are those of zero-shot CLIP."""
    ctx = without_labels(make_context(5))
    expected = picks(sampler_by_name("maxherding"), ctx)
    assert picks(sampler_by_name("uherding"), ctx) == expected
    assert picks(sampler_by_name("uherding", cold="zero_shot"), ctx) != expected


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_a_factor_of_all_weights_changes_nothing(factor):
    ctx = make_context(4)
    weights = smallness_of_margin(ctx.logits)
    assert torch.equal(herding.herd(ctx, factor * weights, 0.7).rows, herding.herd(ctx, weights, 0.7).rows)


def test_a_copy_of_a_labeled_row_gains_nothing():
    """It is asked last, also where others gain little."""
    ctx = make_context(6, n_pool=20, n_query=19)
    ctx = replace(ctx, features=torch.cat([ctx.labeled_features[:1], ctx.features[1:]]))
    own = Herd(ctx.features, torch.ones(20), ctx.labeled_features, 0.4, 20)
    assert own._gains(torch.tensor([0]))[0] == 0 < own._gains(torch.arange(1, 20)).min()


def test_identical_rows_are_asked_by_their_ids():
    """The first covers all; the others gain nothing."""
    ctx = make_context(0, n_pool=10, n_query=4)
    ctx = replace(ctx, features=ctx.features[:1].expand(10, -1).clone())
    assert picks(sampler_by_name("maxherding"), ctx) == ctx.ids[:4].tolist()


def test_more_is_covered_than_by_random_rows():
    """On 50 seeds: the sum over the pool of the largest kernel."""
    for seed in range(50):
        ctx = make_context(seed, n_query=5)
        chosen = [herding.herd(ctx, torch.ones(ctx.n_pool), 1.0).rows, torch.randperm(ctx.n_pool)[:5]]
        covered = [((2 * ctx.features @ torch.cat([ctx.features[rows], ctx.labeled_features]).T - 2).exp().amax(1)).sum()
                   for rows in chosen]
        assert covered[0] >= covered[1]


@pytest.mark.parametrize(("rows", "expected"), [
    ([], 1.0), ([[1.0, 0.0]], 1.0), ([[1.0, 0.0]] * 3, 1.0), ([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], math.sqrt(2)),
    ([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], math.dist((0.0, 1.0), (0.6, 0.8)))])
def test_the_radius_of_labels_is_their_smallest_positive_distance(rows, expected):
    """Copies have no distance, also in float32. Without two different rows the radius is 1."""
    assert labeled_radius(torch.tensor(rows).reshape(-1, 2)) == pytest.approx(expected, rel=1e-6)


def test_copies_of_labels_do_not_collapse_the_radius():
    """The distance of a row to its copy is 0, however long it is in float32."""
    row = F.normalize(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    assert labeled_radius(row.repeat(40, 1)) == 1.0


@pytest.mark.parametrize("half", [False, True])
def test_a_copy_with_other_last_digits_has_no_distance_either(half):
    """An image that is encoded in another batch: 1e-8 away, or one unit of float16's last place away in every column."""
    generator = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(30, 512, generator=generator), dim=1)
    expected = labeled_radius(rows)
    copies = F.normalize(rows + 1e-8 * torch.randn(30, 512, generator=generator), dim=1)
    if half:
        rows = rows.half()
        copies = (rows.view(torch.int16) + 1).view(torch.float16)
    assert not torch.equal(copies, rows.to(copies.dtype))
    assert labeled_radius(torch.cat([rows, copies])) == pytest.approx(expected, rel=1e-3)
    assert labeled_radius(torch.cat([rows[:1], copies[:1]])) == 1.0


def test_an_image_that_is_labeled_twice_does_not_make_uherding_margin():
    ctx = make_context(3, n_query=12)
    once = picks(sampler_by_name("uherding"), ctx)
    assert once != picks(sampler_by_name("margin"), ctx)
    labeled = torch.cat([ctx.labeled_features, F.normalize(ctx.labeled_features[:1] + 1e-8, dim=1)])
    logits, labels = torch.cat([ctx.labeled_logits, ctx.labeled_logits[:1]]), torch.cat([ctx.labels, ctx.labels[:1]])
    twice = replace(ctx, labeled_features=labeled.contiguous(), labeled_logits=logits, labels=labels,
                    labeled_ids=torch.cat([ctx.labeled_ids, torch.tensor([ctx.n_total])]))
    assert not torch.equal(labeled[-1], labeled[0]) and picks(sampler_by_name("uherding"), twice) == once


def test_the_radius_by_mass_shrinks_with_labels_and_picks():
    """It is the distance to the ceil(n / (l + B))-th nearest row, the row itself among them; 12 labels and 8 picks here."""
    ctx = make_context(1, n_pool=40, n_labeled=12, n_query=8)
    distances = [sorted(math.dist(x, y) for y in ctx.features.double().tolist()) for x in ctx.features.double().tolist()]
    expected = sorted(row[1] for row in distances)[(40 - 1) // 2]  # torch's median of 40 is the 20th
    assert mass_radius(ctx.unlabeled_features, 20, ctx.rng) == pytest.approx(expected, rel=1e-3)
    assert mass_radius(ctx.unlabeled_features, 10, ctx.rng) > mass_radius(ctx.unlabeled_features, 20, ctx.rng)
    least = mass_radius(ctx.unlabeled_features, 39, ctx.rng)  # a ball holds the nearest other row at least
    assert least == mass_radius(ctx.unlabeled_features, 20, ctx.rng) < 1
    assert [mass_radius(ctx.unlabeled_features, n_balls, ctx.rng) for n_balls in (40, 41, 1000)] == [least] * 3
    assert mass_radius(ctx.unlabeled_features[:1], 1, ctx.rng) == 1.0
    copies = replace(ctx, features=ctx.features[:1].expand(40, -1))
    assert mass_radius(copies.unlabeled_features, 20, copies.rng) == 1.0
    assert len(picks(sampler_by_name("uherding", radius="mass"), copies)) == 8


@pytest.mark.parametrize("name", ["maxherding", "uherding"])
def test_a_pool_that_is_too_large_is_refused_with_the_arithmetic(name):
    with pytest.raises(UserError, match=rf"{name} compares all pairs of 70 images.*MAX_POOL, now 60"):
        picks(sampler_by_name(name, max_pool=60, exact=True), make_context())


def test_kernels_run_on_the_device_of_their_rows():
    """On fake CUDA tensors: no two devices meet."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=False):
        rows = torch.empty(50, 8, device="cuda")
        own = Herd(rows, torch.empty(50), torch.empty(5, 8, device="cuda"), 1.0, 50)
        assert own._gains(torch.empty(4, dtype=torch.int64, device="cuda")).device.type == "cuda"
