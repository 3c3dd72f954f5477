"""CBSQ: CB with picks that the model may label itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from active.samplers.cb import cluster_balanced_rows
from active.samplers.cbsq import cbsq, class_thresholds
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels
from dassl.utils.seeding import rng_for


def fresh(ctx, **changes):
    return replace(ctx, rng=rng_for(0, "cbsq"), **changes)


def test_the_split_of_200_pools_is_that_of_a_slow_reference():
    """CB picks from 4 C + M clusters; those are asked whose confidence is below the mean of their class's labeled ones."""
    n_saved = 0
    for ctx in small_pools(200):
        ctx = fresh(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        query = cbsq(ctx)
        labeled = ctx.labeled_logits.double().softmax(1).amax(1).tolist()
        asked, guessed = [], {}
        for row in cluster_balanced_rows(fresh(ctx), 4 * ctx.n_classes + len(ctx.labels), "concat").tolist():
            probs = ctx.logits[row].double().softmax(0).tolist()
            label = int(np.argmax(probs))
            known = [sure for sure, truth in zip(labeled, ctx.labels.tolist(), strict=True) if truth == label]
            if known and max(probs) >= np.mean(known) * (1 - 1e-12):
                guessed[row] = (label, max(probs))
            else:
                asked.append(row)
        assert query.rows.tolist() == asked
        assert dict(zip(query.pseudo_rows.tolist(), query.pseudo_labels.tolist(), strict=True)) == {
            row: label for row, (label, _) in guessed.items()}
        assert query.pseudo_confidence.tolist() == pytest.approx([sure for _, sure in guessed.values()], abs=1e-5)
        n_saved += len(guessed)
    assert n_saved > 100


def test_thresholds_by_hand():
    """Class 0 has images of confidence 0.9 and 0.6, the second misclassified; class 1 one of 0.8; class 2 none."""
    logits = torch.tensor([[0.9, 0.05, 0.05], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]]).log()
    assert class_thresholds(logits, torch.tensor([0, 0, 1])).tolist() == pytest.approx([0.75, 0.8, torch.inf])


def test_without_thresholds_every_pick_is_asked():
    """If no predicted class has a labeled image, the picks are CB's and all of them are paid."""
    ctx = fresh(make_context(n_classes=6))
    logits = ctx.logits.clone()
    logits[:, 5] = -100
    ctx = replace(ctx, logits=logits, labels=torch.full_like(ctx.labels, 5))
    query = cbsq(ctx)
    assert query.rows.tolist() == cluster_balanced_rows(fresh(ctx), 24 + len(ctx.labels), "concat").tolist()
    assert len(query.rows) == ctx.n_query and not len(query.pseudo_rows)


def test_thresholds_at_the_bottom_make_every_pick_free():
    """Labeled images of uniform probabilities, one of each class: nothing is below 1 / C."""
    ctx = fresh(make_context(n_labeled=5))
    query = cbsq(replace(ctx, labels=torch.arange(5), labeled_logits=torch.zeros_like(ctx.labeled_logits)))
    assert not len(query.rows) and len(query.pseudo_rows) == ctx.n_query


def test_a_confidence_at_the_threshold_is_enough():
    """A pick that is the same image as its class's labeled ones is accepted, whatever the mean rounds to."""
    for n in range(1, 8):
        logits = make_context().logits[:1]
        threshold = class_thresholds(logits.expand(n, -1), logits.argmax(1).expand(n))[logits.argmax(1)]
        assert logits.double().softmax(1).amax(1) >= threshold


def test_raising_a_threshold_never_lowers_the_cost():
    """The same clusters, surer labeled images: as many or more labels are paid."""
    for seed in range(20):
        ctx, costs = make_context(seed, n_query=20), []
        features_of = replace(ctx, labeled_logits=torch.zeros_like(ctx.labeled_logits))
        rows = cluster_balanced_rows(fresh(features_of), 4 * ctx.n_classes + len(ctx.labels), "concat")
        confidence, predicted = ctx.logits[rows].double().softmax(1).max(1)
        for scale in (0.0, 0.1, 0.3, 1.0, 3.0):
            costs.append(int((confidence < class_thresholds(scale * ctx.labeled_logits, ctx.labels)[predicted]).sum()))
        assert costs == sorted(costs) and costs[0] < costs[-1]


def test_the_cost_falls_as_the_thresholds_fall(monkeypatch):
    """The sampler itself, all thresholds moved together: the same rows, and never fewer paid at higher thresholds."""
    for seed in range(20):
        ctx, costs, rows = make_context(seed, n_query=20), [], set()
        for threshold in (0.0, 0.3, 0.6, 0.9, torch.inf):
            monkeypatch.setattr("active.samplers.cbsq.class_thresholds", lambda *_, value=threshold: torch.full((5,), value))
            query = cbsq(fresh(ctx))
            costs.append(len(query.rows))
            rows.add(frozenset([*query.rows.tolist(), *query.pseudo_rows.tolist()]))
        assert costs == sorted(costs) and costs[0] == 0 and costs[-1] == 20 and len(rows) == 1


def test_pseudo_labels_count_as_labels_in_the_next_round():
    """An image labeled by the model is a labeled image of that class: it raises or lowers the class's threshold."""
    ctx = make_context()
    before = class_thresholds(ctx.labeled_logits, ctx.labels)
    saved = cbsq(fresh(ctx, labeled_logits=torch.zeros_like(ctx.labeled_logits)))  # thresholds at the bottom
    row, label = saved.pseudo_rows[:1], saved.pseudo_labels[:1]
    after = class_thresholds(torch.cat([ctx.labeled_logits, ctx.logits[row]]), torch.cat([ctx.labels, label]))
    assert [int(k) for k in (before != after).nonzero()] == label.tolist()


def test_fusion_is_a_parameter():
    """Fusion is `cb`'s parameter: without labels the picks are those of `cb` in both forms, and the forms differ."""
    ctx = without_labels(make_context(seed=3))
    answers = [[picks(sampler_by_name(name, fusion=fusion), ctx) for name in ("cb", "cbsq")] for fusion in ("concat", "mean")]
    assert answers[0][0] == answers[0][1] != answers[1][0] == answers[1][1]


def test_the_first_round_is_that_of_cb():
    """Without labels there are C clusters and everything is asked."""
    ctx = without_labels(make_context())
    assert picks(sampler_by_name("cbsq"), ctx) == picks(sampler_by_name("cb"), ctx)
    assert not len(select(sampler_by_name("cbsq"), ctx).pseudo_rows)


def test_the_factor_of_the_number_of_clusters_is_a_parameter():
    """With factor 1 the picks are CB's, also with labels; with the default they are others."""
    ctx = fresh(make_context())
    query, expected = cbsq(ctx, factor=1), sampler_by_name("cb")(fresh(ctx)).tolist()
    assert sorted([*query.rows.tolist(), *query.pseudo_rows.tolist()]) == sorted(expected)
    query = cbsq(fresh(ctx))
    assert sorted([*query.rows.tolist(), *query.pseudo_rows.tolist()]) != sorted(expected)
