"""PCoreSet: k-center in the space of predicted probabilities.

Source: the sampler of arXiv 2506.00910, 2025: each pick is the row whose probability vector is farthest, by Euclidean distance,
from those of all labeled and picked rows. Their probabilities are the average of a trained head's and a distilled one's; here
they are the learner's. There, it starts with one label per class; here the first round is random.
Difference from the authors' code: distances to all centers are not recomputed for each pick, which changes no pick. Once every
predicted class has been picked with one-hot probabilities, all distances are 0, and the lowest ids are asked.
"""

from active.context import Query, SelectionContext
from active.kernels.k_center import euclidean_k_center
from active.kernels.scores import by_block
from active.registry import SAMPLERS


@SAMPLERS.register("pcoreset", needs_labels=True)
def pcoreset(ctx: SelectionContext) -> Query:
    """Return `n_query` pool rows, each with the probabilities farthest from those of labeled and picked rows."""
    pool, labeled = (by_block(lambda block: block.softmax(1), logits, shape=logits.shape[1:])
                     for logits in (ctx.logits, ctx.labeled_logits))
    first = None if len(ctx.labels) else int(ctx.rng.integers(ctx.n_pool))
    rows, gaps = euclidean_k_center(pool, labeled, ctx.n_query, first)
    return Query(rows, scores=gaps)
