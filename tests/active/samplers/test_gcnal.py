"""GCNAL: the graph network, its factorized propagation, and both ways to select from it."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import active.samplers.gcnal as module
from active.kernels.graph import fit_graph_network, inverse_degrees, propagate
from active.kernels.k_center import euclidean_k_center, k_center
from active.samplers.coreset import coreset
from active.samplers.gcnal import gcnal
from active.testing import make_context, small_pools, without_labels
from dassl.utils.seeding import rng_for

SETTINGS = {"hidden": 6, "dropout": 0.3, "pool_weight": 1.2, "steps": 4, "lr": 0.01, "weight_decay": 5e-4}


def dense_adjacency(features: np.ndarray) -> np.ndarray:
    cosines = features @ features.T - np.eye(len(features))
    degrees = cosines.sum(0)
    return cosines @ np.diag([1 / degree if degree > 1e-3 else 0 for degree in degrees]) + np.eye(len(features))


def slow_network(features: np.ndarray, n_pool: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The network with the dense matrix, gradients and Adam by hand, in float64, from the same random numbers."""
    generator, n, hidden = torch.Generator().manual_seed(seed), len(features), SETTINGS["hidden"]
    adjacency = dense_adjacency(features)
    shapes = [(features.shape[1], hidden), (hidden,), (hidden, 1), (1,)]
    bounds = [hidden**-0.5, hidden**-0.5, 1, 1]
    weights = [bound * (2 * torch.rand(shape, generator=generator).double().numpy() - 1)
               for shape, bound in zip(shapes, bounds, strict=True)]
    moments = [[np.zeros(shape), np.zeros(shape)] for shape in shapes]
    inputs = adjacency @ features
    for step in range(1, SETTINGS["steps"] + 1):
        keep = (torch.rand(n, hidden, generator=generator) >= SETTINGS["dropout"]).numpy() / (1 - SETTINGS["dropout"])
        before = inputs @ weights[0] + weights[1]
        nodes = np.maximum(before, 0) * keep
        probs = 1 / (1 + np.exp(-(adjacency @ nodes @ weights[2] + weights[3])))
        slope = np.zeros((n, 1))
        slope[:n_pool] = SETTINGS["pool_weight"] * probs[:n_pool] / n_pool
        slope[n_pool:] = (probs[n_pool:] - 1) / max(1, n - n_pool)
        back = adjacency.T @ slope
        inner = (back @ weights[2].T) * keep * (before > 0)
        gradients = [inputs.T @ inner, inner.sum(0), nodes.T @ back, slope.sum(0)]
        for i, gradient in enumerate(gradients):
            gradient = gradient + SETTINGS["weight_decay"] * weights[i]
            first, second = moments[i]
            first[:] = 0.9 * first + 0.1 * gradient
            second[:] = 0.999 * second + 0.001 * gradient**2
            weights[i] = weights[i] - SETTINGS["lr"] * (first / (1 - 0.9**step)) / (
                np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    nodes = np.maximum(inputs @ weights[0] + weights[1], 0)
    return nodes, (adjacency @ nodes @ weights[2] + weights[3]).ravel()


def slow_k_center(rows: np.ndarray, n_pool: int, n: int) -> list[int]:
    centers, picked = list(range(n_pool, len(rows))), []
    for _ in range(n):
        free = [row for row in range(n_pool) if row not in picked]
        picked.append(max(free, key=lambda row: (min(np.sum((rows[row] - rows[c]) ** 2) for c in centers), -row)))
        centers.append(picked[-1])
    return picked


def unit(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return F.normalize(torch.from_numpy(rng.normal(size=shape)), dim=1)


def test_200_pools_are_picked_as_by_a_dense_reference():
    """Network and both selections agree with the dense matrix and gradients by hand; cosines are positive, as CLIP's are."""
    for seed, ctx in enumerate(small_pools(200)):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1), features=ctx.features.abs(),
                      labeled_features=ctx.labeled_features.abs())
        rng = rng_for(0, "gcnal", seed)
        rng.permutation(ctx.n_pool)
        features = F.normalize(torch.cat([ctx.features, ctx.labeled_features]).double(), dim=1).numpy()
        nodes, logits = slow_network(features, ctx.n_pool, int(rng.integers(2**63)))
        both, hidden, uncertain = (gcnal(replace(ctx, rng=rng_for(0, "gcnal", seed)), subset=0, **SETTINGS, **options).tolist()
                                   for options in ({}, {"space": "hidden"}, {"variant": "uncertain"}))
        doubt = np.abs(1 / (1 + np.exp(-logits[: ctx.n_pool])) - 0.1)
        assert uncertain == np.argsort(doubt, kind="stable")[: ctx.n_query].tolist()
        assert both == slow_k_center(np.column_stack([nodes, logits]), ctx.n_pool, ctx.n_query)
        assert hidden == slow_k_center(nodes, ctx.n_pool, ctx.n_query)


