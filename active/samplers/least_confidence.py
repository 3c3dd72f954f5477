"""Least confidence: the rows whose most probable class is least probable.

Source: Culotta and McCallum, "Reducing Labeling Effort for Structured Prediction Tasks", AAAI 2005; Settles, "Active
Learning Literature Survey", 2009, Section 3.1: largest 1 - p(first).
Differences: none; computed as the sum of the other probabilities, which still orders rows whose p(first) rounds to 1.
"""

from active.context import Query, SelectionContext, scored
from active.kernels.scores import least_confidence as one_minus_confidence
from active.kernels.scores import top_rows
from active.registry import SAMPLERS


@SAMPLERS.register("least_confidence")
def least_confidence(ctx: SelectionContext) -> Query:
    """Return the `n_query` pool rows of smallest top probability, smallest first; ties go to the lower id."""
    scores = one_minus_confidence(ctx.logits)
    return scored(top_rows(scores, ctx.n_query), scores)
