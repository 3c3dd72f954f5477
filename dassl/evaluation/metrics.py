"""Metrics of a classifier: pure functions of probabilities [N, C] and labels [N], registered under their names in records.

Facts: `title`, for tables and figures; `lower_is_better`; `percent=False` for one that is not a fraction in [0, 1];
`per_class=True` for one that returns a number for each class [C], NaN where there is none: it goes to the record, not to tables
and figures.
"""

from typing import Annotated

import numpy as np
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError
from dassl.utils.registry import AtLeast, AtMost, Registry

METRICS = Registry("metric", "TEST", facts={
    "title": str, "lower_is_better": bool, "percent": bool, "per_class": bool})


@METRICS.register("accuracy", title="accuracy")
def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose largest probability is at the label, in [0, 1]."""
    return float((probs.argmax(1) == labels).mean())


@METRICS.register("macro_f1", title="macro-F1")
def macro_f1(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur in `labels` (as Dassl does), in [0, 1].

    F1 is 2 TP / (labels + predictions). Equals scikit-learn's `f1_score`, whose import would cost every run a second.
    """
    predicted = probs.argmax(1)
    n_labels, n_predicted, n_right = (np.bincount(own, minlength=probs.shape[1])
                                      for own in (labels, predicted, labels[predicted == labels]))
    occurs = n_labels > 0
    return float((2 * n_right[occurs] / (n_labels + n_predicted)[occurs]).mean())


@METRICS.register("ece", title="ECE", lower_is_better=True)
def expected_calibration_error(
    probs: np.ndarray, labels: np.ndarray, *, n_bins: Annotated[int, AtLeast(1), AtMost(10**6)] = 15
) -> float:
    """Return the mean over rows of |accuracy - confidence| in the row's confidence bin, in [0, 1].

    Bins are of equal width, open at the left: (0, 1/n], ..., (1 - 1/n, 1].
    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3, with its 15 bins.
    """
    confidence = probs.max(1).astype(np.float64)
    correct = probs.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, correct - confidence, minlength=n_bins)  # sum of (accuracy - confidence) per bin
    return float(np.abs(gaps).sum() / len(labels))


@METRICS.register("nll", title="NLL", lower_is_better=True, percent=False)
def negative_log_likelihood(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean of -log p of the label, in nats; p = 0 counts as the smallest positive number."""
    own = probs[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


@METRICS.register("brier", title="Brier score", lower_is_better=True, percent=False)
def brier_score(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over rows of the sum over classes of (p - y)^2, in [0, 2], y being 1 at the label and 0 elsewhere.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950, Eq. 2.
    """
    own = probs[np.arange(len(labels)), labels]
    return float(((probs * probs).sum(1) - 2 * own + 1).mean())


@METRICS.register("top5", title="top-5 accuracy")
def top_5_accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose label is among the five largest probabilities, in [0, 1]; ties go to the first classes."""
    own = probs[np.arange(len(labels)), labels][:, None]
    is_before = (probs > own) | ((probs == own) & (np.arange(probs.shape[1]) < labels[:, None]))
    return float((is_before.sum(1) < 5).mean())


@METRICS.register("balanced_accuracy", title="balanced accuracy")
def balanced_accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean accuracy of the classes that occur in `labels`, in [0, 1]."""
    return float(np.nanmean(class_accuracy(probs, labels)))


@METRICS.register("class_accuracy", title="accuracy of each class", per_class=True)
def class_accuracy(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the share of rows of each class [C] that are predicted correctly, in [0, 1]; NaN for a class without rows."""
    n_rows, n_right = (np.bincount(own, minlength=probs.shape[1]) for own in (labels, labels[probs.argmax(1) == labels]))
    return np.where(n_rows > 0, n_right / np.maximum(n_rows, 1), np.nan)


def check_metrics(cfg: CfgNode) -> None:
    """Raise ConfigError unless the metrics of a `TEST` node are known, each named once, and accuracy is one of them."""
    for name in cfg.METRICS:
        METRICS[name]
    if "accuracy" not in cfg.METRICS or len(set(cfg.METRICS)) != len(cfg.METRICS):
        raise ConfigError(f"TEST.METRICS is {list(cfg.METRICS)}, but must hold accuracy and no name twice")


def title_of(name: str) -> str:
    """Return what tables and figures call a metric: its name, if it is from a plug-in that is not loaded."""
    return METRICS[name].facts.get("title", name) if name in METRICS else name


def head_of(name: str) -> str:
    """Return the head of a metric's column."""
    return f"{title_of(name)} %" if is_percent(name) else title_of(name)


def factor_of(name: str) -> int:
    """Return the factor by which a metric's values are multiplied for display."""
    return 100 if is_percent(name) else 1


def is_percent(name: str) -> bool:
    """Tell whether a metric is a fraction shown in percent; unknown, so False, if its plug-in is not loaded."""
    return name in METRICS and METRICS[name].facts.get("percent", True)


def is_per_class(name: str) -> bool:
    """Tell whether a metric has a value for each class."""
    return name in METRICS and METRICS[name].facts.get("per_class", False)


def lower_is_better(name: str) -> bool:
    """Tell whether a smaller value of a metric is better."""
    return name in METRICS and METRICS[name].facts.get("lower_is_better", False)
