"""Every kernel on a pretended card: the results are those of the CPU, stay on the card, and cause few waits."""

import importlib
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import active.kernels
import active.kernels.coverage as coverage
import active.kernels.k_means as clustering
import active.kernels.neighbor_lists as listing
import active.kernels.neighbors as comparing
from active.context import Query
from active.kernels.calibration import log_prior, mean_entropy
from active.kernels.coverage import UncoveredBalls, ball_sizes, cosine_at_purity, pure_cosine
from active.kernels.d2_sampling import d2_sampling, drawn_rows, squared_distances, squared_norms
from active.kernels.graph import fit_graph_network, inverse_degrees, propagate
from active.kernels.herding import Herd, asked, drawn, herd, herd_subset, mass_radius, of_subset, subset
from active.kernels.k_center import euclidean_k_center, k_center, k_center_and_gaps
from active.kernels.k_means import k_means, k_means_seeds, lloyd, nearest_members
from active.kernels.listed_balls import ListedBalls, listed_pure_cosine
from active.kernels.neighbor_lists import exact_lists, neighbor_lists
from active.kernels.neighbors import cosine_tiles, neighbors
from active.kernels.pool_lists import among, pool_lists, whole_split
from active.kernels.scores import (
    by_block,
    entropy,
    least_confidence,
    lowest_of_largest,
    products,
    residuals,
    smallness_of_margin,
    top_columns,
    top_columns_of,
    top_rows,
    without,
)
from active.testing import make_context
from tests.pretend_cuda import PretendCuda, pretend_cuda

CUDA = torch.device("cuda")
OF_NUMBERS = {"row_blocks", "n_candidates", "need_memory", "need_pairs", "compares_all", "n_targets", "available_memory",
              "total_memory"}
ON_THE_CPU = {"drawn", "drawn_rows", "nearest_members", "d2_sampling", "whole_split"}  # what they return lies there anywhere


def _rng():
    return np.random.default_rng(0)


def _lists(ctx):
    return neighbor_lists(ctx.features, 8)


def _groups(ctx):
    return ctx.logits.argmax(1)


def _drawn(ctx):
    norms = squared_norms(ctx.features)

    def distances_to(row):
        return squared_distances(norms, norms[row], ctx.features @ ctx.features[row])

    return d2_sampling(10, 90, distances_to, _rng(), first=3)


def _covered(balls):
    picked = []
    for _ in range(10):
        picked.append(balls.take_largest())
        balls.cover(balls.ball(picked[-1])[:1])
    return picked


def _herd(ctx, targets=None):
    return Herd(ctx.features, smallness_of_margin(ctx.logits), ctx.labeled_features, 0.8, 80, targets)


def _herded(ctx):
    covering = _herd(ctx, ctx.ids.argsort()[5:60])
    covering.reweigh(0.5 * smallness_of_margin(ctx.logits))
    return covering.bounds, asked(covering, 10)


def _weighted(ctx):
    return k_means(ctx.features, 6, _rng(), weights=entropy(ctx.logits), of_seeds=least_confidence(ctx.logits))


def _network(ctx):
    return fit_graph_network(ctx.features, 70, hidden=4, dropout=0.3, pool_weight=1.2, steps=5, lr=0.01, weight_decay=5e-4,
                             generator=torch.Generator().manual_seed(0))


