"""ALFA-Mix: the closed form gives the same picks as direct mixing."""

import math
from dataclasses import replace

import pytest
import torch

from active.registry import SAMPLERS
from active.samplers.alfa_mix import alfa_mix, class_anchors, flip_caps
from active.selection import select
from active.testing import make_context, sampler_by_name, small_pools, without_labels
from tests.active.samplers import plain


def _anchors(ctx) -> list[list[float]]:
    """Mean labeled feature of each class, of all labeled rows where it has none; the texts without labels."""
    rows, labels = ctx.labeled_features.double().tolist(), ctx.labels.tolist()
    if not rows:
        return ctx.directions.double().tolist()
    members = [[x for x, y in zip(rows, labels, strict=True) if y == k] or rows for k in range(ctx.n_classes)]
    return [[sum(x[d] for x in mine) / len(mine) for d in range(len(rows[0]))] for mine in members]


def of_a_head(ctx, seed: int):
    """Return the context of a linear head: rows of lengths 0.3 to 1.5, a bias, and logits made of both."""
    rng = torch.Generator().manual_seed(seed)
    rows = ctx.text_features * (0.3 + 1.2 * torch.rand(ctx.n_classes, 1, generator=rng))
    bias = 0.3 * torch.randn(ctx.n_classes, generator=rng)
    logits, labeled = (20 * (features @ rows.T + bias) for features in (ctx.features, ctx.labeled_features))
    return replace(ctx, text_features=rows, bias=bias, logits=logits, labeled_logits=labeled)


def _flips(ctx, row: int, anchor: list[float], cap: float) -> bool:
    """Mix with an explicit alpha for each dimension, as the paper writes it, and predict again."""
    texts, u = ctx.text_features.double().tolist(), ctx.features[row].double().tolist()
    logits = ctx.logits[row].double().tolist()
    predicted, probs, width = logits.index(max(logits)), plain.softmax(logits), len(u)
    others = sum(p for k, p in enumerate(probs) if k != predicted)  # 1 - p of the predicted class, with all its digits
    errors = [-others if k == predicted else p for k, p in enumerate(probs)]
    gradient = [sum(e * t[d] for e, t in zip(errors, texts, strict=True)) for d in range(width)]
    length = math.sqrt(plain.dot(gradient, gradient))
    if length == 0:
        return False
    difference = [a - x for a, x in zip(anchor, u, strict=True)]
    bound = cap / math.sqrt(width) * math.sqrt(plain.dot(difference, difference))
    alpha = [bound * g / length / d for g, d in zip(gradient, difference, strict=True)]
    mixed = [x + a * d for x, a, d in zip(u, alpha, difference, strict=True)]
    bias = [0.0] * len(texts) if ctx.bias is None else ctx.bias.double().tolist()
    scores = [plain.dot(mixed, t) + b for t, b in zip(texts, bias, strict=True)]
    return scores.index(max(scores)) != predicted


def _direct(ctx, delta: float, rng) -> list[int]:
    """The loop over caps and classes, then k-means, in plain Python."""
    anchors, cap = _anchors(ctx), 0.0
    for step in range(1, math.ceil(1 / delta) + 1):
        cap = delta * step
        candidates = [row for row in range(ctx.n_pool) if any(_flips(ctx, row, anchor, cap) for anchor in anchors)]
        if len(candidates) > ctx.n_query:
            break
    picked = []
    if candidates:
        points = ctx.features[candidates].double().tolist()
        centers, labels = plain.k_means(points, ctx.n_query, rng)
        picked = [candidates[plain.nearest_member(points, centers, labels, c)] for c in range(len(centers))]
    rest = [row for row in range(ctx.n_pool) if row not in picked]
    return picked + [rest[place] for place in rng.permutation(len(rest))[: ctx.n_query - len(picked)]]


