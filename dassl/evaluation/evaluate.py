"""Everything that is measured of a model's predictions on one split."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import Tensor
from yacs.config import CfgNode

from dassl.evaluation.metrics import METRICS, is_per_class
from dassl.utils.errors import TrainingError

# a function of probabilities [N, C] and labels [N] that returns a number or, if `per_class`, one for each class [C]
Metric = Callable[[np.ndarray, np.ndarray], float | np.ndarray]
Value = float | list[float | None]


def build_metrics(cfg: CfgNode) -> dict[str, Metric]:
    """Return the metrics that a `TEST` node names, with their parameters, in its order."""
    return {name: partial(METRICS[name].build, **METRICS[name].arguments(cfg.get(METRICS[name].key, {})))
            for name in cfg.METRICS}


def evaluate(logits: Tensor, labels: Tensor, metrics: Mapping[str, Metric]) -> dict[str, Value]:
    """Return the values of metrics, by name, for logits [N, C] and labels [N]; None for a class without a value.

    Raises TrainingError if a value is not finite, or a logit, which a metric might hide.
    """
    check_finite(logits)
    probs, truth = logits.double().softmax(1).numpy(), labels.numpy()
    return {name: _value(name, metric, probs, truth) for name, metric in metrics.items()}


def check_finite(logits: Tensor) -> None:
    """Raise TrainingError unless all logits [N, C] are finite."""
    if not logits.isfinite().all():
        raise TrainingError(f"the logits of {int((~logits.isfinite()).any(1).sum())} of {len(logits)} rows hold NaN or Inf")


def _value(name: str, metric: Metric, probs: np.ndarray, labels: np.ndarray) -> Value:
    has_many = is_per_class(name)
    try:
        found = metric(probs, labels)
        values = np.asarray(found, np.float64).reshape(probs.shape[1]).tolist() if has_many else [float(found)]
    except Exception as error:  # a plug-in's metric may raise anything
        raise TrainingError(f"the metric {name} failed: {type(error).__name__}: {error}") from error
    if has_many:
        values = [None if math.isnan(value) else value for value in values]
    if odd := [value for value in values if value is not None and not math.isfinite(value)]:
        raise TrainingError(f"the metric {name} is {odd[0]}")
    return values if has_many else values[0]
