"""Random: rows drawn uniformly without replacement. The baseline, and the first round of samplers that need labels."""

from torch import Tensor

from active.context import SelectionContext
from active.registry import SAMPLERS


@SAMPLERS.register("random", needs_model=False)
def random(ctx: SelectionContext) -> Tensor:
    """Return `n_query` pool rows in random order."""
    return ctx.permutation(ctx.n_pool)[: ctx.n_query]
