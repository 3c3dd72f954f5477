"""DCoM against a slow reference: radii by a scan, coverage and picks one image at a time."""

import math
from dataclasses import replace

import pytest
import torch

from active.context import SelectionContext
from active.kernels.herding import mass_radius
from active.samplers.dcom import by_both, competence, label_balls, pure_ball
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels
from dassl.utils.errors import UserError
from dassl.utils.seeding import rng_for
from tests.active.samplers import plain

CAP = 0.7


def distances_from(row: torch.Tensor, rows: torch.Tensor) -> list[float]:
    """Of cosines rounded to six digits, as the sampler has them."""
    return [math.sqrt(max(2 - 2 * round(plain.dot(row.tolist(), other), 6), 0.0)) for other in rows.tolist()]


def scan(distances: list[float], is_own: list[bool], cap: float, purity: float) -> float:
    """Return the largest of the distances and the cap whose ball is pure enough, or 0 if there is none."""
    found = 0.0
    for radius in sorted({*(own for own in distances if own <= cap), cap}):
        inside = [own for distance, own in zip(distances, is_own, strict=True) if distance <= radius + 1e-9]
        found = radius if inside and sum(inside) >= purity * len(inside) - 1e-9 else found
    return found


def balls_by_hand(ctx: SelectionContext, purity: float) -> tuple[list[float], set[int]]:
    rows = torch.cat([ctx.features, ctx.labeled_features]).double()
    predicted = torch.cat([ctx.logits, ctx.labeled_logits]).argmax(1).tolist()
    radii, covered = [], set()
    for row, label in zip(ctx.labeled_features.double(), ctx.labels.tolist(), strict=True):
        distances = distances_from(row, rows)
        radius = scan(distances, [own == label for own in predicted], CAP, purity)
        pure = [own for own, distance in zip(predicted, distances, strict=True) if distance <= radius + 1e-9]
        radii.append(radius)
        if radius or (pure and pure.count(label) >= purity * len(pure) - 1e-9):
            covered |= {place for place, distance in enumerate(distances) if distance <= radius + 1e-9}
    return radii, covered


def by_hand(ctx: SelectionContext) -> tuple[list[int], list[float]]:
    """Return the picks and their values."""
    n_rows = ctx.n_pool + len(ctx.labels)
    _, covered = balls_by_hand(ctx, 0.4)
    radii, covered = balls_by_hand(ctx, 0.4 + 0.2 * len(covered) / n_rows)
    radius, share = sum(radii) / len(radii), len(covered) / n_rows
    own = (1 + math.exp(-50 * 0.2)) / (1 + math.exp(-50 * (share - 0.8)))
    features, uncovered, found, values = ctx.features.double(), set(range(ctx.n_pool)) - covered, [], []
    near = [{other for other, cosine in enumerate((features @ row).tolist()) if cosine > 1 - radius**2 / 2 - 1e-6}
            for row in features]
    margins = [sorted(plain.softmax(row), reverse=True) for row in ctx.logits.double().tolist()]
    uncertain = between([1 - first + second for first, second, *_ in margins])
    for _ in range(ctx.n_query):
        degrees = between([float(len(near[row] & uncovered)) for row in range(ctx.n_pool)])
        scores = [-1.0 if row in found else own * u + (1 - own) * degree
                  for row, (u, degree) in enumerate(zip(uncertain, degrees, strict=True))]
        found.append(next(row for row, score in enumerate(scores) if score >= (1 - 1e-10) * max(scores)))
        values.append(scores[found[-1]])
        uncovered -= near[found[-1]]
    return found, values


def between(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]


def test_dcom_is_its_slow_form():
    """On 200 small pools, more or less covered."""
    sampler, n_margin = sampler_by_name("dcom", max_radius=CAP), 0
    for ctx in small_pools(200):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        query, (rows, values) = select(sampler, ctx), by_hand(ctx)
        assert query.rows.tolist() == rows and query.scores.tolist() == pytest.approx(values, abs=1e-5)
        assert float(query.pool_scores[rows[0]]) == pytest.approx(values[0], abs=1e-5)
        n_margin += ctx.ids[rows].tolist() == picks(sampler_by_name("margin"), ctx)
    assert 10 < n_margin < 150


