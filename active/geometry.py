"""Shared geometry on feature rows: k-center, D^2 sampling, k-means, nearest members, nearest neighbors.

Every kernel takes float16, float32 or float64 rows and computes in float32; sums that decide a random draw are float64.
Ties go to the lower row. No kernel holds a matrix of N x N numbers: what is compared at once is a block.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor
from tqdm import tqdm

from active.scores import by_block, row_blocks, top_columns

BAR = {"leave": False, "disable": None, "delay": 1}  # a progress bar on a terminal, from the first second on
TILE = 1024  # rows and columns of a tile of cosines
QUERIES = 512  # rows that are compared with all others at once; products of 83 rows, a `BLOCK` at 50,000, run at half the speed
ROUNDING = 2e-6  # squared distances below this share of the squared norms are rounding errors of float32 products
SKLEARN_LIMIT = 2**32  # N K D above which k-means runs in faiss; one step of the one-thread scikit-learn is 0.2 s here
BATCH = 2**27  # distances of candidates for seeds that are held at once above that limit: 512 MiB
MAX_STEPS = 300  # of k-means, and the tolerance on the squared shift of the centers: scikit-learn's defaults
TOLERANCE = 1e-4
LARGE, LARGE_STEPS = 2**38, 25  # N K D above which k-means takes fewer steps; one is 2^39 operations: 7 s of a core


def k_center(features: Tensor, centers: Tensor, n: int, first: int | None = None) -> Tensor:
    """Return n rows of unit-norm features [N, D], each farthest from `centers` [M, D] and from the rows before it.

    Ties go to the lower row and no row is picked twice, also where all distances are 0. Without centers the rows begin
    with `first`. O((M + n) N D) time, O(N D) memory: since |x - c|^2 = 2 - 2 x.c, a vector of largest cosines is kept.
    Source: Sener and Savarese, ICLR 2018, Algorithm 1 (greedy k-center, a 2-approximation of the optimal radius).
    """
    features, centers = features.float(), centers.float()
    nearest = features.new_full((len(features),), -torch.inf)  # largest cosine to any center so far, [N]
    for block in row_blocks(len(centers), len(features)):
        nearest = torch.maximum(nearest, (features @ centers[block].T).amax(1))
    picked = []
    for _ in tqdm(range(n), "k-center", **BAR):
        row = first if not picked and first is not None else int(nearest.argmin())
        picked.append(row)
        nearest = torch.maximum(nearest, features @ features[row])
        nearest[row] = torch.inf
    return torch.tensor(picked, dtype=torch.int64)


def euclidean_k_center(rows: Tensor, centers: Tensor, n: int, first: int | None) -> Tensor:
    """Return n of the rows [N, H], each farthest from `centers` [M, H] and from those before it; rows of any norm.

    Without centers the first is `first`. Ties go to the lower row and none is picked twice. O((M + n) N H) time, O(N H)
    memory. Distances are sums of squared differences: products lose the small ones where rows have a large part in common.
    On unit-norm rows the picks are those of `k_center`, which is faster.
    """
    nearest = rows.new_full((len(rows),), torch.inf)
    for block in row_blocks(len(centers), len(rows)):
        nearest = torch.minimum(nearest, _exact_distances(rows, centers[block]).amin(1))
    picked = []
    for _ in tqdm(range(n), "k-center", **BAR):
        row = first if not picked and first is not None else int(nearest.argmax())
        picked.append(row)
        nearest = torch.minimum(nearest, _exact_distances(rows, rows[row, None])[:, 0])
        nearest[row] = -torch.inf
    return torch.tensor(picked)


def squared_distances(squared_norms: Tensor, squared_norm: Tensor, products: Tensor) -> Tensor:
    """Return |x_i - y|^2 [N] from |x_i|^2 [N], |y|^2 and x_i.y [N]; or of all pairs [N, M], from [N, 1], [M] and [N, M].

    What is not above the rounding error of float32 products is exactly 0, so that equal rows have distance 0.
    """
    norms = squared_norms + squared_norm
    distances = norms - 2 * products
    return distances.where(distances > ROUNDING * norms, 0)


def d2_sampling(
    n: int, n_rows: int, distances_to: Callable[[int], Tensor], rng: np.random.Generator, *, first: int
) -> Tensor:
    """Return n distinct rows of n_rows: `first`, then each drawn with probability D_i^2, D_i the distance to those before it.

    `distances_to(row)` gives the squared distances [n_rows] of all rows to one. Once every D_i^2 is 0, the rest is drawn
    uniformly from the rows not yet picked. Each draw takes one uniform number u and is the first row whose cumulative sum
    is above u times the total. The sums are float64 on the CPU, so the draw does not depend on the device.
    Source: Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007, Section 2.2.
    """
    picked, nearest, free = [first], torch.inf, torch.ones(n_rows, dtype=torch.bool)
    for _ in tqdm(range(1, min(n, n_rows)), "D^2 sampling", **BAR):
        free[picked[-1]] = False
        nearest = distances_to(picked[-1]).double().cpu().clamp(max=nearest)
        drawn = _drawn_rows(nearest * free, 1, rng)
        if not drawn:
            rest = free.nonzero().flatten()
            drawn = [int(rest[int(rng.random() * len(rest))])]
        picked += drawn
    return torch.tensor(picked, dtype=torch.int64)


def k_means(
    features: Tensor, k: int, rng: np.random.Generator, *, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return centers [K, D] float32 and the assignment [N] int64 that minimize sum_i w_i |x_i - center_i|^2, locally.

    K is k, less where there are fewer distinct rows (of positive weight) or a cluster ends empty; every cluster has a member.
    One that empties on the way takes the row farthest from its center, whatever that row's weight. Seeds come from
    `k_means_seeds`; Lloyd's steps are scikit-learn's, or faiss's with the same stopping rule where N K D is above
    `SKLEARN_LIMIT`. Above `LARGE` there are at most `LARGE_STEPS` steps, which may end before they converge. Only ratios of
    the weights matter.
    """
    rows = features.float()
    if weights is None or not bool((weights > 0).any()):
        weights = rows.new_ones(len(rows))
    weights = weights.float() / weights.float().mean()
    return lloyd(rows, rows[k_means_seeds(rows, k, rng, weights)], weights)


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
            candidates = _drawn_rows(seeds.mass(), n_seeds * n_tried, rng)
            if not candidates:
                break
            seeds.extend(candidates, n_tried, rng)
            bar.update(len(seeds.picked) - bar.n)
    return torch.tensor(seeds.picked, dtype=torch.int64)


