"""Everything that is measured of a model's predictions on one split."""

from collections.abc import Iterator

from torch import Tensor

from dassl.evaluation.metrics import accuracy, expected_calibration_error, macro_f1
from dassl.utils.errors import TrainingError

METRICS = ("accuracy", "macro_f1", "ece")


def evaluate(logits: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    """Yield (name, value) pairs for logits [N, C] and labels [N]; every value is a fraction in [0, 1].

    Raises TrainingError if a logit is not finite: no metric would show it.
    """
    if not logits.isfinite().all():
        raise TrainingError(f"the logits of {int((~logits.isfinite()).any(1).sum())} of {len(logits)} rows hold NaN or Inf")
    probs, truth = logits.double().softmax(1).numpy(), labels.numpy()
    yield "accuracy", accuracy(probs, truth)
    yield "macro_f1", macro_f1(probs, truth)
    yield "ece", expected_calibration_error(probs, truth)
