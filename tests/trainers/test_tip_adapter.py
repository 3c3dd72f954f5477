"""TipAdapter and TipAdapterF against slow references in float64."""

import numpy as np
import pytest
import torch

from dassl.utils.errors import UserError
from tests.trainers.heads import (
    SCALE,
    errors,
    logits_of,
    permuted,
    prepared,
    problem,
    trained,
    twice,
    weighted,
    zero_shot,
)
from trainers.testing import CHECKS, fitted, learner_by_name, make_inputs, make_trainer

COUNTS = [(3, 0, 1, 4, 2), (1, 0, 0, 0, 0), (2, 2, 2, 2, 2), (4, 3, 2, 1, 0), (9, 8, 7, 6, 5)]


def added(images, keys, targets, n_classes, *, beta=5.5, centered=True, count="sum") -> np.ndarray:
    """Return a [B, C] of (1) and (2), one image and one key at a time."""
    rows, own = [], [k for k in range(n_classes) if k in targets]
    for v in images:
        row = [sum(np.exp(-beta * (1 - v @ key)) for key, y in zip(keys, targets, strict=True) if y == k)
               for k in range(n_classes)]
        if count == "mean":
            row = [value / max(1, sum(y == k for y in targets)) for k, value in enumerate(row)]
        mean = sum(row[k] for k in own) / len(own) if centered else 0
        rows.append([row[k] - mean if k in own else 0.0 for k in range(n_classes)])
    return np.array(rows)


@pytest.mark.parametrize("count", ["sum", "mean"])
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
def test_logits_equal_the_formula(clip, counts, centered, count):
    """This includes last classes without a label, and other constants."""
    given = problem(counts)
    features, targets, _ = given.parts
    for alpha, beta in ((1.0, 5.5), (3.0, 1.0)):
        options = {"centered": centered, "count": count, "beta": beta}
        expected = zero_shot(given) + alpha * added(given.images.numpy(), features, targets.tolist(), 5, **options)
        found = logits_of(prepared(clip, "TipAdapter", given, alpha=alpha, **options), given)
        assert np.abs(found - expected).max() < 1e-10


def test_alpha_0_and_no_label_are_zero_shot(clip):
    given, nothing = problem(), problem((0,) * 5)
    for learner in (prepared(clip, "TipAdapter", given, alpha=0.0), prepared(clip, "TipAdapter", nothing)):
        assert np.abs(logits_of(learner, given) - zero_shot(given)).max() < 1e-12


def test_a_key_given_twice_has_weight_2_and_order_does_not_matter(clip):
    given = problem()
    found, shuffled, heavy, double = (logits_of(prepared(clip, "TipAdapter", own), given) for own in (
        given, permuted(given, np.arange(10)[::-1].copy()), weighted(given, 2.0), twice(given)))
    assert np.abs(found - shuffled).max() < 1e-12 and np.abs(heavy - double).max() < 1e-12 < np.abs(heavy - found).max()


@pytest.mark.parametrize("masked", [True, False])
def test_training_the_keys_follows_the_gradient_of_the_formula(clip, masked):
    """20 steps of gradient descent by K, one image, class and key at a time."""
    given = problem(masked=masked)
    features, targets, texts = given.parts
    keys, alive = features.copy(), [k for k in range(5) if k in targets]
    for _ in range(20):
        logits = SCALE * features @ texts.T + added(features, keys, targets.tolist(), 5)
        wrong = errors(logits, targets, given.counted) / len(features)
        gradient = np.zeros_like(keys)
        for v, error in zip(features, wrong, strict=True):
            mean = sum(error[k] for k in alive) / len(alive)  # of what centering takes off each
            for i, y in enumerate(targets):
                gradient[i] += (error[y] - mean) * 5.5 * np.exp(-5.5 * (1 - v @ keys[i])) * v
        keys = keys - 0.05 * gradient
    learner = trained(clip, "TipAdapterF", given, {"SGD": {"lr": 0.05}})
    assert np.abs(learner.keys.detach().numpy() - keys).max() < 1e-10 < np.abs(keys - features).max()
    expected = zero_shot(given) + added(given.images.numpy(), keys, targets.tolist(), 5)
    assert np.abs(logits_of(learner, given) - expected).max() < 1e-10


def test_a_class_without_a_label_keeps_its_zero_shot_logit(clip):
    """Centered, 0 is neutral: the cache neither adds to it nor takes from it."""
    given = problem()
    assert np.array_equal(logits_of(prepared(clip, "TipAdapter", given), given)[:, 1],
                          logits_of(prepared(clip, "TipAdapter", problem((0,) * 5)), given)[:, 1])


@pytest.mark.parametrize("name", ["TipAdapter", "TipAdapterF"])
@pytest.mark.parametrize("check", CHECKS)
def test_the_form_of_the_paper_keeps_the_contract(name, check):
    check(learner_by_name(name, centered=False, count="mean"))


def test_files_of_other_constants_widths_or_learners_are_refused(tmp_path):
    """Only the number of keys, which is that of the labels, may differ."""
    trainer = make_trainer(learner_by_name("TipAdapter"), make_inputs())
    trainer.save(fitted(trainer, [0, 1, 2]), path := tmp_path / "tip.safetensors")
    assert trainer.load(path).learner.keys.shape == (3, 16)
    with pytest.raises(UserError, match=r"another constants: .*5\.5.*1\.0"):
        make_trainer(learner_by_name("TipAdapter", beta=1.0), make_inputs()).load(path)
    with pytest.raises(UserError, match="another trainer"):
        make_trainer(learner_by_name("TipAdapterF"), make_inputs()).load(path)
    rla = make_trainer(learner_by_name("RLA"), make_inputs())
    with pytest.raises(UserError, match=r"another shape.*keys"):
        rla.load(path)
    learner = trainer.load(path).learner
    for state in ({"keys": torch.zeros(3, 8)}, {"weights": torch.zeros(2)}, {"targets": torch.zeros(3, 1)}):
        with pytest.raises(ValueError, match="another shape"):
            learner.adopt({**learner.state_dict(), **state})
