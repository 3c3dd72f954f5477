"""Neighbor lists of pools too large to compare all pairs: an inverted file of faiss, whose recall is measured.

k-means splits the rows into cells; a row is compared, in float32, with those of the cells nearest to it. The number of cells
looked at, `probes`, doubles until the lists of some random rows hold what a comparison with all rows finds, but for a share.
The index is built from fixed seeds, so that it repeats. Rows may be float16, float32 or float64, also memory-mapped, and are
of unit norm.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from active.kernels.scores import row_blocks, top_columns_of
from dassl.utils.allocation import give_back_memory
from dassl.utils.errors import UserError
from dassl.utils.linear import pair_products
from dassl.utils.progress import BAR

CELLS = 4  # times the square root of the rows
TRAINED = 32  # rows a cell that k-means sees
PROBES, MOST_PROBES = 8, 128
CHECKED = 1000  # rows whose lists are compared with exact ones; of so many rows or fewer all lists are exact
LEAST_RECALL = 0.95
EQUAL = 1e-6  # of cosines
TOGETHER = 16384  # rows that are searched in one call

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NeighborLists:
    """The nearest other rows of each row: `rows` int32 [N, k], -1 where fewer were found, and `cosines` [N, k], largest first.

    `facts` say how they were found and how many of the true ones they hold.
    """

    rows: Tensor
    cosines: Tensor
    facts: dict[str, Any]

    def to(self, device: torch.device) -> "NeighborLists":
        """Return the lists with their tensors on a device."""
        return NeighborLists(self.rows.to(device), self.cosines.to(device), self.facts)


def neighbor_lists(features: Tensor, k: int) -> NeighborLists:
    """Return the lists of all rows [N, D]; ties go to the lower row. faiss's part is done on the CPU.

    Raises UserError if less than `LEAST_RECALL` of the neighbors are found with the most probes.
    """
    k = min(k, len(features) - 1)
    if len(features) <= CHECKED:
        rows, cosines = exact_lists(features, torch.arange(len(features), device=features.device), k)
        return NeighborLists(rows, cosines, {"index": "exact", "recall": 1.0})
    device, features = features.device, features.cpu()
    index = _index(features)
    checked = torch.from_numpy(np.random.default_rng(0).permutation(len(features))[:CHECKED]).sort().values
    index.nprobe, recall = _probes(index, features, checked, k)
    lists = NeighborLists(torch.empty(len(features), k, dtype=torch.int32), torch.empty(len(features), k), {
        "index": "IVF", "cells": index.nlist, "probes": index.nprobe, "neighbors": k, "recall": round(recall, 4)})
    logger.info("neighbor lists of %d rows: %d cells, %d probes, recall %.3f",
                len(features), index.nlist, index.nprobe, recall)
    for rows in tqdm(_by_cell(index).split(TOGETHER), "neighbors", **BAR):
        lists.rows[rows], lists.cosines[rows] = _found(index, features, rows, k)
    del index
    give_back_memory()  # a copy of the features, in thousands of lists
    return lists.to(device)


def exact_lists(features: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return rows int32 [n, k] and cosines [n, k] of the nearest others of some rows [n], without a copy of the features."""
    own = features[queries].float()

    def cosines() -> Iterator[Tensor]:
        for block in row_blocks(len(features), max(features.shape[1], len(queries))):
            products = pair_products(own, features[block].float())
            numbers = torch.arange(len(features), device=features.device)[block]
            yield products.masked_fill_(queries[:, None] == numbers, -torch.inf)

    rows, largest = top_columns_of(cosines(), k)
    return rows.int(), largest


def _index(features: Tensor) -> Any:
    """Return an inverted file of all rows."""
    import faiss

    n_rows, width = features.shape
    n_cells = min(math.ceil(CELLS * math.sqrt(n_rows)), n_rows)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, n_cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, TRAINED
    seen = torch.from_numpy(np.random.default_rng(1).permutation(n_rows)[: TRAINED * n_cells]).sort().values
    index.train(features[seen].float().numpy())
    for block in row_blocks(n_rows, 4 * width):
        index.add(features[block].float().numpy())
    return index


def _probes(index: Any, features: Tensor, checked: Tensor, k: int) -> tuple[int, float]:
    """Return how many cells are to be looked at, and what share of the checked rows' true neighbors is found then."""
    least = exact_lists(features, checked, k)[1][:, -1:]
    most = min(MOST_PROBES, index.nlist)
    index.nprobe = min(PROBES, most)
    while True:
        recall = float((_found(index, features, checked, k)[1] >= least - EQUAL).float().mean())
        if recall >= LEAST_RECALL:
            return index.nprobe, recall
        if index.nprobe == most:
            raise UserError(f"neighbor lists of {len(features):,} images hold {recall:.3f} of the true neighbors with {most} "
                            f"of {index.nlist} cells looked at, but must hold {LEAST_RECALL}; set EXACT and MAX_POOL of the "
                            "sampler to compare all pairs, or take another one")
        index.nprobe = min(2 * index.nprobe, most)


def _by_cell(index: Any) -> Tensor:
    """Return all rows in the order of their cells, so that those searched together look at the same cells, in the cache."""
    import faiss

    cells = index.invlists
    return torch.from_numpy(np.concatenate([
        faiss.rev_swig_ptr(cells.get_ids(cell), cells.list_size(cell)).copy() for cell in range(index.nlist)
        if cells.list_size(cell)]))


def _found(index: Any, features: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return rows int32 [n, k] and cosines of what the index finds next to rows [n], themselves left out."""
    cosines, found = map(torch.from_numpy, index.search(features[rows].float().numpy(), k + 1))
    is_none = (found == rows[:, None]) | (found < 0)
    cosines, found = cosines.where(~is_none, -torch.inf), found.where(~is_none, -1)
    order = found.argsort(dim=1, stable=True)
    order = order.gather(1, cosines.gather(1, order).argsort(dim=1, descending=True, stable=True))[:, :k]
    return found.gather(1, order).int(), cosines.gather(1, order)
