"""CBSQ: CB that saves budget; a pick more confident than the labeled images of its class is labeled by the model itself.

Source: Kim et al., "Active Prompt Learning with Vision-Language Model Priors", TMLR 2025 (arXiv 2411.16722): budget-saving
selective querying. The factor 4 of the number of clusters and the thresholds, Eq. (cb.4) of `docs/samplers.md`, are read
from the authors' released code; whether the paper states the factor is not known.
Differences from the authors' code: the saved budget adds up over the rounds (theirs prints that of the last round only);
true labels are never overwritten; clusters may get several labels (see `cb`); confidences are float64, which tells sure
images apart that are all 1 in float32. A query for the whole pool is paid in full.
"""

from typing import Annotated

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.registry import SAMPLERS
from active.samplers.cb import Fusion, cluster_balanced_rows
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("cbsq", labels_itself=True)
def cbsq(ctx: SelectionContext, *, factor: Annotated[int, AtLeast(1), AtMost(1000)] = 4, fusion: Fusion = "concat") -> Query:
    """Return `n_query` pool rows from `factor` C + M clusters, split into rows to ask and rows to pseudo-label.

    Without labels there are C clusters and every row is asked, as in `cb`.
    """
    n_clusters = (factor if len(ctx.labels) else 1) * ctx.n_classes + len(ctx.labels)
    rows = cluster_balanced_rows(ctx, n_clusters, fusion)
    confidence, predicted = ctx.logits[rows].double().softmax(1).max(1)
    saved = confidence >= class_thresholds(ctx.labeled_logits, ctx.labels)[predicted]
    return Query(rows[~saved], rows[saved], predicted[saved], confidence[saved].float())


def class_thresholds(labeled_logits: Tensor, labels: Tensor) -> Tensor:
    """Return for each class the mean confidence [C] of its labeled images, misclassified or not; inf where it has none.

    Confidence is the largest probability of logits [M, C], in float64: in float32 all sure images would be equally sure.
    """
    n_classes = labeled_logits.shape[1]
    confidence = labeled_logits.double().softmax(1).amax(1)
    counts = labels.bincount(minlength=n_classes)
    sums = confidence.new_zeros(n_classes).index_add_(0, labels, confidence)
    means = sums / counts * (1 - 1e-12)  # slightly lower, so that equal confidences reach their mean
    return means.where(counts > 0, torch.inf)
