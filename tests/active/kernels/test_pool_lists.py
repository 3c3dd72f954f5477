"""Lists of the whole train split, cut down to the images that a sampler looks at."""

from dataclasses import replace

import pytest
import torch

import active.kernels.neighbor_lists as listing
import active.kernels.pool_lists as pool
import active.kernels.scores as scores
import active.relations as keeping
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
                near = pool_lists(ctx, own, 12, exact=exact, max_pool=ctx.n_total)
                assert torch.equal(near.rows.long(), rows) and torch.allclose(near.cosines, cosines, atol=1e-6)
                alone = pool_lists(replace(ctx, relations=None), own, 12, exact=exact, max_pool=ctx.n_total)
                assert torch.equal(alone.rows, near.rows)


def test_no_more_neighbors_than_others():
    """Lists of two images are one long, and of one image empty."""
    for n_pool in (1, 2):
        ctx = make_context(n_pool=n_pool, n_query=1)
        assert pool_lists(ctx, ctx.features, 10, exact=False, max_pool=1).rows.shape == (n_pool, n_pool - 1)


@pytest.mark.parametrize("n_last", [1, 2, 11, 12])
def test_lists_that_are_all_full_stay_as_they_are(monkeypatch, n_last):
    """However many rows the last block of a comparison would hold."""
    ctx = make_context(n_pool=60 + n_last)
    monkeypatch.setattr(scores, "BLOCK", 20 * ctx.features.shape[1])
    near = pool_lists(ctx, ctx.features, 12, exact=False, max_pool=1)
    assert torch.equal(near.rows.long(), neighbors(ctx.features, 12)[0])


@pytest.mark.parametrize(("n_labeled", "max_pool", "compared"), [
    (10, 100, 110), (10, 110, 110), (50, 100, 150), (51, 100, 100), (51, 151, 151), (400, 100, 100)])
def test_a_split_is_compared_only_if_it_is_not_much_more_than_was_allowed(monkeypatch, n_labeled, max_pool, compared):
    """Of 100 images a split of 150 is compared once for all rounds, one of 151 only if `max_pool` says so."""
    made, own = [], keeping.all_pairs
    for module in (keeping, pool):
        monkeypatch.setattr(module, "all_pairs", lambda features, k: made.append(len(features)) or own(features, k))
    monkeypatch.setattr(pool, "KEPT", 1)
    ctx = make_context(n_pool=100, n_labeled=n_labeled)
    features = torch.empty(ctx.n_total, ctx.features.shape[1])
    features[ctx.ids], features[ctx.labeled_ids] = ctx.features, ctx.labeled_features
    near = pool_lists(replace(ctx, relations=Relations(features)), ctx.features, 5, exact=True, max_pool=max_pool)
    assert made == [compared] and torch.equal(near.rows.long(), neighbors(ctx.features, 5)[0])


def test_lists_of_the_pool_alone_are_full_too(monkeypatch):
    """Groups of fewer images than a list is long: cells that are looked at hold too few of them, in more than `FEW` lists."""
    monkeypatch.setattr(listing, "CHECKED", 60)
    monkeypatch.setattr(listing, "LEAST_RECALL", 0.5)
    ctx = make_context(n_pool=300, width=16)
    groups = torch.eye(16)[torch.arange(300) % 16] + 0.01 * ctx.features
    ctx = replace(ctx, features=torch.nn.functional.normalize(groups, dim=1))
    assert (listing.neighbor_lists(ctx.features, 32).rows < 0).any(1).sum() > pool.FEW * 300
    near = pool_lists(ctx, ctx.features, 32, exact=False, max_pool=1)
    assert (near.rows >= 0).all() and near.cosines.isfinite().all()


def test_skipped_images_without_ids_have_no_place_in_the_split():
    """A script's own context may have none: the lists are then of the given rows."""
    ctx, skipped = make_context(n_pool=30), make_context(1).features[:4]
    features = torch.cat([ctx.features, skipped, ctx.labeled_features])
    relations, rows = pool.whole_split(replace(
        ctx, relations=Relations(make_context(2, n_pool=46).features), skipped_features=skipped, skipped_ids=None), features)
    assert relations.features is features and torch.equal(rows, torch.arange(len(features)))


def test_full_new_lists_are_not_compared_again(monkeypatch):
    """Those of the split are short after the labeled rows are left out; those of the pool alone are not."""
    monkeypatch.setattr(pool, "KEPT", 1)
    ctx = make_context(n_pool=60, n_labeled=300)
    split = torch.empty(360, ctx.features.shape[1])
    split[ctx.ids], split[ctx.labeled_ids] = ctx.features, ctx.labeled_features
    monkeypatch.setattr(pool, "exact_lists", lambda *_: pytest.fail("compared again"))
    near = pool.pool_lists(replace(ctx, relations=Relations(split)), ctx.features, 32, exact=True, max_pool=1000)
    assert (near.rows >= 0).all()