def test_the_logit_is_a_coordinate_of_the_space_unless_it_is_hidden_alone(monkeypatch):
    """Hidden features 0, 1, 2 and logits 0, 5, 0 beside a labeled (0, 0): row 1 is farthest with the logit, row 2 without."""
    nodes, logits = torch.tensor([[0.0], [1.0], [2.0], [0.0]]), torch.tensor([0.0, 5.0, 0.0, 0.0])
    monkeypatch.setattr(module, "fit_graph_network", lambda *_, **__: (nodes, logits))
    ctx = make_context(n_pool=3, n_labeled=1, n_query=1)
    assert gcnal(ctx).tolist() == gcnal(ctx, space="hidden_and_logit").tolist() == [1]
    assert gcnal(ctx, space="hidden").tolist() == [2]


@pytest.mark.parametrize("n", [1, 2, 30])
def test_the_factorized_propagation_is_the_dense_one(n):
    """There is no N x N matrix, but the numbers are the same, even where degrees are negative."""
    rng = np.random.default_rng(n)
    features, values = unit(rng, n, 4), torch.from_numpy(rng.normal(size=(n, 3)))
    dense = torch.from_numpy(dense_adjacency(features.numpy())) @ values
    torch.testing.assert_close(propagate(features, inverse_degrees(features), values), dense, rtol=0, atol=1e-10)


def test_a_node_without_positive_degree_keeps_itself_and_is_reported(caplog):
    """Two opposite images: their cosines sum to -1, so neither has a neighbor and no sign is flipped."""
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    with caplog.at_level(logging.WARNING):
        assert inverse_degrees(features).tolist() == [0, 0]
    assert "2 of 2 images have cosines that sum to 0 or less" in caplog.text
    assert torch.equal(propagate(features, torch.zeros(2), features), features)


def trained(pool_weight: float, n_labeled: int, steps: int) -> torch.Tensor:
    features = unit(np.random.default_rng(0), 20 + n_labeled, 6).float().abs()
    settings = SETTINGS | {"pool_weight": pool_weight, "steps": steps}
    return fit_graph_network(features, 20, **settings, generator=torch.Generator().manual_seed(0))[1].sigmoid()


@pytest.mark.parametrize(("pool_weight", "n_labeled", "sign"), [(1.2, 0, -1), (1e6, 5, -1), (0.0, 5, 1)])
def test_each_term_of_the_loss_pulls_its_way(pool_weight, n_labeled, sign):
    """Without labeled nodes, or with an endless weight of the others, all look unlabeled; without that weight, labeled."""
    change = trained(pool_weight, n_labeled, 40) - trained(pool_weight, n_labeled, 0)
    assert (sign * change > 0).all()


def test_training_tells_labeled_from_unlabeled():
    """After 200 steps the labeled group stands above the group that has no label."""
    rng = np.random.default_rng(1)
    centers = unit(rng, 2, 8).abs()
    groups = F.normalize(centers[[0] * 20 + [1] * 10] + 0.1 * torch.from_numpy(rng.normal(size=(30, 8))), dim=1).float()
    settings = SETTINGS | {"steps": 200}
    logits = fit_graph_network(groups, 20, **settings, generator=torch.Generator().manual_seed(0))[1]
    assert logits[20:].min() > logits[:20].max()


