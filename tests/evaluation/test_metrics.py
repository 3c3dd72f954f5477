"""Accuracy, macro-F1 and calibration error against hand-solved cases and a slow reference."""

import numpy as np
import pytest
import sklearn.metrics

from dassl.evaluation.metrics import (
    accuracy,
    balanced_accuracy,
    brier_score,
    class_accuracy,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    top_5_accuracy,
)

N_CLASSES = 20


def one_hot(predicted: list[int]) -> np.ndarray:
    return np.eye(N_CLASSES)[predicted]


def confident(confidences: list[float]) -> np.ndarray:
    """Rows that predict class 0 with the given probabilities, the rest spread evenly."""
    probs = np.array([[(1 - confidence) / (N_CLASSES - 1)] * N_CLASSES for confidence in confidences])
    probs[:, 0] = confidences
    return probs


def slow_calibration_error(probs: np.ndarray, labels: np.ndarray, n_bins: int) -> float:
    total = 0.0
    for k in range(n_bins):
        inside = [(row, label) for row, label in zip(probs.tolist(), labels.tolist(), strict=True)
                  if k / n_bins < max(row) <= (k + 1) / n_bins]
        if inside:
            correct = sum(row.index(max(row)) == label for row, label in inside) / len(inside)
            confidence = sum(max(row) for row, _ in inside) / len(inside)
            total += len(inside) / len(labels) * abs(correct - confidence)
    return total


@pytest.mark.parametrize("seed", range(50))
def test_the_calibration_error_is_that_of_the_slow_reference(seed):
    """Random sizes, numbers of classes and bins, sharp and flat predictions."""
    rng = np.random.default_rng(seed)
    n_rows, n_classes, n_bins = rng.integers(1, 200), rng.integers(1, 8), rng.integers(1, 20)
    probs = rng.dirichlet([rng.choice([0.05, 1.0, 20.0])] * n_classes, n_rows)
    labels = rng.integers(0, n_classes, n_rows)
    found = expected_calibration_error(probs, labels, n_bins=n_bins)
    assert found == pytest.approx(slow_calibration_error(probs, labels, n_bins), abs=1e-12)


def test_the_calibration_error_of_four_rows_by_hand():
    """Bin (13/15, 14/15] holds 0.9 and 0.92, bin (8/15, 9/15] holds 0.55 and 0.6; half of each is right."""
    error = expected_calibration_error(confident([0.9, 0.92, 0.55, 0.6]), np.array([0, 1, 1, 0]))
    assert error == pytest.approx(0.5 * abs(0.5 - 0.91) + 0.5 * abs(0.5 - 0.575))


@pytest.mark.parametrize(("n_bins", "edge"), [(n_bins, k) for n_bins in (10, 15) for k in range(1, n_bins)])
def test_a_confidence_at_an_edge_belongs_to_the_bin_below(n_bins, edge):
    """One row at the edge that is right, one just above it that is wrong: in one bin they would cancel out."""
    at, above = edge / n_bins, edge / n_bins + 1e-9
    error = expected_calibration_error(confident([at, above]), np.array([0, 1]), n_bins=n_bins)
    assert error == pytest.approx(0.5 * (1 - at) + 0.5 * above)


@pytest.mark.parametrize(("label", "expected"), [(0, 0.0), (1, 1.0)])
def test_full_confidence_is_perfect_or_entirely_wrong(label, expected):
    """Confidence 1.0 belongs to the last bin."""
    assert expected_calibration_error(one_hot([0, 0]), np.array([label, label])) == expected


@pytest.mark.parametrize(("labels", "predicted", "expected"), [
    ([0, 0, 1], [0, 2, 1], (2 / 3 + 1) / 2),  # class 2 is predicted but occurs in no label: it does not count
    ([0, 0, 1], [0, 0, 0], (4 / 5 + 0) / 2),  # class 1 is never predicted: it counts as 0
    ([0, 0, 0, 1], [0, 0, 0, 1], 1.0),
    ([0, 1], [1, 0], 0.0),
    ([19, 19], [19, 19], 1.0),
])
def test_macro_f1_is_the_mean_over_the_classes_that_occur(labels, predicted, expected):
    """Each case by hand; rare classes weigh as much as common ones."""
    assert macro_f1(one_hot(predicted), np.array(labels)) == pytest.approx(expected)


@pytest.mark.parametrize(("predicted", "expected"), [([0, 1, 2, 3], 1.0), ([1, 2, 3, 0], 0.0), ([0, 1, 2, 0], 0.75)])
def test_accuracy_is_the_share_of_right_rows(predicted, expected):
    """A fraction, not a percentage."""
    assert accuracy(one_hot(predicted), np.array([0, 1, 2, 3])) == expected


@pytest.mark.parametrize("seed", range(20))
def test_further_metrics_are_those_of_scikit_learn(seed):
    """Log loss, top-5 and balanced accuracy, on sharp and flat predictions of 2 to 12 classes that all occur."""
    rng = np.random.default_rng(seed)
    n_classes = rng.integers(2, 13)
    probs = rng.dirichlet([rng.choice([0.05, 1.0, 20.0])] * n_classes, 60) + 1e-12
    probs /= probs.sum(1, keepdims=True)
    labels = rng.permutation(np.arange(60) % n_classes)
    assert negative_log_likelihood(probs, labels) == pytest.approx(sklearn.metrics.log_loss(labels, probs), rel=1e-9)
    assert balanced_accuracy(probs, labels) == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(labels, probs.argmax(1)), abs=1e-12)
    if n_classes > 5:
        expected = sklearn.metrics.top_k_accuracy_score(labels, probs, k=5)
        assert top_5_accuracy(probs, labels) == pytest.approx(expected, abs=1e-12)
    assert brier_score(probs, labels) == pytest.approx(((probs - np.eye(n_classes)[labels]) ** 2).sum(1).mean(), abs=1e-12)


def test_further_metrics_by_hand():
    """A p of 0 gives a finite loss. With five classes every label is in the top five. Ties count from the first class on."""
    assert negative_log_likelihood(one_hot([1]), np.array([0])) == pytest.approx(708.4, abs=0.1)
    assert brier_score(one_hot([1, 0]), np.array([0, 0])) == 1.0
    flat = np.full((6, 6), 1 / 6)
    assert top_5_accuracy(flat[:, :5], np.arange(5).repeat(2)[:6]) == 1.0 and top_5_accuracy(flat, np.arange(6)) == 5 / 6
    found = class_accuracy(one_hot([0, 0, 2, 2]), np.array([0, 1, 2, 2]))
    assert found[:3].tolist() == [1.0, 0.0, 1.0] and np.isnan(found[3:]).all() and len(found) == N_CLASSES
    assert balanced_accuracy(one_hot([0, 0, 2, 2]), np.array([0, 1, 2, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("seed", range(50))
def test_accuracy_and_f1_are_those_of_scikit_learn_to_the_last_bit(seed):
    """Some classes occur in no label, some in no prediction; older records were made by scikit-learn."""
    rng = np.random.default_rng(seed)
    n_rows, n_classes = rng.integers(1, 3000), rng.integers(1, 120)
    probs, labels = rng.dirichlet([0.1] * n_classes, n_rows), rng.integers(0, max(1, n_classes - 3), n_rows)
    probs[np.arange(n_rows), labels] += rng.random(n_rows)
    assert accuracy(probs, labels) == sklearn.metrics.accuracy_score(labels, probs.argmax(1))
    assert macro_f1(probs, labels) == sklearn.metrics.f1_score(
        labels, probs.argmax(1), average="macro", labels=np.unique(labels), zero_division=0)
