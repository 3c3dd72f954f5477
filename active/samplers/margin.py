"""Margin: the rows whose two most probable classes are closest.

Source: Scheffer, Decomain and Wrobel, "Active Hidden Markov Models for Information Extraction", IDA 2001, Section 3;
Settles, "Active Learning Literature Survey", 2009, Section 3.1: smallest p(first) - p(second).
Differences: none; computed as (1 - p(first)) + p(second), which still orders rows whose p(first) rounds to 1.
With one class all margins are equal and the lowest ids are asked.
"""

from active.context import Query, SelectionContext, scored
from active.kernels.scores import smallness_of_margin, top_rows
from active.registry import SAMPLERS


@SAMPLERS.register("margin")
def margin(ctx: SelectionContext) -> Query:
    """Return the `n_query` pool rows of smallest margin, smallest first; ties go to the lower id."""
    scores = smallness_of_margin(ctx.logits)
    return scored(top_rows(scores, ctx.n_query), scores)