def test_extreme_logits_give_no_infinite_loss():
    """The softplus forms stay finite with a huge learning rate."""
    features = unit(np.random.default_rng(0), 25, 6).float().abs()
    nodes, logits = fit_graph_network(features, 20, **SETTINGS | {"lr": 100.0}, generator=torch.Generator().manual_seed(0))
    assert nodes.isfinite().all() and logits.isfinite().all() and logits.abs().max() > 100


def test_core_on_the_features_themselves_is_coreset(monkeypatch):
    """If the network returned its input, CoreGCN would be k-center on the images."""
    monkeypatch.setattr(module, "fit_graph_network", lambda features, n_pool, **_: (features, features[:, 0]))
    for ctx in small_pools(30):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        assert gcnal(ctx, subset=0, space="hidden").tolist() == coreset(ctx).rows.tolist()


def test_euclidean_k_center_is_the_brute_force_one():
    """Rows of any norm; on unit rows it is `k_center`; equal rows are never picked twice."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = torch.from_numpy(rng.normal(size=(20, 3)) * rng.uniform(0.2, 3, size=(20, 1))).float()
        assert euclidean_k_center(rows[:15], rows[15:], 8, None)[0].tolist() == slow_k_center(rows.double().numpy(), 15, 8)
        units = F.normalize(rows, dim=1)
        assert euclidean_k_center(units[:15], units[15:], 8, None)[0].tolist() == k_center(units[:15], units[15:], 8).tolist()
    same = torch.ones(6, 3)
    assert euclidean_k_center(same, same[:0], 6, 4)[0].tolist() == [4, 0, 1, 2, 3, 5]


def test_euclidean_k_center_sees_small_distances_beside_a_large_common_part():
    """Rows that differ in the fourth digit, as smoothed features and their logits do, are told apart as in float64."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(50 + 0.005 * rng.normal(size=(30, 5))).float()
    assert euclidean_k_center(rows[:25], rows[25:], 24, None)[0].tolist() == slow_k_center(rows.double().numpy(), 25, 24)


def test_the_subset_bounds_what_can_be_asked(monkeypatch):
    """Only the drawn rows enter the graph; a subset below the query is raised to it, 0 is the whole pool."""
    sizes, fit = [], fit_graph_network
    monkeypatch.setattr(module, "fit_graph_network",
                        lambda features, n_pool, **kw: sizes.append((len(features), n_pool)) or fit(features, n_pool, **kw))
    ctx = make_context(n_query=6)
    for subset in (20, 3, 0, 10_000):
        drawn = rng_for(0, "subset").permutation(70)[: {20: 20, 3: 6}.get(subset, 70)]
        rows = gcnal(replace(ctx, rng=rng_for(0, "subset")), subset=subset, steps=2)
        assert set(rows.tolist()) <= set(drawn.tolist()) and len(rows.unique()) == 6
    assert sizes == [(32, 20), (18, 6), (82, 70), (82, 70)]


def test_the_uncertain_are_those_nearest_to_the_margin(monkeypatch):
    """Probabilities of being labeled 0.05, 0.12, 0.5 and 0.1: nearest to 0.1 first."""
    logits = torch.tensor([0.05, 0.12, 0.5, 0.1]).logit()
    monkeypatch.setattr(module, "fit_graph_network", lambda *_, **__: (None, logits))
    ctx = without_labels(make_context(n_pool=4, n_query=3))
    assert gcnal(ctx, variant="uncertain").tolist() == [3, 1, 0]
    assert gcnal(ctx, variant="uncertain", margin=0.5).tolist() == [2, 1, 3]


def test_the_first_pick_without_labels_is_random():
    """There is no center to be far from, so seeds differ."""
    ctx = without_labels(make_context())
    assert len({int(gcnal(replace(ctx, rng=rng_for(seed, "first")), steps=0)[0]) for seed in range(8)}) > 1