def n_candidates(k: int) -> int:
    """Return the number of rows that are tried for each of k seeds."""
    return 2 + int(math.log(k))


class _Seeds:
    """Rows picked to start k-means from, and the squared distance `nearest` [N] of every row to the nearest of them."""

    def __init__(self, rows: Tensor, weights: Tensor, rng: np.random.Generator) -> None:
        self._rows, self._weights, self._norms = rows, weights, squared_norms(rows)
        self._rounding = ROUNDING * float(weights.double() @ self._norms.double())  # of a sum of squared distances
        self.picked = _drawn_rows(weights.double(), 1, rng)
        self.nearest = self._distances(self.picked)[0]

    def mass(self) -> Tensor:
        """Return w_i D_i^2 [N] in float64."""
        return self._weights.double() * self.nearest.double()

    def extend(self, candidates: list[int], n_tried: int, rng: np.random.Generator) -> None:
        """Pick the best of each `n_tried` candidates, which were drawn from the mass as it is now.

        Later ones must follow the mass that the picks before them leave. Mass never grows, so a candidate is kept with
        probability D_i^2 now / D_i^2 when it was drawn: rejection sampling. What is left at the end is thrown away.
        """
        distances, then = self._distances(candidates), self.nearest[candidates].tolist()
        follows = (i for i, row in enumerate(candidates)
                   if i < n_tried or rng.random() * then[i] < float(self.nearest[row]))  # asked for one by one
        while len(tried := list(islice(follows, n_tried))) == n_tried:
            left = torch.minimum(distances[tried], self.nearest)  # [n_tried, N]
            inertia = (left * self._weights).sum(1, dtype=torch.float64)
            best = int((inertia <= inertia.min() + self._rounding).nonzero()[0])  # the first of those that tie
            row = candidates[tried[best]]
            self.picked.append(row)
            self.nearest = left[best]
            self.nearest[row] = 0

    def _distances(self, candidates: list[int]) -> Tensor:
        """Return the squared distances [M, N] of all rows to M of them."""
        points, norms = self._rows[candidates], self._norms[candidates, None]
        distances = torch.empty(len(candidates), len(self._rows))
        for block in row_blocks(len(self._rows), max(self._rows.shape[1], 4 * len(candidates))):  # stays in the cache
            products = (self._rows[block] @ points.T).T  # three times as fast as points @ rows.T where points are few
            distances[:, block] = squared_distances(norms, self._norms[block], products)
        return distances


