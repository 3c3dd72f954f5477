"""ActiveFT against the loss itself: finite differences, autograd, and a whole selection by them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from active.context import SelectionContext
from active.samplers.activeft import gradient, moved, nearest_free
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels
from dassl.utils.seeding import rng_for

TAU = 0.07


def loss(rows: torch.Tensor, centers: torch.Tensor, fixed: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """The paper's loss over all centers. `held` are the centers that are constant for the gradient."""
    everything, others = torch.cat([centers, fixed]), torch.cat([held, fixed])
    cosines = rows @ everything.T / TAU
    largest, nearest = cosines.max(1)
    sums = (everything @ others.T / TAU).logsumexp(1)[nearest]
    return -(largest - torch.logaddexp(largest, sums)).mean()


def parts(ctx: SelectionContext) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return ctx.features.double(), F.normalize(ctx.features[: ctx.n_query].double() + 0.05, dim=1), ctx.labeled_features.double()


def near(rows: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
    return (rows @ fixed.T).amax(1) if len(fixed) else torch.full((len(rows),), -torch.inf, dtype=torch.float64)


@pytest.mark.parametrize("with_labels", [True, False])
def test_the_gradient_is_that_of_finite_differences(with_labels):
    """One number of one center is changed at a time; held centers stay fixed."""
    ctx = make_context(2, n_pool=25, width=4, n_query=5, n_labeled=4)
    rows, centers, fixed = parts(ctx if with_labels else without_labels(ctx))
    expected, step = torch.zeros_like(centers), 1e-6
    for place in np.ndindex(*centers.shape):
        ends = []
        for sign in (1, -1):
            changed = centers.clone()
            changed[place] += sign * step
            ends.append(loss(rows, changed, fixed, centers))
        expected[place] = (ends[0] - ends[1]) / (2 * step)
    assert gradient(rows, centers, fixed, near(rows, fixed), TAU) == pytest.approx(expected, abs=1e-7)


def test_activeft_is_its_loss_by_autograd():
    """On 200 small pools, with labels and without: the same centers, and the rows nearest to them."""
    for number, ctx in enumerate(small_pools(200)):
        ctx = replace(without_labels(ctx) if number % 4 == 0 else ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        rows, fixed = ctx.features.double(), ctx.labeled_features.double()
        free = rows[torch.from_numpy(rng_for(0, "picks").permutation(ctx.n_pool)[: ctx.n_query])].clone().requires_grad_()
        optimizer = torch.optim.Adam([free], lr=0.05)
        for _ in range(8):
            optimizer.zero_grad()
            centers = F.normalize(free, dim=1)
            loss(rows, centers, fixed, centers.detach()).backward()
            optimizer.step()
        cosines, expected = F.normalize(free.detach(), dim=1) @ rows.T, []
        for own in cosines.tolist():
            expected.append(max((row for row in range(ctx.n_pool) if row not in expected), key=lambda row, own=own: own[row]))
        assert picks(sampler_by_name("activeft", steps=8, lr=0.05), ctx) == ctx.ids[expected].tolist()


def test_the_loss_falls_and_centers_stay_unit():
    rows, centers, fixed = parts(make_context(1))
    after = moved(rows, centers, fixed, 50, (0.01, TAU))
    assert loss(rows, after, fixed, after) < loss(rows, centers, fixed, centers)
    assert after.norm(dim=1) == pytest.approx(torch.ones(len(after), dtype=torch.float64))


def test_labels_repel():
    """Centers end up farther from a labeled row than they would without it."""
    for seed in range(5):
        rows, centers, _ = parts(make_context(seed))
        label = F.normalize(rows[:8].sum(0, keepdim=True), dim=1)
        with_it, without = (moved(rows, centers, fixed, 200, (0.01, TAU)) for fixed in (label, label[:0]))
        assert (with_it @ label.T).mean() < (without @ label.T).mean()


def test_a_row_is_taken_once():
    """Centers at the same place take the nearest row, then the next one. Of equal rows the lower one is taken first."""
    rows = F.normalize(torch.tensor([[1.0, 0.2], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), dim=1)
    assert nearest_free(rows, torch.tensor([[1.0, 0.0]] * 3)).tolist() == [1, 3, 0]


def test_above_max_rows_a_part_tells_and_all_can_be_picked():
    """Centers follow random rows, as many as `max_rows`, in the order of the pool."""
    ctx, rng = make_context(3, n_pool=60, n_query=20), rng_for(0, "picks")
    starts, some = rng.permutation(60)[:20], sorted(rng.permutation(60)[:10])
    centers = moved(ctx.features[some], ctx.features[starts], ctx.labeled_features, 300, (0.001, TAU))
    expected = ctx.ids[nearest_free(ctx.features, centers)].tolist()
    assert picks(sampler_by_name("activeft", max_rows=10), ctx) == expected
    assert len(set(expected)) == 20 and set(expected) - set(ctx.ids[some].tolist())
