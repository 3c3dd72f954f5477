"""Purity: runs any sampler on a pool with images of no class, after dropping the rows that look like those.

Source: the idea of arXiv 2408.04917: rows that are likely of no class are dropped, then any sampler (`base`) asks among the
others. The rule is ours. Images that people called "none of these" are flagged. From `min_flags` flags on, a row's score is
that of a logistic regression of labeled against flagged images on two numbers: its largest softmax of the cosines to the
classes, at temperature 1, and its largest cosine to a labeled image minus that to a flagged one (of a labeled or flagged image,
to the others of its kind). Rows below Otsu's threshold on the pool's scores are dropped; once there are 60 labels, rows below
the lowest 5 % of the labeled images' scores. With fewer than two labels the first number alone is the score. With fewer flags
the first number alone decides (`unflagged: texts`), which drops some rows of every pool, even of a pure one; or nothing is
dropped, and this is the base sampler, bit for bit (`unflagged: keep`). Dropped rows are neither candidates nor targets to cover
in this round, and are judged again in the next. If fewer rows are left than labels asked for, dropped ones are asked too, by
falling score, with a warning. The audit is of all images.

`rule: negative` is CLIPN's (Wang et al., "CLIPN for Zero-Shot OOD Detection: Teaching CLIP to Say No", ICCV 2023, Section 3.4),
for learners with negative prompts: y_k = sigmoid(s (cos(v, t+_k) - cos(v, t-_k))) says whether an image v is of class k at all,
and a row is kept if the sum over k of y_k p_k, plus the largest of them, is above 1. s = 100 is CLIP's scale, as in the paper;
with labels it is the one of 31 values from 0.1 to 100 by which y_k is most likely of labeled images: 1 for the label, 0 for the
other classes, on average over them, and 0 for all classes of flagged images. The model of round 0 has no negative prompts, so
that the first query goes by the rule above.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.kernels.neighbors import neighbors
from active.kernels.scores import row_blocks, top_rows, without
from active.registry import SAMPLERS, Sampler, refuse_records, wrapped
from dassl.utils.linear import pair_products
from dassl.utils.registry import AtLeast, AtMost

RIDGE = 0.01
MANY_LABELS, LOW_END = 60, 0.05  # from this many labels on, their own scores set the threshold
SCALES = [10 ** (number / 10) for number in range(-10, 21)]  # s of the negative rule, 0.1 to 100
EQUAL = 1e-6  # share of the largest score below which differences are rounding

logger = logging.getLogger(__name__)


def _goes_by_negative(node: CfgNode) -> bool:
    """Return whether an `ACTIVE` node asks for the negative rule."""
    return node.PURITY.RULE == "negative"


def _check_base(node: CfgNode) -> None:
    """Raise ConfigError for a base that repeats a record."""
    refuse_records("PURITY.BASE", wrapped("purity", node)[1:])


@SAMPLERS.register("purity", filters=True, check=_check_base, needs_negative_texts_if=_goes_by_negative)
def purity(
    ctx: SelectionContext, *, base: Sampler = "margin", min_flags: Annotated[int, AtLeast(1), AtMost(10**9)] = 5,
    unflagged: Literal["keep", "texts"] = "texts", rule: Literal["likeness", "negative"] = "likeness",
) -> Tensor | Query:
    """Return what the base sampler asks among the rows that are likely of some class."""
    if rule == "negative" and ctx.negative_text_features is not None:
        scores = negative_scores(ctx, ctx.negative_text_features)
        return asked_of(ctx, base, scores[: ctx.n_pool], scores[ctx.n_pool :], torch.finfo(scores.dtype).tiny)
    flagged = ctx.flagged_features
    if flagged is None or len(flagged) < min_flags:
        if unflagged == "keep":
            return base(ctx)
        flagged = None
    scores, of_labeled = own_scores(ctx, flagged)
    pool, skipped = scores.split([ctx.n_pool, len(scores) - ctx.n_pool])
    if flagged is not None and len(of_labeled) >= MANY_LABELS:
        threshold = float(of_labeled.double().quantile(LOW_END))
    else:
        threshold = otsu(pool)
    return asked_of(ctx, base, pool, skipped, threshold)


def asked_of(ctx: SelectionContext, base: Sampler, pool: Tensor, skipped: Tensor, threshold: float) -> Tensor | Query:
    """Return what a sampler asks among pool rows whose score [N] reaches the threshold; `skipped` [S] are scores too."""
    kept = (pool >= threshold).nonzero().flatten()
    logger.info("purity: %d of %d images are likely of a class", len(kept), ctx.n_pool)
    if len(kept) <= ctx.n_query:
        return _short(ctx, pool, kept)
    answer = base(_among(ctx, kept, skipped >= threshold))
    query = answer if isinstance(answer, Query) else Query(answer)
    of_pool = query.pool_scores
    if of_pool is not None:  # dropped rows have no score
        of_pool = of_pool.new_full((ctx.n_pool,), torch.nan).index_copy_(0, kept, of_pool)
    return replace(query, pool_scores=of_pool).renumbered(kept)


def own_scores(ctx: SelectionContext, flagged: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return how much images without a label [N + S], and labeled ones [M], look like those of the classes; higher is more."""
    near = [class_likeness(rows, ctx.directions) for rows in (ctx.unlabeled_features, ctx.labeled_features)]
    if flagged is None or len(ctx.labels) < 2:
        return near[0], near[1]
    labeled, flagged = ctx.labeled_features.float(), flagged.float()
    differences = [largest_cosine(ctx.unlabeled_features, labeled) - largest_cosine(ctx.unlabeled_features, flagged),
                   largest_other(labeled) - largest_cosine(labeled, flagged),
                   largest_cosine(flagged, labeled) - largest_other(flagged)]
    near.append(class_likeness(flagged, ctx.directions))
    unlabeled, *known = (torch.stack(pair, 1) for pair in zip(near, differences, strict=True))
    score = told_apart(*known)
    return score(unlabeled), score(known[0])


