"""Core-set: greedy k-center over the image features.

Source: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018,
Algorithm 1 (the greedy 2-approximation, without the mixed-integer program that follows it in the paper). Differences
from the PCB authors' code: fp32 cosines whatever the precision of the towers; a picked row is never picked again, even
when every remaining distance is 0; without labels it may start with the image nearest to the mean.
"""

from typing import Literal

from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.k_center import k_center_and_gaps
from active.registry import SAMPLERS
from dassl.utils.large import single


@SAMPLERS.register("coreset", needs_labels=True)
def coreset(ctx: SelectionContext, *, start: Literal["random", "medoid"] = "random") -> Query:
    """Return `n_query` pool rows, each farthest from all labeled and picked so far.

    With an empty labeled set the first pick is random, or the row nearest to the mean. Distances are Euclidean on unit-norm
    features.
    """
    first = None
    if not len(ctx.labels):
        first = medoid(ctx.features) if start == "medoid" else int(ctx.rng.integers(ctx.n_pool))
    rows, gaps = k_center_and_gaps(ctx.features, ctx.labeled_features, ctx.n_query, first)
    return Query(rows, scores=gaps)


def medoid(features: Tensor) -> int:
    """Return the row of unit-norm features [N, D] nearest to their mean."""
    features = single(features)
    return int((features @ features.mean(0)).argmax())
