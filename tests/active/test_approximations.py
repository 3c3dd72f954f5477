"""What approximate picks are worth: at least nine tenths of what exact ones gain over random ones, by what is maximized."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import active.kernels.herding as herding
from active.context import SelectionContext
from active.kernels.scores import smallness_of_margin
from active.samplers.uherding import labeled_radius
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, small_pools
from dassl.utils.errors import UserError
from dassl.utils.seeding import rng_for

N, N_QUERY, DELTA = 9000, 40, 0.45
NAMES = ["cec", "maxherding", "probcover", "uherding"]


@pytest.fixture(scope="module")
def ctx() -> SelectionContext:
    """A pool of 9,000 images around 60 points of 20 classes, of uneven density, and 30 labeled ones."""
    generator = torch.Generator().manual_seed(0)
    own = make_context(n_pool=N, n_labeled=30, n_classes=20, width=16, n_query=N_QUERY)
    points = F.normalize(torch.randn(60, 16, generator=generator), dim=1)
    which = torch.randint(60, (N + 30,), generator=generator)
    spread = 0.05 + 0.25 * torch.rand(60, 1, generator=generator)
    rows = F.normalize(points[which] + spread[which] * torch.randn(N + 30, 16, generator=generator), dim=1)
    logits = 8 * rows @ own.text_features.T
    return replace(own, features=rows[:N], logits=logits[:N], labeled_features=rows[N:], labeled_logits=logits[N:])


def value(ctx: SelectionContext, name: str, rows: torch.Tensor, weights: torch.Tensor) -> float:
    """Return the value that a sampler maximizes. `weights` are those of cec."""
    cosines = ctx.features @ torch.cat([ctx.features[rows], ctx.labeled_features]).T
    if name == "cec":
        return float(-(weights * (2 - 2 * (ctx.features @ ctx.features[rows].T).amax(1))).sum())
    if name == "probcover":
        return float((cosines.amax(1) > 1 - DELTA**2 / 2).float().mean())
    radius, own = 1.0, torch.ones(N)
    if name == "uherding":
        radius, own = labeled_radius(ctx.labeled_features), smallness_of_margin(ctx.logits)
    return float(own @ ((2 * cosines.amax(1) - 2) / radius**2).exp())


@pytest.mark.parametrize("name", NAMES)
def test_nine_tenths_of_the_gain_over_random_is_kept(ctx, name):
    """Nine times as many candidates and targets as are looked at, or lists of 32 neighbors, at 9,000 images."""
    parameters = {"delta": DELTA} if name == "probcover" else {}
    queries = [select(sampler_by_name(name, max_pool=bound, **parameters), replace(ctx, rng=rng_for(0, "test")))
               for bound in (N, 1000)]
    assert not queries[0].approximation and queries[1].approximation
    weights = queries[0].pool_scores if name == "cec" else torch.ones(N)
    exact, approximate = (value(ctx, name, query.rows, weights) for query in queries)
    random = [value(ctx, name, torch.from_numpy(rng_for(seed, "random").permutation(N)[:N_QUERY]), weights)
              for seed in range(10)]
    least = sum(random) / len(random)
    assert exact > least and approximate - least >= 0.9 * (exact - least)


@pytest.mark.parametrize("name", ["dcom", "maxherding", "promptherding", "uherding"])
def test_a_subset_of_everything_is_the_exact_sampler(name):
    """Where all rows are candidates and targets, in whatever order these are drawn."""
    for own in small_pools(40):
        if own.n_query < own.n_pool:
            assert picks(sampler_by_name(name, max_pool=1), own) == picks(sampler_by_name(name), own)


def test_candidates_and_targets_are_as_many_as_are_said(monkeypatch):
    """Picks are candidates. The first gains are computed from the targets only, and other rows have none."""
    monkeypatch.setattr(herding, "CANDIDATES", 20)
    monkeypatch.setattr(herding, "TARGETS", 1)
    own = make_context(n_pool=60, n_labeled=4, n_query=6)
    query = select(sampler_by_name("maxherding", max_pool=10), own)
    assert query.approximation == {"index": "subset", "candidates": 20, "targets": 10}
    assert int(query.pool_scores.isfinite().sum()) == 20 and query.pool_scores[query.rows].isfinite().all()
    rng = rng_for(0, "contract")
    drawn = herding.drawn(torch.ones(60), 10, rng).nonzero().flatten()
    rows, targets, _ = herding.subset(replace(own, rng=rng), drawn)
    assert rows[targets].tolist() == drawn.tolist() and len(drawn) == 10
    kernels = (2 * own.features.double() @ own.features.double()[rows[targets]].T - 2).exp()
    covered = (2 * own.labeled_features.double() @ own.features.double()[rows[targets]].T - 2).exp().amax(0)
    gains = (kernels - covered).clamp(min=0).sum(1)[rows[:20]]
    assert torch.allclose(query.pool_scores[rows[:20]].double(), gains, atol=1e-5)


def test_targets_are_drawn_as_often_as_they_weigh():
    """Rounded up or down in each draw, and exactly so in the mean of many; what weighs nothing is never drawn."""
    weights = torch.tensor([0.0, 0.5, 0.25, 3.0, 0.0, 1.25, *[0.05] * 20])
    expected = 12 * weights.double() / weights.double().sum()
    draws = torch.stack([herding.drawn(weights, 12, rng_for(seed, "draws")) for seed in range(4000)]).double()
    assert bool((draws.sum(1) == 12).all()) and bool(((draws - expected).abs() < 1 - 1e-9).all())
    assert (draws.mean(0) - expected).abs().max() < 0.03  # about four deviations of a mean
    assert len({tuple(own.tolist()) for own in draws}) > 1000


def test_targets_that_weigh_much_are_not_left_out(ctx):
    """Where a tenth of the images weigh nearly all, as many targets as a ninth of the pool keep nine tenths of the gain."""
    sharp = replace(ctx, logits=12 * ctx.logits)
    weights, radius = smallness_of_margin(sharp.logits), labeled_radius(ctx.labeled_features)
    assert float(weights.sum()**2 / weights.square().sum()) < 0.25 * N

    def covered(rows: torch.Tensor) -> float:
        nearest = (ctx.features @ torch.cat([ctx.features[rows], ctx.labeled_features]).T).amax(1)
        return float(weights @ ((2 * nearest - 2) / radius**2).exp())

    exact = covered(herding.herd(sharp, weights, radius).rows)
    least = sum(covered(torch.from_numpy(rng_for(seed, "random").permutation(N)[:N_QUERY])) for seed in range(10)) / 10
    with pytest.MonkeyPatch.context() as few:
        few.setattr(herding, "MOST_TARGETS", 1000)
        found = [herding.herd_subset(replace(sharp, rng=rng_for(seed, "few")), weights, radius).rows for seed in range(3)]
    assert sum(map(covered, found)) / 3 - least > 0.9 * (exact - least)


def test_where_nothing_is_uncertain_a_subset_is_asked_from_too(monkeypatch):
    """All weights are 0: as in the exact form, the lowest candidates are asked."""
    monkeypatch.setattr(herding, "TARGETS", 1)
    own = make_context(n_pool=60, n_query=6)
    own = replace(own, logits=200 * F.one_hot(own.ids % own.n_classes, own.n_classes).float())
    assert not smallness_of_margin(own.logits).any()
    assert picks(sampler_by_name("uherding", max_pool=10), own) == picks(sampler_by_name("uherding"), own)


@pytest.mark.parametrize("name", [*NAMES, "dcom", "promptherding"])
def test_exact_refuses_what_cannot_be_afforded(name):
    """Row 47: one line gives hours, memory and how to go on. Below the limit, `exact` changes nothing."""
    own = make_context()
    with pytest.raises(UserError, match=rf"^{name} compares all pairs of 70 images: .* hours .* GiB .*now 60.*EXACT false"):
        picks(sampler_by_name(name, max_pool=60, exact=True), own)
    assert picks(sampler_by_name(name, exact=True), own) == picks(sampler_by_name(name), own)


@pytest.mark.parametrize("name", [*NAMES, "dcom", "promptherding"])
def test_approximate_picks_repeat(name):
    """The same seed gives the same picks, to the last digit of scores and recall."""
    own = make_context(n_pool=1200, n_query=5)
    first, second = (select(sampler_by_name(name, max_pool=1000), replace(own, rng=rng_for(0, "test"))) for _ in range(2))
    assert first.rows.tolist() == second.rows.tolist() and first.approximation == second.approximation