# of a pool of 90: what to call, and how often it makes the host wait, where tens of picks, seeds or steps are ten
KERNELS = {
    "log_prior": (lambda ctx: [log_prior(ctx.logits, 5, support, 0.1) for support in ("own", "union")], 5),
    "mean_entropy": (lambda ctx: mean_entropy(entropy(ctx.logits), _lists(ctx), "rbf", 1.0), 1),
    "pure_cosine": (lambda ctx: pure_cosine(ctx.features, _groups(ctx), 0.9), 1),
    "cosine_at_purity": (lambda ctx: cosine_at_purity(ctx.features[:, 0], 0.9), 1),
    "ball_sizes": (lambda ctx: ball_sizes(ctx.features, 0.5), 0),
    "UncoveredBalls": (lambda ctx: _covered(UncoveredBalls(ctx.features, 0.5, 80)), 20),
    "d2_sampling": (_drawn, 9),
    "squared_distances": (lambda ctx: squared_distances(*(squared_norms(ctx.features),) * 3), 0),
    "squared_norms": (lambda ctx: squared_norms(ctx.features), 0),
    "drawn_rows": (lambda ctx: drawn_rows(entropy(ctx.logits).double(), 5, _rng()), 2),
    "fit_graph_network": (_network, 2),
    "inverse_degrees": (lambda ctx: inverse_degrees(ctx.features), 2),
    "propagate": (lambda ctx: propagate(ctx.features, inverse_degrees(ctx.features), ctx.logits), 2),
    "Herd": (_herded, 30),
    "herd": (lambda ctx: herd(ctx, ctx.features.new_ones(90), 0.7), 30),
    "asked": (lambda ctx: asked(_herd(ctx), 10, after=int), 30),
    "herd_subset": (lambda ctx: herd_subset(ctx, ctx.features.new_ones(90), 0.7), 32),
    "drawn": (lambda ctx: drawn(entropy(ctx.logits).cpu(), 20, _rng()), 1),
    "of_subset": (lambda ctx: of_subset(asked(_herd(ctx), 10), ctx.ids, 200, {"candidates": 80}), 30),
    "subset": (subset, 1),
    "mass_radius": (lambda ctx: mass_radius(ctx.features, 5, _rng()), 1),
    "k_center": (lambda ctx: k_center(ctx.features, ctx.labeled_features, 10), 0),
    "k_center_and_gaps": (lambda ctx: k_center_and_gaps(ctx.features, ctx.labeled_features[:0], 10, 4), 0),
    "euclidean_k_center": (lambda ctx: euclidean_k_center(ctx.logits, ctx.labeled_logits, 10, None), 0),
    "k_means": (_weighted, 24),
    "k_means_seeds": (lambda ctx: k_means_seeds(ctx.features, 10, _rng(), ctx.features.new_ones(90)), 31),
    "lloyd": (lambda ctx: lloyd(ctx.features, ctx.features[:5], ctx.features.new_ones(90)), 3),
    "nearest_members": (lambda ctx: nearest_members(ctx.features, ctx.features[:5], _groups(ctx)), 3),
    "listed_pure_cosine": (lambda ctx: listed_pure_cosine(_lists(ctx), _groups(ctx), 0.9), 2),
    "ListedBalls": (lambda ctx: _covered(ListedBalls(_lists(ctx), 0.5, 80)), 36),
    "neighbor_lists": (lambda ctx: vars(_lists(ctx)), 1),
    "exact_lists": (lambda ctx: exact_lists(ctx.features, ctx.ids.argsort()[::9], 8), 1),
    "NeighborLists": (lambda ctx: vars(_lists(ctx).to(ctx.device)), 1),
    "neighbors": (lambda ctx: [neighbors(ctx.features, 8), neighbors(ctx.features, 3, ctx.labeled_features)], 2),
    "cosine_tiles": (lambda ctx: list(cosine_tiles(ctx.features)), 0),
    "pool_lists": (lambda ctx: [vars(pool_lists(ctx, ctx.features, 8, exact=own, max_pool=90)) for own in (True, False)], 6),
    "whole_split": (lambda ctx: whole_split(ctx, ctx.features)[1], 0),
    "among": (lambda ctx: vars(among(_lists(ctx), ctx.ids.argsort()[:40], 5)), 1),
    "by_block": (lambda ctx: by_block(lambda rows: rows.sum(1), ctx.logits), 0),
    "entropy": (lambda ctx: entropy(ctx.logits), 0),
    "least_confidence": (lambda ctx: least_confidence(ctx.logits), 0),
    "smallness_of_margin": (lambda ctx: smallness_of_margin(ctx.logits), 0),
    "residuals": (lambda ctx: residuals(ctx.logits), 0),
    "products": (lambda ctx: [products(rows, rows[3]) for rows in (ctx.features, ctx.features.half())], 0),
    "top_rows": (lambda ctx: top_rows(entropy(ctx.logits), 10), 1),
    "lowest_of_largest": (lambda ctx: lowest_of_largest(entropy(ctx.logits)), 1),
    "top_columns_of": (lambda ctx: top_columns_of((ctx.logits[:, part].T for part in (slice(1, 3), slice(3, 9))), 4), 2),
    "top_columns": (lambda ctx: [top_columns(values, 2) for values in (ctx.logits, ctx.logits.repeat(1, 400))], 5),
    "without": (lambda ctx: without(ctx.ids.argsort()[::2], 90), 1),
}


