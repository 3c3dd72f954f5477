"""Metrics of a classifier: pure functions of probabilities [N, C] and labels [N], registered under their names in records.

Facts: `title`, in tables and figures; `lower_is_better`; `percent=False` for one that is no fraction in [0, 1].
"""

from typing import Annotated

import numpy as np
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError
from dassl.utils.registry import AtLeast, AtMost, Registry

METRICS = Registry("metric", "TEST", facts={"title": str, "lower_is_better": bool, "percent": bool})


@METRICS.register("accuracy", title="accuracy")
def accuracy(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of rows whose largest probability is at the label, in [0, 1]."""
    from sklearn.metrics import accuracy_score  # here, as metrics are listed without it

    return float(accuracy_score(labels, probs.argmax(1)))


@METRICS.register("macro_f1", title="macro-F1")
def macro_f1(probs: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 over the classes that occur in `labels` (as Dassl does), in [0, 1]."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, probs.argmax(1), average="macro", labels=np.unique(labels), zero_division=0))


@METRICS.register("ece", title="ECE", lower_is_better=True)
def expected_calibration_error(
    probs: np.ndarray, labels: np.ndarray, *, n_bins: Annotated[int, AtLeast(1), AtMost(10**6)] = 15
) -> float:
    """Return the mean over rows of |accuracy - confidence| of the row's confidence bin, in [0, 1].

    Bins are of equal width, open at the left: (0, 1/n], ..., (1 - 1/n, 1].
    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3, with its 15 bins.
    """
    confidence = probs.max(1).astype(np.float64)
    correct = probs.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, correct - confidence, minlength=n_bins)  # sum of (accuracy - confidence) a bin
    return float(np.abs(gaps).sum() / len(labels))


def check_metrics(cfg: CfgNode) -> None:
    """Raise ConfigError unless the metrics of a `TEST` node are known, each named once, and accuracy is one of them."""
    for name in cfg.METRICS:
        METRICS[name]
    if "accuracy" not in cfg.METRICS or len(set(cfg.METRICS)) != len(cfg.METRICS):
        raise ConfigError(f"TEST.METRICS is {list(cfg.METRICS)}, but must hold accuracy and no name twice")


def title_of(name: str) -> str:
    """Return what tables and figures call a metric; that of a plug-in which is not loaded is its name."""
    return METRICS[name].facts.get("title", name) if name in METRICS else name


def head_of(name: str) -> str:
    """Return the head of a metric's column."""
    return f"{title_of(name)} %" if is_percent(name) else title_of(name)


def factor_of(name: str) -> int:
    """Return what a metric's values are multiplied by where they are shown."""
    return 100 if is_percent(name) else 1


def is_percent(name: str) -> bool:
    """Tell whether a metric is a fraction that is shown in percent; of one whose plug-in is not loaded nobody knows."""
    return name in METRICS and METRICS[name].facts.get("percent", True)


def lower_is_better(name: str) -> bool:
    """Tell whether a smaller value of a metric is the better one."""
    return name in METRICS and METRICS[name].facts.get("lower_is_better", False)
