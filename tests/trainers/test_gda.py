"""GDA: both forms against slow references in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import trainers.gda as gda
from tests.trainers.colors import ROWS, trainer_of
from tests.trainers.heads import (
    SCALE,
    WIDTH,
    logits_of,
    permuted,
    prepared,
    problem,
    rows_of,
    softmax,
    twice,
    unit,
    weighted,
    zero_shot,
)
from trainers.learner import Classifier
from trainers.testing import CHECKS, fitted, learner_by_name, make_inputs, make_trainer

COUNTS = [(3, 0, 1, 4, 2), (0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (9, 8, 7, 6, 5)]


def quadratic(images, texts, means, precision, alpha) -> np.ndarray:
    """Return logits of (1), one image and one class at a time."""
    return np.array([[SCALE * v @ t + alpha * (v @ precision @ mu - mu @ precision @ mu / 2)
                      for t, mu in zip(texts, means, strict=True)] for v in images])


def pool_statistics(given) -> tuple[np.ndarray, np.ndarray]:
    """Return m and the inverse of (3), one pool image at a time."""
    pool, texts = given.labels.pool.numpy(), given.texts.numpy()
    probs = softmax(SCALE * pool @ texts.T, np.ones(len(texts), bool))
    means = np.array([sum(p[k] * v for p, v in zip(probs, pool, strict=True)) / sum(p[k] for p in probs)
                      for k in range(len(texts))])
    spread = np.zeros((WIDTH, WIDTH))
    for p, v in zip(probs, pool, strict=True):
        rest = v - sum(p[k] * means[k] for k in range(len(texts)))
        spread += np.outer(rest, rest) / len(pool)
    return means, np.linalg.inv(0.9 * spread + 0.1 * np.trace(spread) / WIDTH * np.eye(WIDTH))


@pytest.mark.parametrize("counts", COUNTS)
def test_the_pool_form_equals_its_formula(clip, counts, monkeypatch):
    """This includes a fit without labels, and a pool read in blocks."""
    given = problem(counts)
    features, targets, texts = given.parts
    means, precision = pool_statistics(given)
    for k in range(len(texts)):
        own = [features[i] for i in range(len(targets)) if targets[i] == k]
        means[k] = (3 * means[k] + sum(own, np.zeros(WIDTH))) / (3 + len(own))
    expected = quadratic(given.images.numpy(), texts, means, precision, 1.0)
    for block in (65536, 7):
        monkeypatch.setattr(gda, "BLOCK", block)
        assert np.abs(logits_of(prepared(clip, "GDA", given), given) - expected).max() < 1e-10 * np.abs(expected).max()


def labeled_statistics(given) -> tuple[np.ndarray, np.ndarray]:
    """Return the means, NaN without a label, and P of (4) by Woodbury's identity on M x M."""
    features, targets, texts = given.parts
    means = np.array([features[targets == k].mean(0) if (targets == k).any() else np.full(WIDTH, np.nan)
                      for k in range(len(texts))])
    x = features - means[targets]
    tau = np.trace(x.T @ x) / (len(x) - 1)
    return means, WIDTH / tau * (np.eye(WIDTH) - x.T @ np.linalg.inv(x @ x.T + tau * np.eye(len(x))) @ x)


@pytest.mark.parametrize("counts", [(3, 0, 1, 4, 2), (2, 2, 2, 2, 2), (9, 8, 7, 6, 5)])
def test_the_labels_form_equals_its_formula(clip, counts):
    """The reference uses Woodbury's identity, the learner dense matrices. Both center over labeled classes; others get 0."""
    given = problem(counts)
    images, texts = given.images.numpy(), given.texts.numpy()
    means, precision = labeled_statistics(given)
    added = quadratic(images, np.zeros_like(texts), means, precision, 0.3)
    has_label = ~np.isnan(added[0])
    added = np.where(has_label, added - added[:, has_label].mean(1, keepdims=True), 0)
    expected = zero_shot(given) + added
    found = logits_of(prepared(clip, "GDA", given, form="labels"), given)
    assert np.abs(found - expected).max() < 1e-10 * np.abs(expected).max()


