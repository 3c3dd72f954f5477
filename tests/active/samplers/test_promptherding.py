"""PromptHerding against a dense float64 reference, and the settings in which it is UHerding or MaxHerding."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from active.context import SelectionContext
from active.kernels import herding
from active.samplers.promptherding import whitened
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(logits: torch.Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def rows_of(ctx: SelectionContext, kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """phi of the pool and of labeled images, from its formula."""
    pool, labeled = ctx.features.double().numpy(), ctx.labeled_features.double().numpy()
    if kernel == "plain":
        return pool, labeled
    if kernel == "guided":
        texts = ctx.directions.double().numpy()
        return tuple(unit(np.hstack([rows, softmax(logits) @ texts / 2]))
                     for rows, logits in ((pool, ctx.logits), (labeled, ctx.labeled_logits)))
    everything = np.vstack([pool, labeled])
    covariance = np.cov(everything.T, bias=True)
    shrunken = covariance + np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(shrunken)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return tuple(unit((rows - everything.mean(0)) @ root) for rows in (pool, labeled))


def dense(ctx: SelectionContext, n: int, *, kernel: str, balance: float) -> list[int]:
    """Every gain again for every pick, weights included, and the tie rule."""
    pool, labeled = rows_of(ctx, kernel)
    rank = min(len(pool), max(2, int(np.ceil(len(pool) / (len(labeled) + ctx.n_query)))))
    distances = np.sort(np.sqrt(np.maximum(2 - 2 * pool @ pool.T, 0)), axis=1)[:, rank - 1]
    median = np.sort(distances)[(len(pool) - 1) // 2]
    radius = median if median**2 > 2e-6 else 1.0
    kernels = np.exp((2 * pool @ pool.T - 2) / radius**2)
    np.fill_diagonal(kernels, 1)
    covered = np.exp((2 * pool @ labeled.T - 2) / radius**2).max(1) if len(labeled) else np.zeros(len(pool))
    probs, found = softmax(ctx.logits), []
    margin = 1 - np.sort(probs)[:, -1] + np.sort(probs)[:, -2]
    counts = np.bincount(ctx.labels.numpy(), minlength=ctx.n_classes).astype(float)
    for _ in range(n):
        weights = margin * (probs @ (1 + counts) ** -balance if balance else 1)
        gains = np.maximum(kernels - covered, 0) @ weights
        gains[found] = -1
        row = int(np.flatnonzero(gains >= (1 - 1e-5) * gains.max())[0])
        found.append(row)
        covered, counts = np.maximum(covered, kernels[row]), counts + probs[row]
    return found


@pytest.mark.parametrize("kernel", ["plain", "whitened", "guided"])
@pytest.mark.parametrize("balance", [0.0, 0.25])
def test_it_is_the_dense_form(kernel, balance):
    """On 200 small pools in all, with labels and without."""
    sampler = sampler_by_name("promptherding", kernel=kernel, balance=balance)
    for number, ctx in enumerate(small_pools(34)):
        ctx = without_labels(ctx) if number % 4 == 0 else ctx
        n = min(ctx.n_query, ctx.n_pool - 1)
        ctx = replace(ctx, n_query=n)
        assert picks(sampler, ctx) == ctx.ids[dense(ctx, n, kernel=kernel, balance=balance)].tolist()


def test_without_kernel_and_balance_it_is_uherding():
    """It is UHerding with zero-shot weights at first and the radius by mass."""
    for ctx in (make_context(7), without_labels(make_context(8))):
        expected = picks(sampler_by_name("uherding", radius="mass", cold="zero_shot"), ctx)
        assert picks(sampler_by_name("promptherding", kernel="plain", balance=0.0), ctx) == expected


def test_classes_with_many_labels_count_less():
    """Two equal groups hold one class each. The group whose class has labels is asked second."""
    ctx = make_context(1, n_pool=8, n_query=2, n_classes=2)
    group = torch.arange(8) % 2
    directions = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [-1.0, 0.1]]), dim=1)
    features = torch.zeros(8, ctx.features.shape[1])
    features[:, :2] = directions[group]
    ctx = replace(ctx, features=features, logits=torch.eye(2)[group], labels=torch.zeros_like(ctx.labels),
                  labeled_features=torch.eye(ctx.features.shape[1])[[-1] * len(ctx.labels)])
    first = {balance: picks(sampler_by_name("promptherding", kernel="plain", balance=balance), ctx)[0]
             for balance in (0.0, 1.0)}
    assert first == {0.0: ctx.ids[0], 1.0: ctx.ids[1]}


def test_whitened_rows_have_no_mean_and_less_of_what_all_share():
    """An offset that all images share is gone, and a direction of large variance counts less than before."""
    ctx = make_context(2, n_pool=400, width=6)
    features = ctx.features.clone()
    features[:, 0] = 5
    features[:, 1] *= 10
    ctx = replace(ctx, features=torch.nn.functional.normalize(features, dim=1))
    rows, _ = whitened(ctx, torch.arange(400))
    before, after = (float(own[:, 1].var() / own.var(0).sum()) for own in (ctx.features, rows))
    assert rows.mean(0).norm() < 0.2 < ctx.features.mean(0).norm() and after < 0.7 * before


def test_identical_images_are_asked_by_their_ids():
    """There is nothing to whiten."""
    ctx = without_labels(make_context(0, n_pool=10, n_query=4))
    same = replace(ctx, features=ctx.features[:1].expand(10, -1).clone(), logits=ctx.logits[:1].expand(10, -1).clone())
    assert picks(sampler_by_name("promptherding"), same) == same.ids[:4].tolist()


def test_falling_weights_keep_lazy_picks_exact(monkeypatch):
    """However many rows are evaluated at a time, in float32 too."""
    ctx = make_context(3, n_pool=80, n_query=30, n_classes=4)
    expected = dense(ctx, 30, kernel="whitened", balance=0.25)
    for at_once, precision in ((1, 2**24), (7, 0)):
        monkeypatch.setattr(herding, "EVALUATED", at_once)
        monkeypatch.setattr(herding, "DOUBLE", precision)
        assert picks(sampler_by_name("promptherding"), ctx) == ctx.ids[expected].tolist()