def lloyd(rows: Tensor, seeds: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return centers and assignment of weighted k-means from given seeds [K, D]; clusters without a member are dropped."""
    steps = _lloyd_sklearn if rows.numel() * len(seeds) <= SKLEARN_LIMIT else _lloyd_faiss
    centers, assignment = steps(rows.numpy(), seeds.numpy(), weights.numpy())
    used, assignment = torch.from_numpy(assignment).long().unique(return_inverse=True)
    return torch.from_numpy(centers)[used], assignment


def nearest_members(features: Tensor, centers: Tensor, assignment: Tensor) -> list[Tensor]:
    """Return, for each of the K clusters, its own rows in the order of their Euclidean distance to its center.

    Ties go to the lower row; rows within a rounding error of the nearest one tie with it, as both rows of a cluster of
    two do. For unit-norm rows the order by cosine is the same: |x - c|^2 = 1 + |c|^2 - 2 x.c.
    """
    distances = torch.empty(len(features))
    for block in row_blocks(*features.shape):
        distances[block] = (features[block].float() - centers[assignment[block]]).square().sum(1)
    least = distances.new_zeros(len(centers)).scatter_reduce(0, assignment, distances, "amin", include_self=False)[assignment]
    distances = distances.where(distances > least + ROUNDING, least)
    order = distances.argsort(stable=True)
    order = order[assignment[order].argsort(stable=True)]
    return list(order.split(assignment.bincount(minlength=len(centers)).tolist()))


def neighbors(features: Tensor, k: int, bank: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows [N, k] of the k largest cosines to each of the unit-norm features, and the cosines, largest first.

    They are rows of `bank`, or, without one, of the features themselves except for the row itself, so k is then at most
    N - 1. Ties go to the lower row. O(N^2 D) time; memory for N D and `QUERIES` x N numbers.
    """
    queries, rows = features.float(), (features if bank is None else bank).float()
    k = min(k, len(rows) - (bank is None))
    found, cosines = torch.empty(len(queries), k, dtype=torch.int64), torch.empty(len(queries), k)
    buffer = queries.new_empty(min(QUERIES, len(queries)), len(rows))
    for block in torch.arange(len(queries)).split(QUERIES):
        products = torch.mm(queries[block], rows.T, out=buffer[: len(block)])  # [block, N]
        if bank is None:
            products[torch.arange(len(block)), block] = -torch.inf
        found[block], cosines[block] = top_columns(products, k)
    return found, cosines


def cosine_tiles(features: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (rows, columns, cosines) of square tiles that cover each pair of unit-norm rows once: columns >= rows."""
    features = features.float()
    tiles = [slice(start, min(start + TILE, len(features))) for start in range(0, len(features), TILE)]
    for i, rows in enumerate(tqdm(tiles, "comparing", **BAR)):
        for columns in tiles[i:]:
            yield rows, columns, features[rows] @ features[columns].T


def squared_norms(rows: Tensor) -> Tensor:
    """Return |x_i|^2 [N] in float32."""
    return by_block(lambda block: block.square().sum(1), rows)


def _exact_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Return the Euclidean distances [N, M] without products, exact also where they are small beside the norms."""
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")


def _drawn_rows(mass: Tensor, n: int, rng: np.random.Generator) -> list[int]:
    """Return n times the first row whose cumulative mass is above u times the total; none, without a draw, if all mass is 0."""
    cumulative = mass.cumsum(0).numpy()
    if not cumulative[-1] > 0:
        return []
    uniforms = np.array([rng.random() for _ in range(n)])
    rows = cumulative.searchsorted(uniforms * cumulative[-1], side="right")
    return rows.clip(max=cumulative.searchsorted(cumulative[-1])).tolist()  # u times the total may round up to the total


def _lloyd_sklearn(rows: np.ndarray, seeds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One thread: with more, the order of scikit-learn's sums, and with it the last digits, changes from run to run."""
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than seeds: dropped by `lloyd`
        fitted = KMeans(len(seeds), init=seeds, n_init=1, max_iter=MAX_STEPS, tol=TOLERANCE, random_state=0,
                        algorithm="lloyd").fit(rows, sample_weight=weights)
    return fitted.cluster_centers_, fitted.labels_


def _variance(rows: np.ndarray) -> float:
    """Return the variance [D] of the columns of rows [N, D], averaged, without a copy of the rows."""
    blocks = [rows[block] for block in row_blocks(*rows.shape)]
    mean = sum(block.sum(0, dtype=np.float64) for block in blocks) / len(rows)
    return float(sum(np.square(block - mean).sum() for block in blocks)) / rows.size


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
