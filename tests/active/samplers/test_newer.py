"""PCoreSet, TFS, DropQuery and binary BAIT against plain references on small pools."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from active.context import SelectionContext
from active.kernels.k_means import k_means, nearest_members
from active.registry import check_sampler_names
from active.samplers.dropquery import candidates, changed_predictions, kept_features
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, sampler_node, small_pools, without_labels
from dassl.utils.errors import ConfigError
from dassl.utils.seeding import rng_for
from tests.active.samplers import plain


def probabilities(logits: torch.Tensor) -> list[list[float]]:
    return [plain.softmax(row) for row in logits.double().tolist()]


def asked(ctx: SelectionContext) -> SelectionContext:
    """Leave at least one row, since a query for the whole pool is answered without the sampler."""
    return replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))


def test_pcoreset_is_a_matrix_of_distances():
    """On 200 small pools: the farthest from all centers, again and again."""
    for ctx in map(asked, small_pools(200)):
        rows, centers = probabilities(ctx.logits), probabilities(ctx.labeled_logits)
        free = dict(zip(ctx.ids.tolist(), rows, strict=True))
        for picked in picks(sampler_by_name("pcoreset"), ctx):
            nearest = {number: min(math.dist(row, center) for center in centers) for number, row in free.items()}
            assert nearest[picked] >= max(nearest.values()) - 1e-6  # as near as float32 tells them apart
            centers.append(free.pop(picked))


def test_pcoreset_does_not_depend_on_the_order_of_classes():
    for seed in range(20):
        ctx, order = make_context(seed), torch.randperm(5, generator=torch.Generator().manual_seed(seed))
        other = replace(ctx, logits=ctx.logits[:, order], labeled_logits=ctx.labeled_logits[:, order])
        assert picks(sampler_by_name("pcoreset"), ctx) == picks(sampler_by_name("pcoreset"), other)


def test_tfs_fills_the_smallest_class_with_its_most_uncertain_row():
    """On 200 small pools: class of fewest labels first, its predicted group by entropy."""
    for ctx in map(asked, small_pools(200)):
        probs, counts = probabilities(ctx.logits), [ctx.labels.tolist().count(label) for label in range(ctx.n_classes)]
        groups = {label: [] for label in range(ctx.n_classes)}
        for row in sorted(range(ctx.n_pool), key=lambda row: -plain.entropy_of(probs[row])):
            groups[int(ctx.logits[row].argmax())].append(row)
        found = []
        while len(found) < ctx.n_query:
            label = min((own for own in groups if groups[own]), key=lambda own: (counts[own], own))
            found.append(groups[label].pop(0))
            counts[label] += 1
        assert picks(sampler_by_name("tfs"), ctx) == ctx.ids[found].tolist()


def brute_force(ctx: SelectionContext, ridge: float) -> tuple[list[int], list[float]]:
    """Invert the matrix again for every candidate of every pick; return picks and by how much the trace fell."""
    def fisher(features: torch.Tensor, logits: torch.Tensor) -> np.ndarray:
        largest = logits.double().softmax(1).amax(1).numpy()
        rows = features.double().numpy()
        return (rows * (largest * (1 - largest))[:, None]).T @ rows

    rows, width = ctx.features.double().numpy(), ctx.features.shape[1]
    of_pool, matrix = fisher(ctx.features, ctx.logits) / ctx.n_pool, ridge * np.eye(width)
    matrix = matrix + fisher(ctx.labeled_features, ctx.labeled_logits)
    largest, found, gains = ctx.logits.double().softmax(1).amax(1).numpy(), [], []
    for _ in range(ctx.n_query):
        traces = [np.inf if row in found else np.trace(np.linalg.solve(
            matrix + largest[row] * (1 - largest[row]) * np.outer(rows[row], rows[row]), of_pool)) for row in range(len(rows))]
        before = np.trace(np.linalg.solve(matrix, of_pool))
        falls = before - np.array(traces)
        found.append(next(row for row in range(len(rows)) if falls[row] >= falls.max() - 1e-9 * abs(falls.max())))
        gains.append(float(falls[found[-1]]))
        matrix = matrix + largest[found[-1]] * (1 - largest[found[-1]]) * np.outer(rows[found[-1]], rows[found[-1]])
    return found, gains


@pytest.mark.parametrize(("ridge", "block"), [(0.05, 2**22), (1.0, 64)])
def test_bait_is_brute_force(ridge, block, monkeypatch):
    """On 100 small pools each, with labels and without, in one block of rows and in several."""
    monkeypatch.setattr("active.kernels.scores.BLOCK", block)
    for number, ctx in enumerate(map(asked, small_pools(100, n_query=5))):
        ctx = without_labels(ctx) if number % 5 == 0 else ctx
        query, (rows, gains) = select(sampler_by_name("bait_binary", ridge=ridge), ctx), brute_force(ctx, ridge)
        assert query.rows.tolist() == rows and query.scores.tolist() == pytest.approx(gains, rel=1e-4, abs=1e-7)
        assert query.pool_scores.argmax() == rows[0] and float(query.pool_scores[rows[0]]) == pytest.approx(gains[0], rel=1e-4)


def changes_by_hand(ctx: SelectionContext, masks: int, dropout: float, key: int) -> list[int]:
    texts, bias = ctx.text_features.double().numpy(), 0 if ctx.bias is None else ctx.bias.double().numpy()
    found = []
    for row, number in enumerate(ctx.ids.tolist()):
        drawn = np.random.default_rng([key, number]).random((masks, ctx.features.shape[1]))
        scores = [ctx.features[row].double().numpy() * (own >= dropout) / (1 - dropout) @ texts.T + bias for own in drawn]
        found.append(sum(int(own.argmax()) != int(ctx.logits[row].argmax()) for own in scores))
    return found


@pytest.mark.parametrize("bias", [False, True])
def test_dropquery_counts_predictions_that_change(bias):
    """Each mask by hand, on 200 small pools; a learner's bias is part of its predictions."""
    for ctx in small_pools(200):
        ctx = replace(ctx, bias=torch.linspace(-0.2, 0.2, ctx.n_classes)) if bias else ctx
        assert changed_predictions(ctx, 3, 0.5, 7).tolist() == changes_by_hand(ctx, 3, 0.5, 7)


