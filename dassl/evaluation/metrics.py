"""Metrics of a classifier: pure functions of probabilities [N, C] and labels [N]."""

import numpy as np
from sklearn.metrics import accuracy_score, f1_score


def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose largest probability is at the label, in [0, 1]."""
    return float(accuracy_score(labels, probs.argmax(1)))


def macro_f1(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur in `labels` (as Dassl does), in [0, 1]."""
    return float(f1_score(labels, probs.argmax(1), average="macro", labels=np.unique(labels), zero_division=0))


def expected_calibration_error(probs: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> float:
    """Return the mean over rows of |accuracy - confidence| of the row's confidence bin, in [0, 1].

    Bins are of equal width, open at the left: (0, 1/n], ..., (1 - 1/n, 1].
    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3, with its 15 bins.
    """
    confidence = probs.max(1).astype(np.float64)
    correct = probs.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, correct - confidence, minlength=n_bins)  # sum of (accuracy - confidence) a bin
    return float(np.abs(gaps).sum() / len(labels))
