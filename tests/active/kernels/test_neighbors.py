"""Nearest neighbors and tiles of pairs against plain Python."""


import pytest
import torch

import active.kernels.neighbors as pairs
import active.kernels.scores as scores
from active.kernels.neighbors import cosine_tiles, neighbors
from active.testing import small_pools
from tests.active.kernels.points import unit
from tests.active.samplers import plain


@pytest.mark.parametrize(("queries", "block"), [(1, 1), (7, 64), (512, 2**22)])
def test_neighbors_equal_plain_python(queries, block, monkeypatch):
    """For any size of block, on 40 pools."""
    monkeypatch.setattr(pairs, "QUERIES", queries)
    monkeypatch.setattr(scores, "BLOCK", block)
    for seed, ctx in enumerate(small_pools(40)):
        points, k = ctx.features.double().tolist(), 1 + seed % 12
        rows, cosines = neighbors(ctx.features, k)
        assert rows.tolist() == [plain.nearest_rows(points, row, k) for row in range(len(points))]
        assert cosines.shape == rows.shape == (ctx.n_pool, min(k, ctx.n_pool - 1))
        assert torch.allclose(cosines, (ctx.features[:, None] * ctx.features[rows]).sum(2), atol=1e-6)


def test_a_row_is_not_its_own_neighbor_but_its_duplicate_is():
    """Self is left out by its number and not as the first column; among duplicates the lower row comes first."""
    points = torch.eye(3).repeat(3, 1)
    rows, cosines = neighbors(points, 3)
    assert rows[:3].tolist() == [[3, 6, 1], [4, 7, 0], [5, 8, 0]]
    assert rows[3].tolist() == [0, 6, 1]
    assert cosines[0].tolist() == [1.0, 1.0, 0.0]


def test_neighbors_in_a_bank_leave_nothing_out():
    """A query that is itself in the bank finds itself."""
    rows, cosines = neighbors(torch.eye(3)[[2]], 2, bank=torch.eye(3))
    assert rows.tolist() == [[2, 0]]
    assert cosines.tolist() == [[1.0, 0.0]]


def test_tiles_cover_each_pair_once(monkeypatch):
    """The sum over tiles, off-diagonal ones twice, is the whole matrix."""
    monkeypatch.setattr(pairs, "TILE", 7)
    points, whole = unit(30, 4), torch.zeros(30, 30)
    for rows, columns, cosines in cosine_tiles(points):
        whole[rows, columns] += cosines
        if rows != columns:
            whole[columns, rows] += cosines.T
    assert torch.allclose(whole, points @ points.T, atol=1e-6)
