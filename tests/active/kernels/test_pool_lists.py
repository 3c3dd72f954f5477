"""Lists of the whole train split, cut down to the images that a sampler looks at."""

from dataclasses import replace

import pytest
import torch

import active.kernels.pool_lists as pool
from active.kernels.neighbor_lists import NeighborLists
from active.kernels.neighbors import neighbors
from active.kernels.pool_lists import among, pool_lists
from active.relations import Relations
from active.testing import make_context


def test_neighbors_elsewhere_are_left_out_by_hand():
    """Of four images the third is not looked at; places are those among the others, in their order."""
    lists = NeighborLists(torch.tensor([[2, 1], [2, 3], [0, 1], [1, -1]], dtype=torch.int32),
                          torch.tensor([[0.9, 0.8], [0.7, 0.6], [0.9, 0.7], [0.6, -torch.inf]]), {"index": "by hand"})
    near = among(lists, torch.tensor([3, 0, 1]), 2)
    assert near.rows.tolist() == [[2, -1], [2, -1], [0, -1]] and near.facts == {"index": "by hand"}
    assert torch.equal(near.cosines[:, 0], torch.tensor([0.6, 0.8, 0.6])) and near.cosines[:, 1].isinf().all()


@pytest.mark.parametrize("exact", [True, False])
def test_lists_of_the_split_serve_a_pool_that_shrinks(monkeypatch, exact):
    """As if the pool alone had been compared: with few labels and many, beyond the width of the lists, and with skipped images.

    Rows whose list is used up are compared anew, all of them if they are many.
    """
    monkeypatch.setattr(pool, "KEPT", 1)
    for few in (1.0, 0.0):
        monkeypatch.setattr(pool, "FEW", few)
        for n_pool, n_labeled in ((90, 5), (30, 60)):
            ctx = make_context(n_pool=n_pool, n_labeled=n_labeled)
            features = torch.empty(ctx.n_total, ctx.features.shape[1])
            features[ctx.ids], features[ctx.labeled_ids] = ctx.features, ctx.labeled_features
            ctx = replace(ctx, relations=Relations(features), ids=ctx.ids[:-4], features=ctx.features[:-4],
                          logits=ctx.logits[:-4], skipped_features=ctx.features[-4:], skipped_ids=ctx.ids[-4:])
            for own in (ctx.unlabeled_features, torch.cat([ctx.unlabeled_features, ctx.labeled_features])):
                rows, cosines = neighbors(own, 12)
                near = pool_lists(ctx, own, 12, exact=exact)
                assert torch.equal(near.rows.long(), rows) and torch.allclose(near.cosines, cosines, atol=1e-6)
                assert torch.equal(pool_lists(replace(ctx, relations=None), own, 12, exact=exact).rows, near.rows)


def test_no_more_neighbors_than_others():
    """Lists of two images are one long, and of one image empty."""
    for n_pool in (1, 2):
        ctx = make_context(n_pool=n_pool, n_query=1)
        assert pool_lists(ctx, ctx.features, 10, exact=False).rows.shape == (n_pool, n_pool - 1)
