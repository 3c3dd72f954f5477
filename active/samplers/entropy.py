"""Entropy: the rows whose predicted class is least certain.

Source: Shannon entropy of the predictive distribution, Settles, "Active Learning Literature Survey", 2009, Section 3.1.
Differences from the PCB authors' code: exact `log_softmax` instead of `log(p + 1e-6)`; a stable sort.
"""

from active.context import Query, SelectionContext, scored
from active.kernels.scores import entropy as entropy_of
from active.kernels.scores import top_rows
from active.registry import SAMPLERS


@SAMPLERS.register("entropy")
def entropy(ctx: SelectionContext) -> Query:
    """Return the `n_query` pool rows of largest entropy, largest first; ties go to the lower id."""
    scores = entropy_of(ctx.logits)
    return scored(top_rows(scores, ctx.n_query), scores)
