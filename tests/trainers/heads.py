"""Small problems in float64 for the tests of learners on frozen features."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts, Labels, Learner

SCALE = 20.0
NAMES = ("cat", "dog", "forest", "river", "golden retriever")
WIDTH = 16  # of the features of the random CLIP


@dataclass(frozen=True)
class Problem:
    """Labels of a fit, the unit-norm texts [C, D], and images to predict, all in float64."""

    labels: Labels
    texts: Tensor
    images: Tensor

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [M, D], labels [M] and texts [C, D] as NumPy arrays."""
        return self.labels.features.numpy(), self.labels.targets.numpy(), self.texts.numpy()

    @property
    def counted(self) -> np.ndarray:
        return self.labels.counted.numpy()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def problem(counts: tuple[int, ...] = (3, 0, 1, 4, 2), *, masked: bool = True, seed: int = 0, n_pool: int = 60) -> Problem:
    """Return a problem with so many labels of each class. Pool, texts and images to predict do not depend on the counts."""
    rng, n_classes = np.random.default_rng(seed), len(counts)
    centers = rng.normal(size=(n_classes, WIDTH))
    targets = np.repeat(np.arange(n_classes), counts)
    texts = unit(centers + 0.7 * rng.normal(size=centers.shape))
    pool, images, features = (unit(centers[own] + rng.normal(size=(len(own), WIDTH))) for own in (
        rng.integers(n_classes, size=n_pool), rng.integers(n_classes, size=7), targets))
    counted = torch.tensor(counts) > 0 if masked and len(targets) else torch.ones(n_classes, dtype=torch.bool)
    labels = Labels(*map(torch.from_numpy, (features, targets)), torch.ones(len(targets), dtype=torch.float64), counted,
                    torch.from_numpy(pool))
    return Problem(labels, torch.from_numpy(texts), torch.from_numpy(images))


def prepared(clip, name: str, given: Problem, **parameters) -> Learner:
    """Return a learner in float64 that has been given the labels."""
    texts = ClassTexts(NAMES[: len(given.texts)], "a photo of a {}.")
    learner = LEARNERS[name].build(clip, texts, np.random.default_rng(0), **parameters).double()
    with torch.no_grad():
        learner.prepare(given.labels, given.texts, SCALE)
    return learner


def loss_of(learner: Learner, given: Problem) -> Tensor:
    """Return the training loss with all labels in one batch."""
    counted = None if given.labels.counted.all() else given.labels.counted
    features = learner.features(given.labels.features)
    batch = Batch(features, given.labels.targets, SCALE, counted, np.random.default_rng(0))
    return learner.loss(learner.classifier(Classifier(given.texts)), batch)


def trained(clip, name: str, given: Problem, optimizer: dict | None = None, n_steps: int = 20, **parameters) -> Learner:
    """Return a learner after so many steps on all labels at once, by SGD, or Adam with `{"adam": {...}}`."""
    learner = prepared(clip, name, given, **parameters)
    kind, options = next(iter((optimizer or {"SGD": {"lr": 0.001, "momentum": 0.9}}).items()))
    steps = getattr(torch.optim, kind)([own for own in learner.parameters() if own.requires_grad], **options)
    for _ in range(n_steps):
        steps.zero_grad()
        loss_of(learner, given).backward()
        steps.step()
    return learner


@torch.no_grad()
def rows_of(learner: Learner, given: Problem) -> np.ndarray:
    """Return the class features [C, D]."""
    return learner.classifier(Classifier(given.texts)).texts.numpy()


@torch.no_grad()
def logits_of(learner: Learner, given: Problem, images: Tensor | None = None) -> np.ndarray:
    """Return the logits [B, C] of images, by default the problem's."""
    features = learner.features(given.images if images is None else images)
    return learner.logits(SCALE, features, learner.classifier(Classifier(given.texts))).numpy()


def zero_shot(given: Problem) -> np.ndarray:
    return SCALE * given.images.numpy() @ given.texts.numpy().T


def softmax(logits: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return probabilities [.., C] over the classes that count; 0 for the others."""
    shown = np.where(counted, logits, -np.inf)
    shown = np.exp(shown - shown.max(-1, keepdims=True))
    return shown / shown.sum(-1, keepdims=True)


def errors(logits: np.ndarray, targets: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return p - e [M, C], the gradient of the summed cross-entropy by the logits."""
    found = softmax(logits, counted)
    found[np.arange(len(targets)), targets] -= 1
    return found


def permuted(given: Problem, rows: np.ndarray) -> Problem:
    """Return the problem with its labels in another order."""
    labels = given.labels
    return replace(given, labels=replace(labels, features=labels.features[rows], targets=labels.targets[rows],
                                         weights=labels.weights[rows]))


def twice(given: Problem) -> Problem:
    """Return the problem with each label given twice."""
    rows = np.repeat(np.arange(len(given.labels.targets)), 2)
    return permuted(given, rows)


def weighted(given: Problem, weight: float) -> Problem:
    """Return the problem with another weight of all labels."""
    return replace(given, labels=replace(given.labels, weights=given.labels.weights * weight))


def map_loss_and_gradient(given: Problem, start: np.ndarray, matrix: np.ndarray) -> tuple[float, np.ndarray]:
    """Return sum CE + C |A - A0|^2 of a map of the rows and its gradient by A, one image after the other."""
    rows, targets, texts = given.parts
    away = matrix - start
    loss, gradient = len(texts) * (away**2).sum(), 2 * len(texts) * away
    for x, y in zip(rows, targets, strict=True):
        mapped = matrix @ x
        length = np.linalg.norm(mapped)
        logits = SCALE * texts @ mapped / length
        shown = np.where(given.counted, logits, -np.inf)
        loss += np.log(np.exp(shown - shown.max()).sum()) + shown.max() - logits[y]
        by_unit = SCALE * errors(logits[None], np.array([y]), given.counted)[0] @ texts
        by_mapped = (by_unit - mapped * (mapped @ by_unit) / length**2) / length
        gradient += np.outer(by_mapped, x)
    return loss, gradient
