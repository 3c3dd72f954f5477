"""From logits to named values."""

import math

import pytest
import torch

from dassl.config.defaults import default_config
from dassl.evaluation.evaluate import build_metrics, evaluate
from dassl.evaluation.metrics import METRICS
from dassl.utils.errors import TrainingError

ALL = build_metrics(default_config().TEST)


def test_the_values_of_three_rows_by_hand():
    """Names and values are recorded as they are: fractions, from softmax probabilities."""
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]]).log() + 7
    metrics = evaluate(logits, torch.tensor([0, 1, 1]), ALL)
    assert metrics == pytest.approx({"accuracy": 2 / 3, "macro_f1": 2 / 3, "ece": (2 * 0.4 + 0.2) / 3}, abs=1e-6)
    assert {type(value) for value in metrics.values()} == {float}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_saturated_logits_give_finite_values(dtype):
    """Probabilities of exactly 0 and 1 are not a special case: all rows right, all with full confidence."""
    metrics = evaluate(1e4 * torch.eye(3, dtype=dtype), torch.arange(3), ALL)
    assert metrics == {"accuracy": 1.0, "macro_f1": 1.0, "ece": 0.0}


def test_logits_too_close_for_float32_probabilities_keep_their_order():
    """Rounding makes no tie, which would go to the lower class."""
    assert evaluate(torch.tensor([[0.0, 1e-8]]), torch.tensor([1]), ALL)["accuracy"] == 1.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    """Row 17 of the faults table: otherwise NaN would count as class 0, and the round would silently get a number."""
    logits = torch.zeros(4, 3)
    logits[1, 2] = bad
    with pytest.raises(TrainingError, match="logits of 1 of 4 rows hold NaN or Inf"):
        evaluate(logits, torch.zeros(4, dtype=torch.long), ALL)


def test_a_metric_that_is_not_finite_is_refused():
    """A plug-in's metric that is not finite is named. `results.json` holds no NaN."""
    with pytest.raises(TrainingError, match="the metric odd is nan"):
        evaluate(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), {"odd": lambda probs, labels: math.nan})


@pytest.mark.parametrize("metric", [lambda probs, labels: None, lambda probs, labels: 1 / 0])
def test_a_metric_that_fails_is_named(metric):
    """The round is marked failed, with the metric's name and what it raised."""
    with pytest.raises(TrainingError, match=r"the metric odd failed: (TypeError|ZeroDivisionError)"):
        evaluate(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long), {"odd": metric})


def test_a_metric_of_each_class_is_a_list():
    """A class without test images has None; infinity is refused as elsewhere, and so is another number of values."""
    metrics = {"class_accuracy": METRICS["class_accuracy"].build}
    assert evaluate(torch.eye(3)[[0, 1, 0]], torch.tensor([0, 0, 0]), metrics) == {"class_accuracy": [2 / 3, None, None]}
    for wrong, reason in (([math.inf, 0, 0], "is inf"), ([0.0, 1.0], "failed: ValueError")):
        with pytest.raises(TrainingError, match=f"the metric class_accuracy {reason}"):
            evaluate(torch.eye(3), torch.arange(3), {"class_accuracy": lambda probs, labels, wrong=wrong: wrong})
