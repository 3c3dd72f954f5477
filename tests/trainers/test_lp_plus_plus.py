"""LPpp: both forms against slow references in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import trainers.lp_plus_plus as lp
from tests.trainers.heads import SCALE, errors, logits_of, permuted, prepared, problem, rows_of, twice, weighted, zero_shot
from trainers.testing import CHECKS, check_absent, check_class_permutation, learner_by_name

COUNTS = [(3, 0, 1, 4, 2), (1, 0, 0, 0, 0), (2, 2, 2, 2, 2), (9, 8, 7, 6, 5)]


def loss(given, w, alpha, b=0.0) -> float:
    """Return the mean CE of (1), one image at a time."""
    features, targets, texts = given.parts
    total = 0.0
    for v, y in zip(features, targets, strict=True):
        logits = np.where(given.counted, (w + alpha * texts) @ v + b, -np.inf)
        total += logits.max() + np.log(np.exp(logits - logits.max()).sum()) - logits[y]
    return total / len(features)


def gradients(given, w, alpha, b):
    """Return those of the mean CE by w, alpha and b, one image at a time."""
    features, targets, texts = given.parts
    by_w, by_alpha, by_b = np.zeros_like(w), np.zeros(len(texts)), np.zeros(len(texts))
    for v, y in zip(features, targets, strict=True):
        logits = w @ v + alpha[:, 0] * (texts @ v) + b
        wrong = errors(logits[None], np.array([y]), given.counted)[0] / len(features)
        by_w, by_alpha, by_b = by_w + np.outer(wrong, v), by_alpha + wrong * (texts @ v), by_b + wrong
    return by_w, by_alpha, by_b


def start(given, form: str):
    """Return w, alpha [C, 1] and the rates of w and alpha."""
    features, targets, texts = given.parts
    own = {k: features[targets == k] for k in range(len(texts)) if (targets == k).any()}
    alpha = np.full((len(texts), 1), 250 * np.mean([(rows @ texts[k]).mean() for k, rows in own.items()]))
    largest = np.linalg.norm(features, 2) ** 2
    rate_alpha = len(features) / (4 * max(((features @ t) ** 2).sum() for t in texts))
    if form == "reference":
        w = np.array([own[k].sum(0) if k in own else np.zeros(16) for k in range(len(texts))])
        return w, alpha, 4 * len(features) / largest, rate_alpha
    center = np.mean([rows.mean(0) for rows in own.values()], axis=0)
    w = np.array([own[k].mean(0) - center if k in own else np.zeros(16) for k in range(len(texts))])
    return w, alpha, 2 * len(features) / largest, 0.0


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("form", ["scale", "data", "reference"])
def test_it_takes_the_path_of_its_formulas(clip, form, counts, masked):
    """35 steps: w by momentum, b too in the reference, alpha at every 10th by all gradients since the first."""
    given = problem(counts, masked=masked)
    options = {"form": "reference"} if form == "reference" else {"alpha": form}
    learner = prepared(clip, "LPpp", given, steps=35, **options)
    w, alpha, rate, rate_alpha = start(given, form)
    alpha = np.full_like(alpha, SCALE) if form == "scale" else alpha
    b, fixed = learner.first_bias.numpy(), form != "reference"
    assert (np.abs(b) <= 0.25).all() and (b == 0).all() == fixed
    speed, speed_b, added = np.zeros_like(w), np.zeros_like(b), np.zeros_like(b)
    for step in range(1, 36):
        by_w, by_alpha, by_b = gradients(given, w, alpha, b)
        speed, speed_b, added = 0.9 * speed + by_w, 0.9 * speed_b + by_b, added + by_alpha
        w, b = w - rate * speed, b if fixed else b - rate * speed_b
        if step % 10 == 0:
            alpha = alpha - rate_alpha * added[:, None]
    expected = given.images.numpy() @ (w + alpha * given.texts.numpy()).T + b
    assert np.abs(logits_of(learner, given) - expected).max() < 1e-10 * np.abs(expected).max()


def test_rates_on_a_case_by_hand(clip):
    """Two equal features and an orthogonal one: lambda_max is 2, M 3; cosines with their texts are 0.6 and 1."""
    given = problem((2, 1))
    axes = torch.eye(16, dtype=torch.float64)
    labels = replace(given.labels, features=axes[[0, 0, 1]])
    texts = torch.stack([0.6 * axes[0] + 0.8 * axes[2], axes[1]])
    by_features, by_cosines = lp._Data.of(labels, texts).rates()
    assert float(by_features) == pytest.approx(3 / 2) and float(by_cosines) == pytest.approx(3 / 1)


@pytest.mark.parametrize("masked", [True, False])
def test_without_momentum_the_loss_never_rises(clip, masked, monkeypatch):
    """The rate is one over the bound of the curvature. With momentum the last loss is even lower."""
    given = problem(masked=masked)
    monkeypatch.setattr(lp, "MOMENTUM", 0.0)
    losses = []
    for steps in range(12):
        learner = prepared(clip, "LPpp", given, steps=steps)
        losses.append(loss(given, SCALE * learner.shift.numpy(), SCALE))
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


@pytest.mark.parametrize("alpha", ["scale", "data"])
def test_a_class_without_a_label_keeps_its_scaled_text(clip, alpha):
    """When masked, its w stays 0. Without any label everything is zero-shot."""
    given = problem()
    learner = prepared(clip, "LPpp", given, alpha=alpha)
    assert np.array_equal(rows_of(learner, given)[1], (learner.multiplier[1] * given.texts[1]).numpy())
    assert alpha == "data" or float(learner.multiplier[1]) == 1
    assert np.abs(logits_of(prepared(clip, "LPpp", problem((0,) * 5), alpha=alpha), given) - zero_shot(given)).max() < 1e-12


def test_order_does_not_matter_and_weights_are_numbers(clip):
    """Another order of labels changes nothing. The loss is a mean, so the common weight of all labels does not matter."""
    given = problem()
    found, shuffled, heavy, double = (logits_of(prepared(clip, "LPpp", own), given) for own in (
        given, permuted(given, np.arange(10)[::-1].copy()), weighted(given, 2.0), twice(given)))
    assert max(np.abs(found - own).max() for own in (shuffled, heavy, double)) < 1e-9


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in (check_class_permutation, check_absent)])
def test_the_reference_keeps_the_contract(check):
    """Two checks are left out: the order of classes, to which its random bias is tied, and texts without alpha."""
    check(learner_by_name("LPpp", form="reference"))