@pytest.mark.parametrize("counts", [(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (1, 1, 1, 1, 1)])
def test_where_no_class_has_two_labels_the_labels_form_is_zero_shot(clip, counts):
    """There is no covariance then; the published form divides by 0."""
    given = problem(counts)
    assert np.array_equal(logits_of(prepared(clip, "GDA", given, form="labels"), given),
                          logits_of(prepared(clip, "GDA", problem((0,) * 5), form="labels"), given))
    assert np.abs(logits_of(prepared(clip, "GDA", given, form="labels"), given) - zero_shot(given)).max() < 1e-12


@pytest.mark.parametrize("masked", [True, False])
def test_a_class_without_a_label_keeps_its_text_in_the_labels_form(clip, masked):
    """Its row is the text and its bias 0, whatever the loss does with such classes."""
    given = problem(masked=masked)
    learner = prepared(clip, "GDA", given, form="labels")
    assert np.array_equal(rows_of(learner, given)[1], given.texts[1].numpy()) and learner.bias[1] == 0


@pytest.mark.parametrize("form", ["pool", "labels"])
def test_alpha_0_is_zero_shot_and_a_large_kappa_ignores_labels(clip, form, monkeypatch):
    """These are the two constants at their extremes."""
    given, nothing = problem(), problem((0,) * 5)
    monkeypatch.setattr(gda, "KAPPA", 1e12)
    found, unlabeled = (logits_of(prepared(clip, "GDA", own), given) for own in (given, nothing))
    assert np.abs(found - unlabeled).max() < 1e-7
    monkeypatch.setattr(gda, "ALPHA", {form: 0.0})
    assert np.abs(logits_of(prepared(clip, "GDA", given, form=form), given) - zero_shot(given)).max() < 1e-12


@pytest.mark.parametrize("form", ["pool", "labels"])
def test_order_does_not_matter_and_weights_are_numbers(clip, form):
    """Another order of labels changes nothing, and labels of weight 2 count as labels given twice."""
    given = problem()
    found = logits_of(prepared(clip, "GDA", given, form=form), given)
    shuffled = permuted(given, np.random.default_rng(0).permutation(10))
    assert np.abs(logits_of(prepared(clip, "GDA", shuffled, form=form), given) - found).max() < 1e-9
    heavy, double = (logits_of(prepared(clip, "GDA", own, form=form), given) for own in (weighted(given, 2.0), twice(given)))
    assert np.abs(heavy - double).max() < 1e-9 < np.abs(heavy - found).max()


def test_two_far_gaussians_are_told_apart_as_bayes_would(clip):
    """With texts that place the pool, the discriminant alone takes the nearer center of two round clouds."""
    rng = np.random.default_rng(0)
    centers = np.zeros((2, WIDTH))
    centers[:, 0] = 1, -1
    pool = centers[rng.integers(2, size=5000)] + 0.3 * rng.normal(size=(5000, WIDTH))
    images = rng.normal(size=(2000, WIDTH))
    given = problem((0, 0))
    given = replace(given, texts=torch.from_numpy(centers), labels=replace(given.labels, pool=torch.from_numpy(pool)))
    learner = prepared(clip, "GDA", given)
    scores = images @ learner.rows_added.numpy().T + learner.bias.numpy()
    assert (scores.argmax(1) == (images[:, 0] < 0)).mean() > 0.98


@pytest.mark.parametrize("check", CHECKS)
def test_the_labels_form_keeps_the_contract(check):
    check(learner_by_name("GDA", form="labels"))


def test_a_file_of_another_form_is_read_since_it_holds_all(tmp_path):
    """The file holds what is added to the texts, so the form does not matter."""
    trainers = {form: make_trainer(learner_by_name("GDA", form=form), make_inputs()) for form in ("pool", "labels")}
    trainers["pool"].save(model := fitted(trainers["pool"], [0, 1, 2]), tmp_path / "pool.safetensors")
    again = trainers["labels"].load(tmp_path / "pool.safetensors")
    assert torch.equal(trainers["pool"].predict(model, "test").logits, trainers["labels"].predict(again, "test").logits)


@pytest.mark.parametrize("form", ["pool", "labels"])
def test_samplers_get_the_class_means_as_directions(clip, form):
    """They have length 1: mu of (2) if it is made from pool and labels; otherwise the means of labels, or the text."""
    given = problem()
    learner = prepared(clip, "GDA", given, form=form)
    features, targets, texts = given.parts
    means = pool_statistics(given)[0]
    for k in range(len(texts)):
        own = features[targets == k]
        labeled = own.mean(0) if len(own) else texts[k]
        means[k] = (3 * means[k] + own.sum(0)) / (3 + len(own)) if form == "pool" else labeled
    found = learner.classifier(Classifier(given.texts)).directions.numpy()
    assert np.abs(found - unit(means)).max() < 1e-10


def test_a_learner_that_reads_the_pool_reads_none_of_the_reserved(clip, colors):
    """GDA reads pool statistics, and other reserved images must change nothing."""
    states = []
    for change in (False, True):
        trainer = trainer_of(clip, colors, ("TRAINER.NAME", "GDA"))
        rows = [row for row in range(36) if row not in ROWS.tolist()][:9]
        if change:
            trainer.inputs.features["train"][rows] = trainer.inputs.features["train"][rows].flip(1)
        trainer.leave_out(rows)
        states.append(trainer.fit(ROWS, colors.labels("train")[ROWS], 0).learner.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_temperature_reads_no_reserved_image(clip, colors, monkeypatch):
    """The fits without one label leave out the same images as the fit with all."""
    seen = []
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "GDA"), ("TRAINER.CALIBRATION", "leave_one_out"))
    labels_of = type(trainer)._labels
    monkeypatch.setattr(type(trainer), "_labels", lambda self, *given: seen.append(labels_of(self, *given)) or seen[-1])
    trainer.leave_out([row for row in range(36) if row not in ROWS.tolist()][:9])
    trainer.fit(ROWS, colors.labels("train")[ROWS], 0)
    assert len(seen) == 1 + len(ROWS) and {len(labels.pool) for labels in seen} == {27}
