"""K-means: seeds by greedy k-means++, Lloyd's steps, and the members of a cluster that lie nearest to its center.

Rows may be float16, float32 or float64; what is computed is float32, and sums that decide a draw are float64. Ties go to
the lower row. On a card, seeds are drawn there, and Lloyd's steps are those of the CPU.
"""

import math
import warnings
from itertools import islice

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from active.kernels.d2_sampling import ROUNDING, drawn_rows, squared_distances, squared_norms
from active.kernels.scores import row_blocks
from dassl.utils.large import single
from dassl.utils.progress import BAR

SKLEARN_LIMIT = 2**32  # N K D above which k-means runs in faiss; one step of the one-thread scikit-learn is 0.2 s here
BATCH = 2**27  # distances of candidates for seeds that are held at once above that limit: 512 MiB
MAX_STEPS = 300  # of k-means, and the tolerance on the squared shift of the centers: scikit-learn's defaults
TOLERANCE = 1e-4
LARGE, LARGE_STEPS = 2**38, 25  # N K D above which k-means takes fewer steps; one is 2^39 operations: 7 s of a core


def k_means(
    features: Tensor, k: int, rng: np.random.Generator, *, weights: Tensor | None = None, of_seeds: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return centers [K, D] float32 and the assignment [N] int64 that minimize sum_i w_i |x_i - center_i|^2, locally.

    K is k, less where there are fewer distinct rows (of positive weight) or a cluster ends empty; every cluster has a member.
    An empty cluster is re-seeded at the row farthest from its center, whatever that row's weight. Seeds come from
    `k_means_seeds`; Lloyd's steps are scikit-learn's, or faiss's with the same stopping rule where N K D is above
    `SKLEARN_LIMIT`. Above `LARGE` there are at most `LARGE_STEPS` steps, which may end before they converge. Only ratios of
    the weights matter. Seeds are drawn by the weights `of_seeds` where these are given.
    """
    rows = single(features)
    weights = _scaled(weights, rows)
    seeds = k_means_seeds(rows, k, rng, weights if of_seeds is None else _scaled(of_seeds, rows))
    return lloyd(rows, rows[seeds], weights)


def k_means_seeds(rows: Tensor, k: int, rng: np.random.Generator, weights: Tensor) -> Tensor:
    """Return the rows that k-means starts from, by greedy k-means++: at most k, all distinct as points.

    The first is drawn with probability w_i; for each other one, `n_candidates(k)` are drawn with probability w_i D_i^2, D_i
    the distance to the nearest seed before, and the one that leaves the least sum_i w_i D_i^2 is kept.
    Where N K D is above `SKLEARN_LIMIT`, a pass of matrix products serves several seeds: see `_Seeds.extend`. The law is
    the same. O(n_candidates K N D) time; memory for `BATCH` distances beside the rows.
    Source: Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007 (greedy, in its conclusion); the
    number of candidates is scikit-learn's. Analyzed in Grunau et al., "A Nearly Tight Analysis of Greedy k-means++", SODA 2023.
    """
    seeds, n_tried = _Seeds(rows, weights, rng), n_candidates(k)
    most = 1 if rows.numel() * k <= SKLEARN_LIMIT else max(1, BATCH // (n_tried * len(rows)))  # seeds of a pass
    with tqdm(total=k, desc="k-means++", **BAR) as bar:
        while len(seeds.picked) < k:
            n_seeds = min(len(seeds.picked), most, k - len(seeds.picked))  # mass falls fast in the beginning
            candidates = drawn_rows(seeds.mass(), n_seeds * n_tried, rng)
            if not candidates:
                break
            seeds.extend(candidates, n_tried, rng)
            bar.update(len(seeds.picked) - bar.n)
    return torch.tensor(seeds.picked, dtype=torch.int64, device=rows.device)


def _scaled(weights: Tensor | None, rows: Tensor) -> Tensor:
    """Return weights [N] in float32 whose mean is 1; all 1 where none is positive."""
    if weights is None or not bool((weights > 0).any()):
        return rows.new_ones(len(rows))
    return weights.float() / weights.float().mean()


def n_candidates(k: int) -> int:
    """Return the number of rows that are tried for each of k seeds."""
    return 2 + int(math.log(k))


class _Seeds:
    """Rows picked to start k-means from, and the squared distance `nearest` [N] of every row to the nearest of them."""

    def __init__(self, rows: Tensor, weights: Tensor, rng: np.random.Generator) -> None:
        self._rows, self._weights, self._norms = rows, weights, squared_norms(rows)
        self._is_plain = bool((weights == 1).all())
        self._rounding = ROUNDING * float(weights.double() @ self._norms.double())  # of a sum of squared distances
        self.picked = drawn_rows(weights.double(), 1, rng)
        self.nearest = self._distances(self.picked)[0]

    def mass(self) -> Tensor:
        """Return w_i D_i^2 [N] in float64."""
        return self._weights.double() * self.nearest.double()

    def extend(self, candidates: list[int], n_tried: int, rng: np.random.Generator) -> None:
        """Pick the best of each `n_tried` candidates, which were drawn from the mass as it is now.

        Later ones must follow the mass that the picks before them leave. Mass never grows, so a candidate is kept with
        probability D_i^2 now / D_i^2 when it was drawn: rejection sampling. What is left at the end is thrown away.
        """
        distances = self._distances(candidates)
        then = self.nearest[candidates].tolist() if len(candidates) > n_tried else []
        follows = (i for i, row in enumerate(candidates)
                   if i < n_tried or rng.random() * then[i] < float(self.nearest[row]))  # asked for one by one
        while len(tried := list(islice(follows, n_tried))) == n_tried:
            left = distances if len(tried) == len(distances) else distances[tried]  # all of them: no copy
            left = torch.minimum(left, self.nearest, out=left)
            inertia = (left if self._is_plain else left * self._weights).sum(1, dtype=torch.float64)
            best = int((inertia <= inertia.min() + self._rounding).int().argmax())  # the first of those that tie
            row = candidates[tried[best]]
            self.picked.append(row)
            self.nearest = left[best].clone()  # a view would keep the whole alive
            self.nearest[row] = 0

    def _distances(self, candidates: list[int]) -> Tensor:
        """Return the squared distances [M, N] of all rows to M of them."""
        points, norms = self._rows[candidates], self._norms[candidates, None]
        distances = self._rows.new_empty(len(candidates), len(self._rows))
        for block in row_blocks(len(self._rows), max(self._rows.shape[1], 4 * len(candidates))):  # stays in the cache
            products = (self._rows[block] @ points.T).T  # three times as fast as points @ rows.T where points are few
            distances[:, block] = squared_distances(norms, self._norms[block], products)
        return distances


def lloyd(rows: Tensor, seeds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return centers and assignment of weighted k-means from given seeds [K, D]; clusters without a member are dropped."""
    steps = _lloyd_sklearn if rows.numel() * len(seeds) <= SKLEARN_LIMIT else _lloyd_faiss
    centers, assignment = steps(*(own.cpu().numpy() for own in (rows, seeds, weights)))
    used, assignment = torch.from_numpy(assignment).long().unique(return_inverse=True)
    return torch.from_numpy(centers)[used].to(rows.device), assignment.to(rows.device)


def nearest_members(features: Tensor, centers: Tensor, assignment: Tensor) -> list[Tensor]:
    """Return, for each of the K clusters, its own rows in the order of their Euclidean distance to its center, on the CPU.

    Ties go to the lower row; rows within a rounding error of the nearest one tie with it, as both rows of a cluster of
    two do. For unit-norm rows the order by cosine is the same: |x - c|^2 = 1 + |c|^2 - 2 x.c.
    """
    distances = torch.empty(len(features), device=features.device)
    for block in row_blocks(*features.shape):
        distances[block] = (features[block].float() - centers[assignment[block]]).square().sum(1)
    least = distances.new_zeros(len(centers)).scatter_reduce(0, assignment, distances, "amin", include_self=False)[assignment]
    distances = distances.where(distances > least + ROUNDING, least)
    order = distances.argsort(stable=True)
    order = order[assignment[order].argsort(stable=True)]
    return list(order.cpu().split(assignment.bincount(minlength=len(centers)).tolist()))


def _lloyd_sklearn(rows: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One thread: with more, the order of scikit-learn's sums, and with it the last digits, changes from run to run."""
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than seeds: dropped by `lloyd`
        fitted = KMeans(len(seeds), init=seeds, n_init=1, max_iter=MAX_STEPS, tol=TOLERANCE, random_state=0,
                        algorithm="lloyd").fit(rows, sample_weight=weights)
    return fitted.cluster_centers_, fitted.labels_


def _lloyd_faiss(rows: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """faiss one step at a time, for scikit-learn's stopping rule, and on all rows, not on 256 a center, its default."""
    import faiss

    centers, tolerance = seeds, TOLERANCE * _variance(rows)
    n_steps = LARGE_STEPS if rows.size * len(seeds) > LARGE else MAX_STEPS
    for _ in tqdm(range(n_steps), "k-means", **BAR):
        clustering = faiss.Kmeans(rows.shape[1], len(seeds), niter=1, max_points_per_centroid=2**31 - 1,
                                  min_points_per_centroid=1)
        clustering.train(rows, weights=weights, init_centroids=centers)
        before, centers = centers, clustering.centroids.copy()
        if np.square(centers - before).sum() <= tolerance:
            break
    return centers, clustering.assign(rows)[1]


def _variance(rows: np.ndarray) -> float:
    """Return the variance [D] of the columns of rows [N, D], averaged, without a copy of the rows."""
    blocks = [rows[block] for block in row_blocks(*rows.shape)]
    mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / len(rows)
    return float(sum(np.square(block - mean).sum() for block in blocks)) / rows.size
