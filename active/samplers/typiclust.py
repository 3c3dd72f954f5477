"""TypiClust: the most typical row of each of the largest clusters that have fewest labels.

Source: Hacohen, Dekel and Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets", ICML 2022,
Section 4: all rows are clustered into min(labels so far + labels to buy, `max_clusters`) clusters; typicality (Eq. 4) is the
inverse of the mean distance to the 20 nearest neighbors inside the cluster, or to half of a cluster of less than 40.
As in the authors' code, clusters are visited in turn by (fewest labels, largest size), and those of at most
`min_cluster_size` rows last (there: never). A first round without labels is the paper's own.
`distance: squared` divides by the mean of squared distances, as the authors' code does, which is given those by its library;
up to a fifth of the picks are other ones.
Differences from the authors' code: one k-means for any number of clusters (there: mini-batches above 50); a cluster used up
is skipped (there: an error); the features are the image tower's, not those of a self-supervised network.
"""

from collections import deque
from typing import Annotated, Literal

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.kernels.k_means import k_means
from active.kernels.neighbors import neighbors
from active.kernels.scores import row_blocks, top_rows
from active.registry import SAMPLERS
from dassl.utils.registry import AtLeast, AtMost


@SAMPLERS.register("typiclust")
def typiclust(
    ctx: SelectionContext, *, n_neighbors: Annotated[int, AtLeast(1), AtMost(10**9)] = 20,
    max_clusters: Annotated[int, AtLeast(1), AtMost(10**9)] = 500,
    min_cluster_size: Annotated[int, AtLeast(0), AtMost(10**9)] = 5, distance: Literal["plain", "squared"] = "plain",
) -> Query:
    """Return `n_query` pool rows, one of a cluster at a time."""
    features = torch.cat([ctx.unlabeled_features.float(), ctx.labeled_features.float()])
    _, assignment = k_means(features, min(len(ctx.labels) + ctx.n_query, max_clusters), ctx.rng)
    sizes = assignment.bincount().tolist()
    n_labeled = assignment[len(ctx.unlabeled_features) :].bincount(minlength=len(sizes)).tolist()
    visits = sorted(range(len(sizes)), key=lambda cluster: (n_labeled[cluster], -sizes[cluster], cluster))
    members = list(assignment[: ctx.n_pool].argsort(stable=True).split(
        assignment[: ctx.n_pool].bincount(minlength=len(sizes)).tolist()))
    large = deque(cluster for cluster in visits if sizes[cluster] > min_cluster_size)
    small = deque(cluster for cluster in visits if sizes[cluster] <= min_cluster_size)
    picked: list[Tensor] = []
    values: list[Tensor] = []
    while len(picked) < ctx.n_query:
        turn = large or small
        cluster = turn.popleft()
        rows = members[cluster]
        if len(rows):
            own = typicality(features[rows], n_neighbors, 2 if distance == "squared" else 1)
            best = int(top_rows(own, 1))
            picked.append(rows[best])
            values.append(own[best])
            members[cluster] = torch.cat([rows[:best], rows[best + 1 :]])
            turn.append(cluster)
    return Query(torch.stack(picked), scores=torch.stack(values))


def typicality(features: Tensor, n_neighbors: int, power: int) -> Tensor:
    """Return minus the mean [N] of Euclidean distances^power to the nearest rows: ordered as its inverse, finite at 0."""
    rows, _ = neighbors(features, min(n_neighbors, len(features) // 2))
    width = max(1, rows.shape[1])
    return -torch.cat([(features[block, None] - features[rows[block]]).norm(dim=2).pow(power).sum(1) / width
                       for block in row_blocks(len(rows), width * features.shape[1])])
