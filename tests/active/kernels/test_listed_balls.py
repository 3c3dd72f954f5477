"""Balls by neighbor lists: how large they may be where lists say little about other clusters."""

import pytest
import torch

from active.kernels.listed_balls import listed_pure_cosine
from active.kernels.neighbor_lists import NeighborLists, exact_lists
from tests.active.kernels.points import unit

ROWS = torch.tensor([[1, 2], [0, 2], [1, 0], [2, -1]], dtype=torch.int32)
COSINES = torch.tensor([[0.9, 0.8], [0.9, 0.7], [0.7, 0.6], [0.5, -torch.inf]])


@pytest.mark.parametrize(("purity", "cosine"), [(1.0, 0.8), (0.75, 0.7), (0.5, 0.6), (0.25, 0.5)])
def test_lists_of_one_cluster_are_pure_as_far_as_they_reach(purity, cosine):
    """All neighbors are of the row's own cluster: a ball reaches up to the last one, and missing ones have no cosine."""
    near = NeighborLists(ROWS, COSINES, {})
    assert listed_pure_cosine(near, torch.zeros(4, dtype=torch.int32), purity) == pytest.approx(cosine + 1e-6)


def test_a_list_of_its_own_cluster_counts_as_pure_where_others_set_the_radius():
    """Only the last list is of one cluster: it sets no radius until the three others need not be pure."""
    near, clusters = NeighborLists(ROWS, COSINES, {}), torch.tensor([0, 0, 1, 1])
    found = [listed_pure_cosine(near, clusters, purity) for purity in (1.0, 0.75, 0.5, 0.25)]
    assert found == pytest.approx([0.8 + 1e-6, 0.7 + 1e-6, 0.7 + 1e-6, 0.5 + 1e-6])


def test_the_radius_does_not_depend_on_the_block(monkeypatch):
    """Seven rows a block."""
    features, clusters = unit(40, 5), torch.zeros(40, dtype=torch.int32)
    near = NeighborLists(*exact_lists(features, torch.arange(40), 6), {})
    whole = listed_pure_cosine(near, clusters, 0.9)
    monkeypatch.setattr("active.kernels.scores.BLOCK", 42)
    assert listed_pure_cosine(near, clusters, 0.9) == whole
