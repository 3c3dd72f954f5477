"""Everything that is measured of a model's predictions on one split."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import Tensor
from yacs.config import CfgNode

from dassl.evaluation.metrics import METRICS
from dassl.utils.errors import TrainingError

Metric = Callable[[np.ndarray, np.ndarray], float]  # of probabilities [N, C] and labels [N]


def build_metrics(cfg: CfgNode) -> dict[str, Metric]:
    """Return the metrics that a `TEST` node names, with their parameters, in its order."""
    return {name: partial(METRICS[name].build, **METRICS[name].arguments(cfg.get(METRICS[name].key, {})))
            for name in cfg.METRICS}


def evaluate(logits: Tensor, labels: Tensor, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Return the values of metrics, by name, for logits [N, C] and labels [N].

    Raises TrainingError if a logit, which no metric would show, or a value is not finite.
    """
    if not logits.isfinite().all():
        raise TrainingError(f"the logits of {int((~logits.isfinite()).any(1).sum())} of {len(logits)} rows hold NaN or Inf")
    probs, truth = logits.double().softmax(1).numpy(), labels.numpy()
    return {name: _value(name, metric, probs, truth) for name, metric in metrics.items()}


def _value(name: str, metric: Metric, probs: np.ndarray, labels: np.ndarray) -> float:
    try:
        value = float(metric(probs, labels))
    except Exception as error:  # whatever a stranger's metric may do
        raise TrainingError(f"the metric {name} failed: {type(error).__name__}: {error}") from error
    if not math.isfinite(value):
        raise TrainingError(f"the metric {name} is {value}")
    return value
