"""ALFA-Mix: diverse rows among those whose prediction flips when mixed a little with a class's mean feature.

Source: Parvaneh et al., "Active Learning by Feature Mixing", CVPR 2022, Sections 3.2 (closed-form alpha, Eq. 5) and 3.3. Row
u becomes u + alpha * (a_c - u), a_c the mean labeled feature of class c, |alpha| <= cap / sqrt(D); the cap grows in steps of
`delta` until more than `n_query` rows flip for some class; these are clustered and each cluster's row nearest to its center
is asked. The closed form moves u by (cap / sqrt(D)) |a_c - u| along b, the unit gradient of the loss of the predicted class
y: c matters only through this length. With a linear head, rows w of any norms and a bias, y wins along the ray up to r =
min_k (z_y - z_k) / ((w_k - w_y).b) over rising k, z = w.u + bias, so u flips exactly at caps above sqrt(D) r / max_c |a_c -
u|: one pass instead of 1/delta * C.
Differences from the authors' code: only the closed form (there alpha may be trained by 5 Adam steps); the shortfall is drawn
without replacement; no crash without candidates; without labels the text features are the anchors, while the paper starts at
random. The delta of their closed-form runs is the default. A class without labels has the mean of all labeled rows.
"""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from active.context import SelectionContext
from active.kernels.k_means import k_means, nearest_members
from active.kernels.scores import by_block, residuals, without
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("alfa_mix", needs_labels=True, needs_linear=True)
def alfa_mix(ctx: SelectionContext, *, delta: Annotated[float, AtLeast(1e-3), AtMost(1)] = 0.2) -> Tensor:
    """Return `n_query` pool rows, most typical of each cluster of flipping rows first, then random ones if these are few."""
    caps = flip_caps(ctx)
    steps = (delta * torch.arange(1, math.ceil(1 / delta) + 1)).tolist()
    enough = float(caps.kthvalue(min(ctx.n_query + 1, ctx.n_pool)).values)  # above it, more than n_query flip
    cap = next((step for step in steps if step > enough), steps[-1])
    candidates, picked = (caps < cap).nonzero().flatten(), ctx.ids[:0]
    if len(candidates):
        features = F.normalize(ctx.features[candidates].float(), dim=1)
        clusters = nearest_members(features, *k_means(features, ctx.n_query, ctx.rng))
        picked = candidates[torch.stack([members[0] for members in clusters]).to(ctx.device)]
    rest = without(picked, ctx.n_pool)
    shortfall = ctx.n_query - len(picked)
    return torch.cat([picked, rest[ctx.permutation(len(rest))[:shortfall]]])


def flip_caps(ctx: SelectionContext) -> Tensor:
    """Return, for each pool row, the cap [N] above which mixing with some anchor changes its predicted class."""
    anchors, texts = class_anchors(ctx), ctx.text_features
    bias = texts.new_zeros(len(texts)) if ctx.bias is None else ctx.bias
    return by_block(lambda features, logits: _flip_caps(features, logits, anchors, texts, bias), ctx.features, ctx.logits)


def class_anchors(ctx: SelectionContext) -> Tensor:
    """Return each class's mean labeled feature [C, D], the mean of all if it has none; without labels, the text features."""
    if not len(ctx.labels):
        return ctx.directions
    members = F.one_hot(ctx.labels, ctx.n_classes).float()  # [M, C]
    members[:, members.sum(0) == 0] = 1
    return members.T @ ctx.labeled_features.float() / members.sum(0)[:, None]


def _flip_caps(features: Tensor, logits: Tensor, anchors: Tensor, texts: Tensor, bias: Tensor) -> Tensor:
    predicted = logits.argmax(1, keepdim=True)
    steps = F.normalize(residuals(logits) @ texts, dim=1, eps=1e-30) @ texts.T  # of the cosines per unit length, [block, C]
    cosines = features @ texts.T + bias
    rising = steps - steps.gather(1, predicted)
    gaps = (cosines.gather(1, predicted) - cosines).clamp(min=0)
    lengths = (gaps / rising).where(rising > 0, torch.inf).amin(1)
    farthest = torch.cdist(features, anchors, compute_mode="donot_use_mm_for_euclid_dist").amax(1)
    return (math.sqrt(features.shape[1]) * lengths / farthest).nan_to_num(nan=torch.inf, posinf=torch.inf)
