"""Random, entropy, margin and least confidence: the samplers that only rank."""

import math
from dataclasses import replace

import pytest
import torch

from active.kernels.scores import entropy
from active.registry import SAMPLERS
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, small_pools
from tests.active.samplers import plain

RULES = {
    "entropy": plain.entropy_of,
    "margin": lambda probs: -(sorted(probs)[-1] - sorted(probs)[-2]),
    "least_confidence": lambda probs: -max(probs),
}
BY_HAND = {"entropy": [1, 2, 0], "margin": [2, 1, 0], "least_confidence": [1, 2, 0]}


@pytest.mark.parametrize("name", RULES)
def test_three_rows_solved_by_hand(name):
    """0.7/0.2/0.1 is surest; 0.4/0.3/0.3 has the larger entropy and the smaller top, 0.45/0.44/0.11 the smaller margin."""
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.45, 0.44, 0.11], [1.0, 1e-9, 1e-9]])
    ctx = make_context(n_pool=4, n_classes=3, n_query=3)
    rows = select(sampler_by_name(name), replace(ctx, logits=probs.log())).rows
    assert rows.tolist() == BY_HAND[name]


@pytest.mark.parametrize("name", RULES)
def test_equals_plain_python(name):
    """The order of all picks on 200 pools."""
    for ctx in small_pools():
        scores = [RULES[name](plain.softmax(row)) for row in ctx.logits.double().tolist()]
        if ctx.n_query < ctx.n_pool:
            assert picks(sampler_by_name(name), ctx) == ctx.ids[plain.ranked(scores, ctx.n_query)].tolist()


@pytest.mark.parametrize("name", RULES)
def test_equal_rows_are_asked_in_the_order_of_their_ids(name):
    """Ties go to the lower id, whatever the order of the rows."""
    ctx = make_context(n_pool=9, n_query=4)
    same = replace(ctx, logits=torch.zeros_like(ctx.logits), ids=ctx.ids.flip(0))
    assert picks(sampler_by_name(name), same) == sorted(ctx.ids.tolist())[:4]


def test_entropies_at_their_bounds():
    """log C for uniform probabilities, 0 for one-hot ones, whatever is added to all logits of a row."""
    for shift in (0.0, 1e3):
        assert entropy(torch.full((1, 7), shift)).tolist() == pytest.approx([math.log(7)])
        assert entropy(shift + 1e4 * torch.eye(7)).tolist() == [0.0] * 7


def test_random_draws_each_row_equally_often():
    """Each of 10 rows is among 4 picks in 40 % of 3,000 draws, and a pick is uniform at every place."""
    ctx, counts = make_context(n_pool=10, n_query=4), torch.zeros(4, 10)
    sampler = sampler_by_name("random")
    for seed in range(3000):
        rows = select(sampler, replace(ctx, rng=plain.fresh(seed))).rows
        counts[torch.arange(4), rows] += 1
    assert ((counts - 300).square() / 300).sum(1).max() < 30  # 9 degrees of freedom, beyond the 0.1 % level


def test_these_start_cold():
    """They need only probabilities, which zero-shot CLIP has, so round 0 is their own."""
    assert not any(SAMPLERS[name].facts.get("needs_labels") for name in (*RULES, "random"))
