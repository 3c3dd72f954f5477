"""RLA: the map in the span of the labels against the whole map, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import trainers.rla as rla
from tests.trainers.heads import (
    SCALE,
    logits_of,
    map_loss_and_gradient,
    permuted,
    prepared,
    problem,
    twice,
    unit,
    weighted,
    zero_shot,
)
from trainers.learner import Classifier

COUNTS = [(3, 0, 1, 4, 2), (1, 0, 0, 0, 0), (2, 2, 2, 2, 2), (9, 8, 7, 6, 5)]


def loss_and_gradient(given, matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Return sum CE + C |A - I|^2 and its gradient by A."""
    return map_loss_and_gradient(given, np.eye(len(matrix)), matrix)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
def test_it_is_a_minimum_of_the_whole_map(clip, counts, masked):
    """In all D * D entries: the gradient is 0, a step of descent from there or nearby leads nowhere lower."""
    given = problem(counts, masked=masked)
    matrix = np.eye(16) + prepared(clip, "RLA", given).shift.numpy()
    loss, gradient = loss_and_gradient(given, matrix)
    assert np.abs(gradient).max() < 1e-8
    rng = np.random.default_rng(0)
    assert all(loss_and_gradient(given, matrix + 1e-3 * rng.normal(size=matrix.shape))[0] > loss for _ in range(20))


@pytest.mark.parametrize("counts", COUNTS)
def test_descent_in_the_span_is_descent_of_the_whole_map_step_by_step(clip, counts, monkeypatch):
    """30 steps of gradient descent by A, in plain NumPy, and by E: A = I + E Q^T all along, and at the minimum."""
    given = problem(counts)
    features = given.labels.features.numpy()
    basis = np.linalg.qr(features.T)[0]
    matrix, inside = np.eye(16), np.zeros_like(basis)
    for _ in range(30):
        matrix = matrix - 0.005 * loss_and_gradient(given, matrix)[1]
        inside = inside - 0.005 * loss_and_gradient(given, np.eye(16) + inside @ basis.T)[1] @ basis
    assert np.abs(matrix - np.eye(16) - inside @ basis.T).max() < 1e-12
    monkeypatch.setattr(rla, "row_basis", lambda rows: torch.eye(16, dtype=torch.float64))
    whole = rla.map_shift(given.labels, given.labels.features, given.texts, SCALE, 1.0).numpy()
    monkeypatch.undo()
    assert np.abs(prepared(clip, "RLA", given).shift.numpy() - whole).max() < 1e-10


def test_logits_are_those_of_mapped_features(clip):
    """They are s n(A v).t_k, image by image. Features that samplers read have length 1."""
    given = problem()
    learner = prepared(clip, "RLA", given)
    matrix = np.eye(16) + learner.shift.numpy()
    expected = np.array([[SCALE * unit(matrix @ v) @ t for t in given.texts.numpy()] for v in given.images.numpy()])
    assert np.abs(logits_of(learner, given) - expected).max() < 1e-10
    assert torch.allclose(learner.features(given.images).norm(dim=1), torch.ones(7, dtype=torch.float64), atol=1e-12)


def test_a_strong_pull_or_no_label_leaves_zero_shot(clip):
    """lambda to infinity, and M = 0."""
    given = problem()
    assert np.abs(logits_of(prepared(clip, "RLA", given, strength=1e9), given) - zero_shot(given)).max() < 1e-6
    assert np.abs(logits_of(prepared(clip, "RLA", problem((0,) * 5)), given) - zero_shot(given)).max() < 1e-12
    assert np.abs(logits_of(prepared(clip, "RLA", given), given) - zero_shot(given)).max() > 0.1


def test_a_rotation_of_images_and_texts_changes_nothing(clip):
    """The fit commutes with it, as the penalty and the identity do."""
    given = problem()
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    turned = replace(given, texts=given.texts @ turn, images=given.images @ turn,
                     labels=replace(given.labels, features=given.labels.features @ turn, pool=given.labels.pool @ turn))
    found, expected = (logits_of(prepared(clip, "RLA", own), own) for own in (turned, given))
    assert np.abs(found - expected).max() < 1e-8


def test_order_does_not_matter_and_weights_are_numbers(clip):
    """Another order of labels changes nothing, and labels of weight 2 count as labels given twice."""
    given = problem()
    found, shuffled, heavy, double = (logits_of(prepared(clip, "RLA", own), given) for own in (
        given, permuted(given, np.arange(10)[::-1].copy()), weighted(given, 2.0), twice(given)))
    assert np.abs(found - shuffled).max() < 1e-8 and np.abs(heavy - double).max() < 1e-8 < np.abs(heavy - found).max()


def test_the_class_features_are_the_texts(clip):
    """Samplers see classes where zero-shot CLIP has them; the images have moved."""
    given = problem()
    assert prepared(clip, "RLA", given).classifier(Classifier(given.texts)).texts is given.texts
