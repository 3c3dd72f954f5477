"""BADGE: the factorized form gives the same picks as the dense one."""

from dataclasses import replace

import pytest
import torch

from active.samplers.badge import badge
from active.selection import select
from active.testing import make_context, small_pools, without_labels
from tests.active.samplers import plain


def _gradient(logits: list[float], feature: list[float]) -> list[float]:
    """The outer product of (p - e) and the feature, written out."""
    probs = plain.softmax(logits)
    predicted = logits.index(max(logits))
    return [(p - (k == predicted)) * x for k, p in enumerate(probs) for x in feature]


def _dense(ctx, rng) -> list[int]:
    gradients = [_gradient(z, x) for z, x in zip(ctx.logits.double().tolist(), ctx.features.double().tolist(), strict=True)]
    norms = [plain.dot(g, g) for g in gradients]
    return plain.d2_sample(gradients, ctx.n_query, rng, first=norms.index(max(norms)))


def test_equals_the_dense_form_in_plain_python():
    """Identical picks in identical order given the same random numbers, on 200 pools, with and without labels."""
    for seed, ctx in enumerate(small_pools()):
        ctx = replace(ctx, logits=ctx.logits / 5)
        if ctx.n_query < ctx.n_pool:
            for labeled in (ctx, without_labels(ctx)):
                rows = select(badge, replace(labeled, rng=plain.fresh(seed))).rows.tolist()
                assert rows == _dense(ctx, plain.fresh(seed))


def test_two_picks_solved_by_hand():
    """Residual lengths 0.5, 0.1 and 0 times sqrt 2 on orthogonal features: row 1 first, then row 0, row 2 being nearest."""
    probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [1.0, 1e-12]])
    ctx = replace(make_context(n_pool=3, n_classes=2, width=2, n_query=1), logits=probs.log())
    ctx = replace(ctx, features=torch.tensor([[1.0, 0], [0, 1], [0, 1]]))
    assert select(badge, ctx).rows.tolist() == [1]

    class _Fixed:  # squared distances to row 1: 0.02 + 0.5 and 0.5, so row 0 below 0.52 / 1.02 = 0.5098
        def __init__(self, u):
            self.u = u

        def random(self):
            return self.u

    for u, second in ((0.509, 0), (0.511, 2)):
        assert select(badge, replace(ctx, n_query=2, rng=_Fixed(u))).rows.tolist() == [1, second]


def test_the_logit_scale_does_not_enter_the_gradient():
    """Features of any common length give the same picks: a constant factor cancels."""
    ctx = make_context(n_query=9)
    one, many = (select(badge, replace(ctx, features=scale * ctx.features, rng=plain.fresh(0))).rows for scale in (1, 64))
    assert torch.equal(one, many)


@pytest.mark.parametrize("seed", range(10))
def test_identical_images_are_not_both_asked_while_another_one_is_left(seed):
    """20 images twice in the pool: 20 picks take each image once."""
    ctx = make_context(seed, n_pool=20)
    logits, features = (ctx.logits / 5).repeat(2, 1), ctx.features.repeat(2, 1)
    ctx = replace(make_context(seed, n_pool=40, n_query=20), logits=logits, zero_shot_logits=logits, features=features)
    rows = select(badge, replace(ctx, rng=plain.fresh(seed))).rows
    assert len((rows % 20).unique()) == 20


@pytest.mark.parametrize("n_pool", [64, 65, 95, 70])
def test_the_last_rows_have_their_own_gradient(n_pool):
    """An uncertain row behind the last full batch of 32 must be found; other code leaves zeros there."""
    ctx = make_context(n_pool=n_pool, n_query=1)
    logits = 40.0 * torch.nn.functional.one_hot(ctx.logits.argmax(1), ctx.n_classes)
    logits[-1] = 0
    assert select(badge, replace(ctx, logits=logits.float())).rows.tolist() == [n_pool - 1]


def test_certain_predictions_are_drawn_uniformly():
    """All gradients are 0: every row comes up as the second pick."""
    ctx = make_context(n_pool=6, n_query=2)
    logits = 1e4 * torch.nn.functional.one_hot(ctx.logits.argmax(1), ctx.n_classes).float()
    seconds = {int(select(badge, replace(ctx, logits=logits, rng=plain.fresh(seed))).rows[1]) for seed in range(60)}
    assert seconds == {1, 2, 3, 4, 5}
