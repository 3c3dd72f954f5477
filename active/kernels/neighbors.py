"""Nearest neighbors by cosine, and all pairs of rows tile by tile: no matrix of N x N numbers is held.

Rows may be float16, float32 or float64 and are unit norm; what is computed is float32. Ties go to the lower row.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from active.kernels.scores import top_columns
from dassl.utils.allocation import freed_memory_kept
from dassl.utils.large import single
from dassl.utils.linear import ONEDNN, pair_products, product_of_pairs
from dassl.utils.progress import BAR

TILE = 1024  # rows and columns of a tile of cosines
QUERIES = 512  # rows that are compared with all others at once; products of 83 rows, a `BLOCK` at 50,000, run at half the speed


def neighbors(features: Tensor, k: int, bank: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the rows [N, k] of the k largest cosines to each of the unit-norm features, and the cosines, largest first.

    They are rows of `bank`, or, without one, of the features themselves except for the row itself, so k is then at most
    N - 1. Ties go to the lower row. O(N^2 D) time; memory for N D and `QUERIES` x N numbers.
    """
    queries, rows = single(features), single(features if bank is None else bank)
    k = min(k, len(rows) - (bank is None))
    found, cosines = queries.new_empty(len(queries), k, dtype=torch.int64), queries.new_empty(len(queries), k)
    buffer = queries.new_empty(min(QUERIES, len(queries)), len(rows))
    # oneDNN has no output buffer, and the system would clear memory for each block anew
    is_new_each_time = product_of_pairs() == ONEDNN and len(queries) > QUERIES
    with freed_memory_kept() if is_new_each_time else contextlib.nullcontext():
        for block in torch.arange(len(queries), device=queries.device).split(QUERIES):
            products = pair_products(queries[block], rows, buffer[: len(block)])  # [block, N]
            if bank is None:
                products[torch.arange(len(block), device=block.device), block] = -torch.inf
            found[block], cosines[block] = top_columns(products, k)
            del products  # before the next ones are made
    return found, cosines


def cosine_tiles(features: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (rows, columns, cosines) of square tiles that cover each pair of unit-norm rows once: columns >= rows."""
    features = single(features)
    tiles = [slice(start, min(start + TILE, len(features))) for start in range(0, len(features), TILE)]
    for i, rows in enumerate(tqdm(tiles, "comparing", **BAR)):
        for columns in tiles[i:]:
            yield rows, columns, pair_products(features[rows], features[columns])