def test_the_cap_is_the_radius_of_a_ball_that_holds_one_in_c_images():
    """As `mass_radius` has it; without a cap some balls would be larger."""
    n_larger = 0
    for ctx in small_pools(40):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        cap = mass_radius(ctx.features, ctx.n_classes, rng_for(0, "cap"))
        own, given, larger = (picks(sampler_by_name("dcom", max_radius=radius), ctx) for radius in (0.0, cap, 1.9))
        assert own == given
        n_larger += own != larger
    assert n_larger > 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_copies_lie_in_the_same_balls_in_half_precision_too(dtype):
    """Balls of radius 0 hold the copies of one image each, so no image is asked twice before all are."""
    n_copies = torch.arange(1, 41).clamp(max=4)
    images, rows = torch.arange(40).repeat_interleave(n_copies), make_context(width=512).features[:40]
    ctx = replace(make_context(0, n_pool=len(images), n_query=39), features=rows.repeat_interleave(n_copies, 0).to(dtype))
    query = select(lambda ctx: by_both(ctx, 0.0, 0.0, torch.ones(len(images), dtype=torch.bool)), ctx)
    assert len(images[query.rows].unique()) == 39


def test_radii_are_those_of_a_scan():
    """Purity is not monotone: the largest ball that is pure enough counts, not the first that is not."""
    cosines = torch.tensor([1.0, 0.95, 0.9, 0.9, 0.8, 0.7, 0.6, 0.1])
    is_own = torch.tensor([True, False, False, True, True, True, False, True])
    radius, least = pure_ball(cosines, is_own, 1.0, 0.6)
    assert least == pytest.approx(0.7) and radius == pytest.approx(math.sqrt(0.6))
    assert pure_ball(cosines, is_own, 0.5, 0.6)[1] == pytest.approx(1.0)  # the tie at 0.9 is half pure, but two of four
    assert pure_ball(cosines, is_own, 0.5, 0.5) == pytest.approx((0.5, 0.9))
    assert pure_ball(cosines, ~is_own, 0.1, 0.5) == (0.0, 2.0)


@pytest.mark.parametrize("purity", [0.4, 0.5, 0.6, 1.0])
def test_balls_of_labels_are_those_of_a_scan(purity):
    for ctx in small_pools(50):
        radii, covered = label_balls(ctx, CAP, purity)
        expected, held = balls_by_hand(ctx, purity)
        assert radii.tolist() == pytest.approx(expected, abs=1e-5) and set(covered.nonzero().flatten().tolist()) == held


def test_competence_is_a_switch_at_the_coverage():
    """Half at 0.8, all of it where everything is covered, and a step for a large steepness; it does not overflow."""
    assert competence(0.8, 50.0, 0.8) == pytest.approx(0.5, abs=1e-4) and competence(1.0, 50.0, 0.8) == 1.0
    assert competence(0.756, 50.0, 0.8) == pytest.approx(0.1, abs=2e-3) and competence(0.0, 50.0, 0.8) < 1e-15
    assert [competence(share, 1e6, 0.8) for share in (0.0, 0.79, 0.81, 1.0)] == pytest.approx([0, 0, 1, 1])


def test_a_steep_switch_is_margin_above_and_coverage_below():
    """The score is then either one term or the other."""
    ctx = make_context(3, n_query=12)
    assert picks(sampler_by_name("dcom", steepness=1e6, coverage=0.0), ctx) == picks(sampler_by_name("margin"), ctx)
    covering = picks(sampler_by_name("dcom", steepness=1e6, coverage=1.0), ctx)
    other = replace(ctx, logits=ctx.logits / 2)  # the same predictions, other margins
    assert covering == picks(sampler_by_name("dcom", steepness=1e6, coverage=1.0), other)


def test_coverage_alone_takes_the_largest_ball_then_the_next():
    """Three groups of five, three and one, and nothing is covered."""
    groups = torch.eye(8)[torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2])]
    ctx = replace(make_context(0, n_pool=9, n_query=4), features=groups)
    assert by_both(ctx, 0.0, 0.5, torch.ones(9, dtype=torch.bool)).rows.tolist() == [4, 1, 0, 2]


def test_the_first_round_is_probcovers():
    ctx = without_labels(make_context(2))
    assert picks(sampler_by_name("dcom"), ctx) == picks(sampler_by_name("probcover"), ctx)


def test_the_first_round_names_its_own_keys(caplog):
    """It is ProbCover's up to `MAX_POOL` and above, but the keys that decide are DCoM's: in the refusal and in the log."""
    ctx = without_labels(make_context(2))
    with pytest.raises(UserError, match=r"^dcom compares all pairs .*ACTIVE\.DCOM\.MAX_POOL, now 60, .*ACTIVE\.DCOM\.EXACT"):
        picks(sampler_by_name("dcom", max_pool=60, exact=True), ctx)
    with caplog.at_level("INFO"):
        found = picks(sampler_by_name("dcom", max_pool=60), ctx)
    assert "more than ACTIVE.DCOM.MAX_POOL, 60" in caplog.text and "PROBCOVER" not in caplog.text
    assert found == picks(sampler_by_name("probcover", max_pool=60), ctx)
