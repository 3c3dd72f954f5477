"""Dual prompt: ask, class by class, where the positive prompt of the predicted class beats its negative one least.

Source: Wang, Song and Xia, arXiv 2602.04340v1: Eq. 3 (p_clean), the selection and the mining of pseudo-labels. The round
before the first, which mines zero-shot CLIP's most confident images of each class, is from CoFT (arXiv 2602.04337v1). No
authors' code was found. Not stated in the paper and chosen here: which images get the B mod C remaining labels (`remainder`;
a class smaller than its quota adds to them), and how many images are mined, 16 per class both times. A query for the whole
pool leaves nothing to mine.
"""

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.scores import least_confidence, row_blocks, without
from active.registry import SAMPLERS
from active.selection import ContractError
from dassl.utils.registry import AtLeast, AtMost


def warm_start(ctx: SelectionContext, *, k_initial: int, **_: Any) -> Query:
    """Return no row to ask and, as mined, the `k_initial` rows of largest probability of each predicted class."""
    predicted = ctx.logits.argmax(1)
    mined = (rank_in_group(least_confidence(ctx.logits), predicted) < k_initial).nonzero().flatten()
    return Query(mined[:0], mined_rows=mined, mined_labels=predicted[mined])


@SAMPLERS.register("dual_prompt", needs_negative_texts=True, warm_start=warm_start, labels_itself=True)
def dual_prompt(
    ctx: SelectionContext, *, remainder: Literal["per_class", "global"] = "per_class",
    k_initial: Annotated[int, AtLeast(1), AtMost(10**6)] = 16, k: Annotated[int, AtLeast(0), AtMost(10**6)] = 16,
) -> Query:
    """Return the least clean rows of each predicted class to ask, and the `k` cleanest of each as mined.

    Each class gets floor(n_query / C) labels. The rest go to the least clean of all remaining rows ("global"), or,
    wave by wave, to the least clean among the next row of each class ("per_class").
    """
    predicted = ctx.logits.argmax(1)
    margins = clean_margins(ctx, predicted)
    wave = (rank_in_group(margins, predicted) - ctx.n_query // ctx.n_classes + 1).clamp(min=0)  # 0: within the quota
    if remainder == "global":
        wave = wave.clamp(max=1)
    order = margins.argsort(stable=True)
    asked = order[wave[order].argsort(stable=True)][: ctx.n_query]
    others = without(asked, ctx.n_pool)
    mined = others[rank_in_group(-margins[others], predicted[others]) < k]
    return Query(asked, scores=-margins[asked], pool_scores=-margins, mined_rows=mined, mined_labels=predicted[mined])


def clean_margins(ctx: SelectionContext, predicted: Tensor) -> Tensor:
    """Return v.t+ - v.t- [N] of each row's predicted class.

    p_clean = sigmoid(margin / tau) (Eq. 3) has the same order, but in float32 is 1 for every margin above 17 tau.
    """
    if ctx.negative_text_features is None:
        raise ContractError("dual_prompt compares positive with negative prompts, and this model has no negative ones")
    differences = ctx.text_features - ctx.negative_text_features  # [C, D]
    return torch.cat([(ctx.features[block].float() * differences[predicted[block]]).sum(1)
                      for block in row_blocks(*ctx.features.shape)])


def rank_in_group(values: Tensor, groups: Tensor) -> Tensor:
    """Return the rank [N], from 0, of each value among those of its group in ascending order; ties go to the lower row."""
    order = values.argsort(stable=True)
    order = order[groups[order].argsort(stable=True)]
    counts = groups.bincount()
    starts = (counts.cumsum(0) - counts)[groups[order]]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device) - starts)
