"""CB: class-guided clustering with cluster-balanced acquisition."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from active.kernels.k_means import k_means
from active.samplers.cb import balanced_allocation, cb, class_guided_features
from active.testing import make_context, picks, sampler_by_name, small_pools, without_labels
from tests.active.samplers import plain


def loop_allocation(n_labeled: list[int], n_members: list[int], n: int) -> list[int]:
    """Allocate labels by a search over all clusters for each label."""
    labeled, clusters = list(n_labeled), []
    for _ in range(n):
        open_ones = [c for c in range(len(labeled)) if labeled[c] < n_members[c]]
        if not open_ones:
            break
        best = min(open_ones, key=lambda c: (labeled[c] / n_members[c], -n_members[c], c))
        labeled[best] += 1
        clusters.append(best)
    return clusters


def slow_features(ctx, fusion: str) -> np.ndarray:
    """Each image beside the mean text of its probabilities, or the mean of both, at unit length."""
    rows = []
    for image, logits in zip([*ctx.features.double().numpy(), *ctx.labeled_features.double().numpy()],
                             [*ctx.logits.double().numpy(), *ctx.labeled_logits.double().numpy()], strict=True):
        weights = np.exp(logits - max(logits))
        text = sum(weight * text for weight, text in zip(weights, ctx.text_features.double().numpy(), strict=True))
        text = text / sum(weights)
        row = np.concatenate([image, text]) if fusion == "concat" else (image + text) / 2
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


@pytest.mark.parametrize("fusion", ["concat", "mean"])
def test_the_rows_of_200_pools_are_those_of_a_slow_reference(fusion):
    """The picks are the reference's: its k-means, its clusters in its order, each time the next nearest member.

    Distances are compared, not rows: two members of one cluster are equally far from their mean.
    """
    for seed, ctx in enumerate(small_pools(200)):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        features = slow_features(ctx, fusion)
        rows = cb(replace(ctx, rng=plain.fresh(seed)), fusion=fusion).tolist()
        n_clusters = ctx.n_classes + len(ctx.labels)
        assignment = torch.tensor(plain.k_means(features.tolist(), n_clusters, plain.fresh(seed))[1])
        members = {c: (assignment == c).nonzero().flatten().tolist() for c in set(assignment.tolist())}
        waiting = {}
        for c, inside in members.items():
            center = features[inside].mean(0)
            waiting[c] = sorted(1 - features[row] @ center / np.linalg.norm(center) for row in inside if row < ctx.n_pool)
        n_labeled = [sum(row >= ctx.n_pool for row in members[c]) for c in sorted(members)]
        expected = loop_allocation(n_labeled, [len(members[c]) for c in sorted(members)], ctx.n_query)
        assert assignment[rows].tolist() == expected
        for row, c in zip(rows, expected, strict=True):
            center = features[members[c]].mean(0)
            assert 1 - features[row] @ center / np.linalg.norm(center) == pytest.approx(waiting[c].pop(0), abs=1e-5)


@pytest.mark.parametrize("fusion", ["concat", "mean"])
@pytest.mark.parametrize("lengths", [(0.2, 0.9), (0.5, 3.0), (2.0, 9.0)])
def test_rows_of_a_head_are_taken_as_directions(fusion, lengths):
    """Rows of any norm, even all below 1, guide as unit rows do. If the learner gives directions, they are used as they are."""
    for seed, ctx in enumerate(small_pools(20)):
        factors = torch.from_numpy(np.random.default_rng(seed).uniform(*lengths, size=(ctx.n_classes, 1))).float()
        head = replace(ctx, text_features=factors * ctx.text_features, bias=torch.ones(ctx.n_classes))
        guided = class_guided_features(head, fusion)
        assert torch.allclose(guided, class_guided_features(ctx, fusion), atol=1e-6)
        given = replace(head, class_directions=0.5 * ctx.text_features)
        expected = slow_features(replace(ctx, text_features=0.5 * ctx.text_features), fusion)
        assert np.abs(class_guided_features(given, fusion).numpy() - expected).max() < 1e-5


def test_the_allocation_is_that_of_the_reference_loop():
    """The heap gives every label to the cluster that a search over all clusters finds, at any budget."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        n_members = rng.integers(1, 12, size=rng.integers(1, 15)).tolist()
        n_labeled = [int(rng.integers(0, size + 1)) for size in n_members]
        n_open = sum(n_members) - sum(n_labeled)
        for n in (0, 1, n_open // 2, n_open, n_open + 3):
            clusters = balanced_allocation(n_labeled, n_members, n)
            assert clusters == loop_allocation(n_labeled, n_members, n)
            assert len(clusters) == min(n, n_open)


def test_an_allocation_by_hand():
    """Empty clusters by size, the first of equals first; then shares 1/4 and 1/4 before 1/3 before 1/2; then 2/4 again."""
    assert balanced_allocation([0, 0, 1, 0], [4, 2, 3, 4], 8) == [0, 3, 1, 0, 3, 2, 0, 3]


def test_with_as_many_labels_as_classes_the_largest_label_free_clusters_get_one_each():
    """K = C + M non-empty clusters have at least C without a label; the C largest of these are funded once."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        n_classes, n_labels = int(rng.integers(1, 8)), int(rng.integers(0, 20))
        sizes = rng.integers(1, 10, size=n_classes + n_labels)
        labeled = np.zeros_like(sizes)
        for cluster in rng.choice(len(sizes), size=n_labels):
            labeled[cluster] += labeled[cluster] < sizes[cluster]
        free = sorted((c for c in range(len(sizes)) if not labeled[c]), key=lambda c: (-sizes[c], c))
        assert balanced_allocation(labeled.tolist(), sizes.tolist(), n_classes) == free[:n_classes]


def test_features_by_hand():
    """Probabilities 3/4 and 1/4 mix the texts e1 and e2; "concat" puts the mix beside the image, "mean" averages the two."""
    ctx = replace(make_context(n_classes=2, width=2, n_pool=2, n_labeled=1), text_features=torch.eye(2),
                  features=torch.tensor([[0.0, 1.0]] * 2), logits=torch.tensor([[3.0, 1.0]] * 2).log(),
                  labeled_features=torch.tensor([[1.0, 0.0]]), labeled_logits=torch.zeros(1, 2))
    concat, mean = class_guided_features(ctx, "concat"), class_guided_features(ctx, "mean")
    torch.testing.assert_close(concat[1], F.normalize(torch.tensor([0, 1, 0.75, 0.25]), dim=0))
    torch.testing.assert_close(concat[2], F.normalize(torch.tensor([1, 0, 0.5, 0.5]), dim=0))
    torch.testing.assert_close(mean[1], F.normalize(torch.tensor([0.375, 0.625]), dim=0))
    assert concat.shape == (3, 4) and mean.shape == (3, 2)


def test_without_labels_every_class_sized_cluster_gets_one_label():
    """Three far groups, three classes, three labels: the row in the middle of each group."""
    angles = torch.tensor([0.0, 0.1, 0.2, 2.0, 2.1, 2.2, 4.0, 4.1, 4.2])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    ctx = without_labels(make_context(n_pool=9, n_labeled=3, n_classes=3, width=2, n_query=3))
    texts = features[[1, 4, 7]]
    ctx = replace(ctx, features=features, text_features=texts, logits=20 * features @ texts.T)
    assert set(cb(ctx).tolist()) == {1, 4, 7}


def test_labels_steer_away_from_their_cluster():
    """The group that holds a labeled image is asked last."""
    angles = torch.tensor([0.0, 0.01, 0.02, 0.03, 2.0, 2.01])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    ctx = make_context(n_pool=6, n_labeled=1, n_classes=1, width=2, n_query=1)
    ctx = replace(ctx, features=features, text_features=features[:1], logits=torch.zeros(6, 1),
                  labeled_features=features[:1], labeled_logits=torch.zeros(1, 1))
    assert cb(ctx).tolist() in ([4], [5])


def test_duplicates_make_fewer_clusters_and_each_gets_several_labels():
    """Three distinct images, three copies each: nine labels, spread evenly, no row twice."""
    ctx = without_labels(make_context(n_pool=12, n_classes=5, n_query=9))
    three = torch.arange(12) // 4
    ctx = replace(ctx, features=ctx.features[three], logits=ctx.logits[three])
    rows = cb(ctx)
    assert three[rows].bincount().tolist() == [3, 3, 3] and len(rows.unique()) == 9
    assert len(k_means(class_guided_features(ctx, "concat"), 5, ctx.rng)[0]) == 3


def test_fusion_is_a_parameter():
    """Both forms select; on this pool they differ."""
    ctx = make_context(seed=3)
    assert picks(sampler_by_name("cb", fusion="mean"), ctx) != picks(sampler_by_name("cb"), ctx)