def negative_scores(ctx: SelectionContext, negative: Tensor) -> Tensor:
    """Return by how much each image without a label [N + S] is more likely of some class than of none, in [-1, 1]."""
    differences, scale = ctx.text_features - negative, negative_scale(ctx, negative)
    scores = torch.empty(len(ctx.unlabeled_features), device=ctx.device)
    for block in row_blocks(len(scores), max(differences.shape)):
        says_yes = (scale * ctx.unlabeled_features[block].float() @ differences.T).sigmoid()
        of_class = says_yes * ctx.unlabeled_logits[block].float().softmax(1)
        scores[block] = of_class.amax(1) + of_class.sum(1) - 1
    return scores


def negative_scale(ctx: SelectionContext, negative: Tensor) -> float:
    """Return the scale s of the negative rule; among equally likely scales, the lowest."""
    if not len(ctx.labels):
        return SCALES[-1]
    differences = (ctx.text_features - negative).double()
    labeled = ctx.labeled_features.double() @ differences.T
    flagged = None if ctx.flagged_features is None else ctx.flagged_features.double() @ differences.T
    is_label = torch.zeros_like(labeled).scatter_(1, ctx.labels[:, None], 1.0)
    others = (1 - is_label) / max(1, ctx.n_classes - 1)

    def likelihood(scale: float) -> Tensor:
        of_labeled = (is_label * F.logsigmoid(scale * labeled) + others * F.logsigmoid(-scale * labeled)).sum(1).mean()
        return of_labeled if flagged is None else of_labeled + F.logsigmoid(-scale * flagged).mean()

    return SCALES[int(torch.stack([likelihood(scale) for scale in SCALES]).argmax())]


def class_likeness(features: Tensor, directions: Tensor) -> Tensor:
    """Return the largest softmax [N] of cosines to the classes."""
    return _of_cosines(lambda cosines: cosines.softmax(1).amax(1), features, directions)


def largest_cosine(rows: Tensor, others: Tensor) -> Tensor:
    """Return the largest cosine [n] of each row to others."""
    return _of_cosines(lambda cosines: cosines.amax(1), rows, others)


def largest_other(rows: Tensor) -> Tensor:
    """Return the largest cosine [n] of each row to another row; 1 if there is none."""
    return neighbors(rows, 1)[1].flatten() if len(rows) > 1 else torch.ones(len(rows), device=rows.device)


def told_apart(own: Tensor, others: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function of rows [N, 2]: a logistic regression's logit [N] that they belong with `own`."""
    from sklearn.linear_model import LogisticRegression  # imported here because it takes long

    known = torch.cat([own, others]).double()
    mean, scale = known.mean(0), known.std(0, correction=0)
    scale = scale.where(scale > 0, 1)
    is_own = np.repeat([1, 0], [len(own), len(others)])
    fitted = LogisticRegression(C=1 / RIDGE, solver="newton-cholesky").fit(((known - mean) / scale).cpu().numpy(), is_own)
    weights = torch.from_numpy(fitted.coef_[0]).to(known.device)
    return lambda rows: (((rows.double() - mean) / scale) @ weights + float(fitted.intercept_[0])).float()


def otsu(scores: Tensor) -> float:
    """Return the least score of the upper of two parts between which the variance is largest.

    If all scores are equal, that is the least of all. Source: Otsu, "A Threshold Selection Method from Gray-Level
    Histograms", IEEE Transactions on Systems, Man, and Cybernetics, 1979; here on the scores themselves.
    """
    ordered = scores.double().sort().values
    if float(ordered[-1] - ordered[0]) <= EQUAL * float(ordered.abs().max()):
        return float(ordered[0])
    sums, n_low = ordered.cumsum(0), torch.arange(1, len(ordered), device=ordered.device)
    low, high = sums[:-1] / n_low, (sums[-1] - sums[:-1]) / (len(ordered) - n_low)
    between = n_low * (len(ordered) - n_low) * (high - low) ** 2
    return float(ordered[1 + int(between.where(ordered.diff() > 0, -torch.inf).argmax())])


def _short(ctx: SelectionContext, scores: Tensor, kept: Tensor) -> Tensor:
    """Return all kept rows, then dropped ones by falling score, if no more rows are kept than asked for."""
    if len(kept) < ctx.n_query:
        logger.warning("purity: %d images that are likely of no class are asked, since only %d others are left",
                       ctx.n_query - len(kept), len(kept))
    dropped = without(kept, ctx.n_pool)
    return torch.cat([kept, dropped[top_rows(scores[dropped], ctx.n_query - len(kept))]])


def _of_cosines(function: Callable[[Tensor], Tensor], rows: Tensor, others: Tensor) -> Tensor:
    """Return function(cosines [block, M] of rows to others), [N] in float32."""
    found = torch.empty(len(rows), device=rows.device)
    for block in row_blocks(len(rows), max(others.shape)):
        found[block] = function(pair_products(rows[block].float(), others))
    return found


def _among(ctx: SelectionContext, rows: Tensor, skipped: Tensor) -> SelectionContext:
    """Return the context with only these pool rows, and only the marked [S] of the skipped images."""
    pool: dict[str, Any] = {name: getattr(ctx, name)[rows] for name in ("ids", "features", "logits", "zero_shot_logits")}
    others: dict[str, Any] = {} if not len(skipped) else {
        name: getattr(ctx, name)[skipped] if skipped.any() else None
        for name in ("skipped_features", "skipped_logits", "skipped_ids") if getattr(ctx, name) is not None}
    return replace(ctx, **pool, **others)
