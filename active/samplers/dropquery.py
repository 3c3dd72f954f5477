"""DropQuery: cluster the rows whose predicted class changes when features are dropped.

Source: Gupte, Aklilu, Nirschl and Yeung-Levy, "Revisiting Active Learning in the Era of Vision Foundation Models", TMLR 2024,
Section 3: `masks` times, a share `dropout` of each row's features is set to 0. Rows whose prediction changes in more than half
of the masks are candidates; while there are fewer than 25 candidates per label, fewer masks suffice, down to one. k-means with
as many clusters as labels runs on the candidates' unit-norm features; of each cluster, the member nearest to its center is
asked. A first round without labels clusters all rows. With fewer candidates than labels, all are asked, and random other rows.
Masks depend on an image's number, so its predictions do not depend on the rest of the pool.
What the authors' code gets wrong: faiss on 512 rows per center, on a GPU only; an empty cluster stops it. Here features are
clustered as they are (there, after the head's batch norm). At a dropout of 0.75 most predictions of a head with few labels
change: it is nearly k-means (see the specification's figures).
"""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from active.context import SelectionContext
from active.kernels.k_means import k_means, nearest_members
from active.kernels.scores import row_blocks, without
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost

ENOUGH = 25  # candidates per label


@SAMPLERS.register("dropquery", needs_linear=True)
def dropquery(
    ctx: SelectionContext, *, masks: Annotated[int, AtLeast(1), AtMost(1000)] = 3,
    dropout: Annotated[float, AtLeast(0), AtMost(0.999)] = 0.75,
) -> Tensor:
    """Return `n_query` pool rows: the row nearest to the center of each cluster of candidates."""
    kept = torch.arange(ctx.n_pool, device=ctx.device)
    if len(ctx.labels):
        changes = changed_predictions(ctx, masks, dropout, int(ctx.rng.integers(2**63)))
        kept = candidates(changes, masks, ENOUGH * ctx.n_query)
    if len(kept) <= ctx.n_query:
        picked = kept
    else:
        features = ctx.features[kept].float()
        clusters = nearest_members(features, *k_means(features, ctx.n_query, ctx.rng))
        picked = kept[torch.stack([rows[0] for rows in clusters]).to(ctx.device)]
    rest = without(picked, ctx.n_pool)
    return torch.cat([picked, rest[ctx.permutation(len(rest))][: ctx.n_query - len(picked)]])


def changed_predictions(ctx: SelectionContext, masks: int, dropout: float, key: int) -> Tensor:
    """Return the number of masks in which each pool row's prediction changes, [N]."""
    predicted, changes = ctx.logits.argmax(1), torch.zeros_like(ctx.ids)
    for block in row_blocks(ctx.n_pool, max(masks * ctx.features.shape[1], ctx.n_classes)):
        keep = kept_features(ctx.ids[block], masks, ctx.features.shape[1], dropout, key).to(ctx.device)
        for own in keep.unbind(1):
            logits = ctx.features[block].float() * own / (1 - dropout) @ ctx.text_features.T
            if ctx.bias is not None:
                logits = logits + ctx.bias
            changes[block] += logits.argmax(1) != predicted[block]
    return changes


def kept_features(ids: Tensor, masks: int, width: int, dropout: float, key: int) -> Tensor:
    """Return which features each mask keeps of each image, bool [n, masks, width], on the CPU."""
    drawn = [np.random.default_rng([key, number]).random((masks, width)) for number in ids.tolist()]
    return torch.from_numpy(np.stack(drawn)) >= dropout


def candidates(changes: Tensor, masks: int, enough: int) -> Tensor:
    """Return the rows [n] that changed in more than half of the masks, or in fewer as long as there are not enough."""
    least = masks // 2 + 1
    while least > 1 and int((changes >= least).sum()) < enough:
        least -= 1
    return (changes >= least).nonzero().flatten()
