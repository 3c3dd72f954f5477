"""CB: class-guided clusters of pool and labeled set, labels given to the clusters with the smallest labeled share.

Source: Kim et al., "Active Prompt Learning with Vision-Language Model Priors", TMLR 2025 (arXiv 2411.16722): class-guided
clustering and cluster-balanced acquisition. The paper's equations were not available; the formulas are read from its
figure and the authors' released code, as in Eqs. (cb.1) to (cb.3) of `docs/samplers.md`.
Differences from the authors' code: k-means starts once, from greedy k-means++ seeds drawn by the run's own seed (there: the
same kind of seeds, once or ten times by scikit-learn's version, from a fixed 42); a cluster may get several labels, but never
more than it has unlabeled members, and the excess goes to the next one, so exactly `n_query` rows are asked; duplicate images,
which make fewer clusters, are not an error. `fusion="mean"` follows the paper's figure.
"""

import heapq
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from active.context import SelectionContext
from active.kernels.k_means import k_means, nearest_members
from active.kernels.memory import need_memory
from active.kernels.scores import row_blocks
from active.registry import SAMPLERS
from dassl.utils.large import room

Fusion = Literal["concat", "mean"]


@SAMPLERS.register("cb")
def cb(ctx: SelectionContext, *, fusion: Fusion = "concat") -> Tensor:
    """Return `n_query` pool rows from C + M clusters; without labels these are C clusters, one row each if C are asked."""
    return cluster_balanced_rows(ctx, ctx.n_classes + len(ctx.labels), fusion)


def cluster_balanced_rows(ctx: SelectionContext, n_clusters: int, fusion: Fusion) -> Tensor:
    """Return `n_query` pool rows: in the order of `balanced_allocation`, the unlabeled members nearest to each center."""
    features = class_guided_features(ctx, fusion)
    centers, assignment = k_means(features, n_clusters, ctx.rng)
    n_unlabeled = len(features) - len(ctx.labels)
    n_labeled = assignment[n_unlabeled:].bincount(minlength=len(centers)).tolist()
    members = [rows[(rows < ctx.n_pool) | (rows >= n_unlabeled)] for rows in nearest_members(features, centers, assignment)]
    waiting = [iter(rows[rows < ctx.n_pool].tolist()) for rows in members]
    clusters = balanced_allocation(n_labeled, [len(rows) for rows in members], ctx.n_query)
    return torch.tensor([next(waiting[cluster]) for cluster in clusters], device=ctx.device)


def class_guided_features(ctx: SelectionContext, fusion: Fusion) -> Tensor:
    """Return unit rows [N + S + M, 2D] that join each image with the mean text of its probabilities; D wide for "mean"."""
    n_rows, width = len(ctx.unlabeled_features) + len(ctx.labels), ctx.features.shape[1] * (2 if fusion == "concat" else 1)
    if ctx.features.is_cuda:
        need_memory("class-guided clustering", 4 * n_rows * width, ctx.device)
    guided, start = room(n_rows, width, device=ctx.device), 0
    for images, logits in ((ctx.unlabeled_features, ctx.unlabeled_logits), (ctx.labeled_features, ctx.labeled_logits)):
        for block in row_blocks(*logits.shape):
            texts = logits[block].float().softmax(1) @ ctx.directions  # [block, D]
            joined = torch.cat([images[block].float(), texts], 1) if fusion == "concat" else (images[block].float() + texts) / 2
            guided[start : start + len(joined)] = F.normalize(joined, dim=1)
            start += len(joined)
    return guided


def balanced_allocation(n_labeled: Sequence[int], n_members: Sequence[int], n: int) -> list[int]:
    """Return the cluster of each of n labels in turn: smallest labeled share, then largest cluster, then lowest index.

    A cluster without unlabeled members gets none. A heap with keys (share, -size, index) takes O((K + n) log K).
    """
    heap = [(labeled / size, -size, cluster, labeled)
            for cluster, (labeled, size) in enumerate(zip(n_labeled, n_members, strict=True)) if labeled < size]
    heapq.heapify(heap)
    clusters = []
    while heap and len(clusters) < n:
        _, minus_size, cluster, labeled = heapq.heappop(heap)
        clusters.append(cluster)
        if labeled + 1 < -minus_size:
            heapq.heappush(heap, ((labeled + 1) / -minus_size, minus_size, cluster, labeled + 1))
    return clusters