def _context():
    ctx = make_context(n_pool=90, width=16, n_query=10)
    return replace(ctx, rng=_rng())


def _leaves(answer):
    """Return the tensors and numbers of an answer in their order."""
    if isinstance(answer, (Query, dict)):
        return _leaves(list((answer if isinstance(answer, dict) else vars(answer)).values()))
    return [leaf for own in answer for leaf in _leaves(own)] if isinstance(answer, (list, tuple)) else [answer]


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(nan=7), other.cpu().nan_to_num(nan=7))
    return one == other


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_computes_on_a_card_what_it_computes_on_the_cpu(name):
    """No operation mixes devices, tensors stay on the card, and the number of values that are read is known."""
    call, n_read_backs = KERNELS[name]
    expected = _leaves(call(_context()))
    with pretend_cuda() as card:
        there = _context().to(CUDA)
        card.forget()
        found = _leaves(call(there))
        assert card.n_read_backs == n_read_backs, card.read_backs
        assert len(found) == len(expected)
        assert all(_same(*pair) for pair in zip(expected, found, strict=True))
    tensors = [leaf for leaf in found if isinstance(leaf, torch.Tensor) and len(leaf)]
    assert name in ON_THE_CPU or all(isinstance(tensor, PretendCuda) for tensor in tensors)


def test_what_takes_numpy_gives_the_same_on_a_card(monkeypatch):
    """The parts of faiss and scikit-learn: an index of more rows than are compared exactly, and k-means of either library."""
    monkeypatch.setattr(listing, "CHECKED", 50)
    for limit in (clustering.SKLEARN_LIMIT, 0):
        monkeypatch.setattr(clustering, "SKLEARN_LIMIT", limit)
        expected = [*_leaves(vars(_lists(_context()))), *_weighted(_context())]
        with pretend_cuda():
            found = [*_leaves(vars(_lists(there := _context().to(CUDA)))), *_weighted(there)]
            assert all(_same(*pair) for pair in zip(expected, found, strict=True))


def test_tiles_and_batches_give_the_same_on_a_card(monkeypatch):
    """Several tiles of pairs, and balls whose covered rows are taken off in batches."""
    monkeypatch.setattr(coverage, "TILE", 16)
    monkeypatch.setattr(coverage, "RECOUNTED", 8)
    monkeypatch.setattr(comparing, "TILE", 16)
    monkeypatch.setattr(comparing, "QUERIES", 16)
    names = ("pure_cosine", "ball_sizes", "UncoveredBalls", "neighbors")
    expected = [_leaves(KERNELS[name][0](_context())) for name in names]
    with pretend_cuda():
        found = [_leaves(KERNELS[name][0](_context().to(CUDA))) for name in names]
        assert all(_same(*pair) for own in zip(expected, found, strict=True) for pair in zip(*own, strict=True))


def test_every_kernel_is_here():
    """Every public function and class of `active.kernels` is listed, except those that only handle numbers."""
    names = [found.name for found in pkgutil.iter_modules(active.kernels.__path__)]
    modules = [importlib.import_module(f"active.kernels.{name}") for name in names]
    public = {name for module in modules for name, own in vars(module).items()
              if not name.startswith("_") and callable(own) and own.__module__ == module.__name__}
    assert public - OF_NUMBERS == KERNELS.keys()