@pytest.mark.parametrize("head", [False, True])
def test_equals_direct_mixing_in_plain_python(head):
    """The picks on 200 pools, a third of them without labels, with the default step; of texts, and of rows with a bias."""
    for seed, ctx in enumerate(small_pools()):
        ctx = of_a_head(ctx, seed) if head else ctx
        ctx = replace(without_labels(ctx) if seed % 3 == 0 else ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        if ctx.n_query:
            assert select(alfa_mix, replace(ctx, rng=plain.fresh(seed))).rows.tolist() == _direct(ctx, 0.2, plain.fresh(seed))


@pytest.mark.parametrize("head", [False, True])
def test_the_threshold_is_where_direct_mixing_flips(head):
    """Just below each row's cap no class flips it and just above some class does; 32 caps on a grid agree as well."""
    n_finite = 0
    for seed, ctx in enumerate(small_pools(60)):
        ctx = of_a_head(ctx, seed) if head else ctx
        ctx = replace(ctx, logits=ctx.logits / 4)  # a certain row's p - 1 has few digits left, here, in float64
        anchors = _anchors(ctx)
        for row, cap in enumerate(flip_caps(ctx).double().tolist()):
            if math.isinf(cap):
                assert not any(_flips(ctx, row, anchor, 1e3) for anchor in anchors)
                continue
            n_finite += 1
            assert not any(_flips(ctx, row, anchor, cap * (1 - 1e-4)) for anchor in anchors)
            assert any(_flips(ctx, row, anchor, cap * (1 + 1e-4) + 1e-6) for anchor in anchors)
    assert n_finite > 500
    ctx = of_a_head(make_context(n_pool=40), 0) if head else make_context(n_pool=40)
    caps, anchors = flip_caps(ctx), _anchors(ctx)
    for step in range(1, 33):
        flipped = [row for row in range(40) if any(_flips(ctx, row, anchor, step / 32) for anchor in anchors)]
        assert (caps < step / 32).nonzero().flatten().tolist() == flipped


def test_three_candidates_solved_by_hand():
    """Texts on the axes, the only labeled row at 180 degrees: cap(t) = (cos t - sin t) / (2 cos(t / 2)).

    Below the first step of 0.2 are 30, 40 and 44 degrees, more than the one label to buy; 40 is nearest to their mean.
    """
    degrees = torch.deg2rad(torch.tensor([30.0, 10.0, 40.0, 44.0]))
    features = torch.stack([degrees.cos(), degrees.sin()], 1)
    ctx = make_context(n_pool=4, n_labeled=1, n_classes=2, width=2, n_query=1)
    ctx = replace(ctx, features=features, logits=20 * features, text_features=torch.eye(2),
                  labeled_features=torch.tensor([[-1.0, 0]]), labels=torch.tensor([0]))
    assert flip_caps(ctx).tolist() == pytest.approx([0.18946, 0.40713, 0.06558, 0.01331], abs=1e-4)
    assert select(alfa_mix, ctx).rows.tolist() == [2]


def test_more_steps_never_lose_a_candidate():
    """A smaller step visits lower caps first, and these hold fewer rows. The number of candidates grows with the cap."""
    caps = flip_caps(make_context(n_pool=70))
    counts = [int((caps < cap).sum()) for cap in torch.linspace(0, 3, 50)]
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] > counts[1]


def test_without_candidates_distinct_random_rows_are_asked():
    """Certain predictions have no gradient, so all 30 picks are random and distinct. Another stream gives others."""
    ctx = make_context(n_query=30)
    ctx = replace(ctx, logits=1e4 * torch.nn.functional.one_hot(ctx.logits.argmax(1), ctx.n_classes).float())
    assert flip_caps(ctx).isinf().all()
    first, second = (select(alfa_mix, replace(ctx, rng=plain.fresh(seed))).rows.tolist() for seed in (0, 1))
    assert len(set(first)) == 30 and first != second


def test_the_anchor_of_a_row_itself_never_flips_it():
    """With one labeled row equal to the pool's row, the step has length 0; this must not divide by 0."""
    ctx = make_context(n_pool=3, n_labeled=1, n_query=1)
    ctx = replace(ctx, features=ctx.features[:1].expand(3, -1), logits=ctx.logits[:1].expand(3, -1),
                  labeled_features=ctx.features[:1])
    assert flip_caps(ctx).isinf().all()


def test_anchors_are_class_means():
    """They equal plain sums. A class without labels gets the mean of all."""
    for ctx in small_pools(50):
        assert torch.allclose(class_anchors(ctx), torch.tensor(_anchors(ctx)), atol=1e-6)


def test_it_needs_a_linear_learner():
    """Thresholds are computed from products with rows; the logits of a cache are not linear."""
    assert SAMPLERS["alfa_mix"].facts["needs_linear"] is True


def test_a_smaller_step_takes_fewer_candidates():
    """delta decides at which cap the loop stops, so it decides the picks."""
    ctx = make_context(3, n_pool=70, n_query=3)
    answers = {delta: select(sampler_by_name("alfa_mix", delta=delta), replace(ctx, rng=plain.fresh(0))).rows.tolist()
               for delta in (0.02, 1.0)}
    caps = flip_caps(ctx)
    assert answers[0.02] != answers[1.0]
    assert caps[answers[0.02]].max() < caps.sort().values[10]


def test_the_paper_begins_at_random():
    """`ACTIVE.INITIAL_SAMPLER: auto` takes `random` for it."""
    assert SAMPLERS["alfa_mix"].facts["needs_labels"] is True