def test_without_dropout_nothing_changes():
    """Logits are those of the same rows. Images are then picked by k-means or at random."""
    ctx = make_context()
    ctx = replace(ctx, logits=20 * ctx.features @ ctx.text_features.T)
    assert changed_predictions(ctx, 4, 0.0, 1).sum() == 0
    assert len(set(picks(sampler_by_name("dropquery", dropout=0.0), ctx))) == 6


def test_masks_belong_to_images():
    """An image has the same masks in another pool."""
    one, other = kept_features(torch.tensor([4, 9]), 3, 16, 0.75, 5), kept_features(torch.tensor([9]), 3, 16, 0.75, 5)
    assert torch.equal(one[1:], other) and not torch.equal(one[0], one[1])


@pytest.mark.parametrize(("enough", "expected"), [
    (0, [0, 1]), (2, [0, 1]), (3, [0, 1, 2, 3, 4]), (5, [0, 1, 2, 3, 4]), (6, [0, 1, 2, 3, 4, 5, 6, 7]),
    (100, [0, 1, 2, 3, 4, 5, 6, 7])])
def test_the_threshold_falls_until_there_are_enough(enough, expected):
    """Five masks: three changes and more, then two, then one; a row that never changes is not a candidate."""
    changes = torch.tensor([5, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 0])
    assert candidates(changes, 5, enough).tolist() == expected


def test_dropquery_asks_others_when_few_change():
    """It then asks for all candidates, and for random rows."""
    ctx, key = make_context(n_query=30), int(rng_for(0, "picks").integers(2**63))
    changes = changes_by_hand(ctx, 1, 0.05, key)
    found = picks(sampler_by_name("dropquery", masks=1, dropout=0.05), ctx)
    n_changed = sum(change > 0 for change in changes)
    assert 0 < n_changed < 30 and set(found[:n_changed]) == {ctx.ids[row].item() for row in range(70) if changes[row]}


def test_dropquery_asks_what_is_nearest_to_the_center_of_each_cluster_of_candidates():
    """Candidates change in two of three masks, or in one where those are too few; they alone are clustered."""
    for ctx in small_pools(60, n_query=4):
        ctx, rng = asked(ctx), rng_for(0, "picks")
        changes = changes_by_hand(ctx, 3, 0.75, int(rng.integers(2**63)))
        twice, once = ([row for row, change in enumerate(changes) if change >= least] for least in (2, 1))
        kept = twice if len(twice) >= 25 * ctx.n_query else once
        if len(kept) <= ctx.n_query:
            continue
        centers, cluster = k_means(ctx.features[kept], ctx.n_query, rng)
        gaps = (ctx.features[kept] - centers[cluster]).square().sum(1)
        nearest = [float(gaps[cluster == number].min()) for number in range(len(centers))]
        found = picks(sampler_by_name("dropquery"), ctx)[: len(centers)]
        places = [kept.index(ctx.ids.tolist().index(image)) for image in found]
        assert sorted(cluster[places].tolist()) == list(range(len(centers)))
        assert all(float(gaps[place]) <= nearest[int(cluster[place])] + 1e-5 for place in places)


def test_dropquery_without_labels_clusters_all_rows():
    """No mask is drawn: nothing has been learned yet."""
    ctx = without_labels(make_context(2))
    centers, cluster = k_means(ctx.features, ctx.n_query, rng_for(0, "picks"))
    found = picks(sampler_by_name("dropquery"), ctx)
    assert found == ctx.ids[[int(own[0]) for own in nearest_members(ctx.features, centers, cluster)]].tolist()


@pytest.mark.parametrize(("n_labeled", "labels_per_class", "stage"), [
    (0, 1.0, "typiclust"), (4, 1.0, "typiclust"), (5, 1.0, "margin"), (9, 2.0, "typiclust"), (10, 2.0, "margin"),
    (0, 0.0, "margin")])
def test_tcm_is_its_first_sampler_until_there_are_labels_enough(n_labeled, labels_per_class, stage):
    """With five classes and one label a class, the second sampler starts at five labels."""
    ctx = make_context(3, n_labeled=n_labeled)
    found = picks(sampler_by_name("tcm", labels_per_class=labels_per_class), ctx)
    assert found == picks(sampler_by_name(stage), ctx) != picks(sampler_by_name("entropy"), ctx)


@pytest.mark.parametrize("key", ["FIRST", "THEN"])
def test_tcm_refuses_what_labels_images_itself(key):
    node = sampler_node()
    node.SAMPLER, node.TCM[key] = "tcm", "cbsq"
    with pytest.raises(ConfigError, match=rf"ACTIVE\.TCM\.{key} is 'cbsq'"):
        check_sampler_names(node)
