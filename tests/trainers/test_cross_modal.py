"""CrossModal against a slow reference in float64."""

import numpy as np
import pytest
import torch

from tests.trainers.heads import SCALE, errors, logits_of, loss_of, prepared, problem, rows_of, softmax, trained, zero_shot
from trainers.learner import Batch, Classifier

COUNTS = [(3, 0, 1, 4, 2), (1, 0, 0, 0, 0), (2, 2, 2, 2, 2), (9, 8, 7, 6, 5)]


def gradient(given, rows) -> np.ndarray:
    """Return that of (1), one image and one text at a time."""
    features, targets, texts = given.parts
    everything, found = np.ones(len(texts), bool), np.zeros_like(rows)
    for samples, labels, counted in ((features, targets, given.counted), (texts, np.arange(len(texts)), everything)):
        for x, y in zip(samples, labels, strict=True):
            wrong = errors((SCALE * rows @ x)[None], np.array([y]), counted)[0]
            found += SCALE * np.outer(wrong, x) / len(samples) / 2
    return found


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
def test_adamw_takes_the_path_of_the_formula(clip, counts, masked):
    """There are 20 steps, half on images and half on texts, with rows that decay to 0."""
    given = problem(counts, masked=masked)
    rows, first, second = given.texts.numpy().copy(), 0.0, 0.0
    for step in range(1, 21):
        by_rows = gradient(given, rows)
        first, second = 0.9 * first + 0.1 * by_rows, 0.999 * second + 0.001 * by_rows**2
        rows = rows * (1 - 1e-3 * 0.01)
        rows = rows - 1e-3 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    learner = trained(clip, "CrossModal", given, {"AdamW": {"lr": 1e-3, "weight_decay": 0.01}})
    assert np.abs(rows_of(learner, given) - rows).max() < 1e-10 < np.abs(rows - given.texts.numpy()).max()


def test_the_loss_is_half_of_images_and_half_of_texts(clip):
    """Probabilities are masked for images, and over all classes for texts."""
    given = problem()
    features, targets, texts = given.parts
    images = -np.log(softmax(SCALE * features @ texts.T, given.counted)[np.arange(len(targets)), targets]).mean()
    of_texts = -np.log(np.diag(softmax(SCALE * texts @ texts.T, np.ones(5, bool)))).mean()
    assert loss_of(prepared(clip, "CrossModal", given), given).item() == pytest.approx((images + of_texts) / 2, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_each_loss_is_that_of_its_own_batch(clip, weighted):
    """One learner sees batches of other sizes, weights and classes in turn, and keeps nothing of the last one."""
    given = problem()
    features, targets, texts = given.parts
    learner, counted = prepared(clip, "CrossModal", given), given.labels.counted
    weights = np.linspace(0.5, 2, len(targets)) if weighted else np.ones(len(targets))
    of_texts = -np.log(np.diag(softmax(SCALE * texts @ texts.T, np.ones(5, bool)))).mean()
    first = torch.arange(5) == targets[0]  # the class of the first three labels
    for n, mask in ((len(targets), counted), (3, counted), (3, None), (len(targets), None), (3, ~counted | first)):
        shown = softmax(SCALE * features[:n] @ texts.T, np.ones(5, bool) if mask is None else mask.numpy())
        images = (-weights[:n] * np.log(shown[np.arange(n), targets[:n]])).mean()
        batch = Batch(given.labels.features[:n], given.labels.targets[:n], SCALE, mask, np.random.default_rng(0),
                      weights=torch.from_numpy(weights[:n]) if weighted else None)
        found = learner.loss(learner.classifier(Classifier(given.texts)), batch)
        assert found.item() == pytest.approx((images + of_texts) / 2, rel=1e-12)


def test_images_and_texts_are_joined_once_for_the_same_tensors_and_anew_for_others(clip):
    """Other views of the same labels have another loss, and so have other labels of the same images."""
    given = problem()
    learner, views, own = prepared(clip, "CrossModal", given), given.labels.features, given.labels.targets
    batches = [Batch(features, targets, SCALE, None, np.random.default_rng(0))
               for features, targets in ((views, own), (views, own.flip(0)), (views.flip(1), own), (views, own))]
    losses = [learner.loss(Classifier(given.texts), batch).item() for batch in batches]
    assert losses[0] == losses[3] and len(set(losses)) == 3
    joined = learner._with_texts(batches[3])
    assert learner._with_texts(batches[0]) is joined is not learner._with_texts(batches[1])


def test_a_learner_that_is_prepared_again_forgets_the_texts_of_before(clip):
    given = problem()
    learner, rows = prepared(clip, "CrossModal", given), Classifier(given.texts)
    batch = Batch(given.labels.features, given.labels.targets, SCALE, None, np.random.default_rng(0))
    before = learner.loss(rows, batch).item()
    with torch.no_grad():
        learner.prepare(given.labels, given.texts.flip(1), SCALE)
    assert learner.loss(rows, batch).item() != before


def test_without_steps_or_labels_it_is_zero_shot(clip):
    given = problem()
    for own in (given, problem((0,) * 5)):
        assert np.abs(logits_of(prepared(clip, "CrossModal", own), given) - zero_shot(given)).max() < 1e-12


def test_a_fit_leaves_nothing_of_its_batches_in_the_model(clip):
    learner = prepared(clip, "CrossModal", problem())
    sizes = []
    for epoch in range(2):
        loss_of(learner, problem())
        learner.after_epoch(epoch, 2)
        sizes.append(sum(isinstance(own, tuple) for own in vars(learner).values()))
    assert sizes == [2, 0]
