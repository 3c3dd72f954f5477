"""Least confidence: the rows whose most probable class is least probable.

Source: Culotta and McCallum, "Reducing Labeling Effort for Structured Prediction Tasks", AAAI 2005; Settles, "Active
Learning Literature Survey", 2009, Section 3.1: largest 1 - p(first).
Differences: none; computed as the sum of the other probabilities, which still orders rows whose p(first) rounds to 1.
"""

from torch import Tensor

from active.context import SelectionContext
from active.kernels.scores import least_confidence as one_minus_confidence
from active.kernels.scores import top_rows
from active.registry import SAMPLERS


@SAMPLERS.register("least_confidence")
def least_confidence(ctx: SelectionContext) -> Tensor:
    """Return the `n_query` pool rows of smallest top probability, smallest first; ties go to the lower id."""
    return top_rows(one_minus_confidence(ctx.logits), ctx.n_query)
