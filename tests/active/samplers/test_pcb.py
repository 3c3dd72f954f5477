"""PCB: balance over predicted classes, as published and repaired."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from active.registry import SAMPLERS, check_sampler_names
from active.selection import select
from active.testing import make_context, picks, sampler_by_name, sampler_node, small_pools
from dassl.utils.errors import ConfigError
from tests.active.samplers import plain


def _predicting(classes: list[int], labels: list[int], n_classes: int, n_query: int, n_total: int | None = None):
    """A context with given predicted classes, all of one certainty, and given labels."""
    ctx = make_context(n_pool=len(classes), n_labeled=len(labels), n_classes=n_classes, n_query=n_query)
    logits = F.one_hot(torch.tensor(classes), n_classes).float()
    return replace(ctx, logits=logits, labels=torch.tensor(labels, dtype=torch.int64), n_total=n_total or ctx.n_total)


def _repaired(candidates, predicted, counts, n_query):
    """Scan the classes by (count, class) for every pick."""
    left, picked = list(candidates), []
    while len(picked) < n_query:
        label = min((k for k in range(len(counts)) if any(predicted[row] == k for row in left)), key=lambda k: (counts[k], k))
        row = next(row for row in left if predicted[row] == label)
        left.remove(row)
        picked.append(row)
        counts[label] += 1
    return picked


@pytest.mark.parametrize("base", ["margin", "entropy", "coreset", "badge"])
def test_repaired_equals_plain_python(base):
    """A scan over all classes at each pick, over the base sampler's own candidates, on 200 pools."""
    sampler, inner = sampler_by_name("pcb", base=base, gamma=0.5), sampler_by_name(base)
    for seed, ctx in enumerate(small_pools()):
        if ctx.n_query >= ctx.n_pool:
            continue
        n_candidates = min(max(int(0.5 * ctx.n_total), ctx.n_query), ctx.n_pool)
        candidates = inner(replace(ctx, n_query=n_candidates, rng=plain.fresh(seed))).rows.tolist()
        predicted = [z.index(max(z)) for z in ctx.logits.tolist()]
        counts = [ctx.labels.tolist().count(k) for k in range(ctx.n_classes)]
        expected = _repaired(candidates, predicted, counts, ctx.n_query)
        assert select(sampler, replace(ctx, rng=plain.fresh(seed))).rows.tolist() == expected


def test_five_picks_solved_by_hand():
    """Labels so far 2, 0, 1; predictions 0 0 1 1 2 2 2 in the base's order: classes 1, 1 (counts 2 0 1), 2, then 0, then 2."""
    ctx = _predicting([0, 0, 1, 1, 2, 2, 2], [0, 0, 2], 3, 5)
    assert select(sampler_by_name("pcb", gamma=1.0), ctx).rows.tolist() == [2, 3, 4, 0, 5]


def test_water_filling_with_perfect_predictions():
    """Counts end within 1 of each other among the classes that began below the water level; no other class gets any."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n_classes, n_query = int(rng.integers(2, 8)), int(rng.integers(1, 40))
        before = rng.integers(0, 12, size=n_classes)
        labels = np.repeat(np.arange(n_classes), before).tolist()
        ctx = _predicting(np.repeat(np.arange(n_classes), 45).tolist(), labels, n_classes, n_query)
        rows = select(sampler_by_name("pcb", gamma=1.0), ctx).rows
        bought = ctx.logits[rows].argmax(1).bincount(minlength=n_classes).numpy()
        filled = (before + bought)[bought > 0]
        assert filled.max() - filled.min() <= 1
        assert (before[bought == 0] >= filled.max() - 1).all()


def test_the_base_proposes_gamma_of_the_original_split():
    """The pool that is left does not matter: 0.1 of 100 gives 10 candidates for 8 labels, from a pool of 60."""
    asked = []

    def base(ctx):
        asked.append(ctx.n_query)
        return torch.arange(ctx.n_query)

    from active.samplers.pcb import pcb

    rows = select(lambda ctx: pcb(ctx, base=base), _predicting([0] * 50 + [1] * 10, [], 2, 8, n_total=100)).rows
    assert asked == [10]
    assert rows.tolist() == list(range(8))  # class 1 is not among the candidates


def test_more_labels_than_candidates_widen_the_candidates():
    """gamma 0 leaves exactly the base sampler's own picks."""
    ctx = make_context(n_query=9)
    assert set(picks(sampler_by_name("pcb", gamma=0.0), ctx)) == set(picks(sampler_by_name("margin"), ctx))


def test_reference_mode_balances_while_every_class_has_candidates():
    """Then it differs from the repaired one only in which candidate of a class is taken."""
    ctx = _predicting([0, 1, 2] * 20, [0, 0, 0, 1], 3, 8)
    rows = select(sampler_by_name("pcb", gamma=1.0, mode="reference"), ctx).rows
    assert ctx.logits[rows].argmax(1).bincount(minlength=3).tolist() == [1, 3, 4]


def test_reference_mode_is_random_once_a_class_is_never_predicted():
    """Class 2 starves, so all 20 picks are random; the repaired mode balances the other two classes."""
    ctx = _predicting([0] * 54 + [1] * 6, [], 3, 12)
    reference, repaired = [
        torch.stack([ctx.logits[select(sampler_by_name("pcb", gamma=1.0, mode=mode),
                                       replace(ctx, rng=plain.fresh(seed))).rows].argmax(1).bincount(minlength=3)
                     for seed in range(200)]).float().mean(0).tolist() for mode in ("reference", "repaired")]
    assert repaired == [6.0, 6.0, 0.0]
    # the first picks fill classes 0 and 1 once each, then class 2 is the smallest for ever
    assert reference[1] == pytest.approx(1 + 10 * 5 / 58, abs=0.3)


def test_reference_mode_draws_uniformly_inside_a_class():
    """Each of 5 candidates of the smallest class comes up equally often."""
    ctx = _predicting([0] * 5 + [1] * 5, [1] * 9, 2, 1)
    for options in ({"mode": "reference"}, {"within": "random"}):
        sampler, counts = sampler_by_name("pcb", gamma=1.0, **options), torch.zeros(10)
        for seed in range(1000):
            counts[select(sampler, replace(ctx, rng=plain.fresh(seed))).rows] += 1
        assert counts[5:].sum() == 0
        assert ((counts[:5] - 200).square() / 200).sum() < 18.5  # 4 degrees of freedom, 0.1 % level


@pytest.mark.parametrize("base", ["cbsq", "dual_prompt"])
def test_a_base_that_labels_images_itself_is_refused_with_the_config(base):
    """Rows that the base labels or mines itself would be lost, and picks with them."""
    node = sampler_node()
    node.SAMPLER, node.PCB.BASE = "pcb", base
    with pytest.raises(ConfigError, match=f"ACTIVE.PCB.BASE is '{base}', which labels some images itself"):
        check_sampler_names(node)


def test_the_share_of_candidates_is_not_cut_by_rounding():
    """0.29 of 100 are 29, although the product is 28.999999999999996 in floating point."""
    from active.samplers.pcb import pcb

    asked = []

    def base(ctx):
        asked.append(ctx.n_query)
        return torch.arange(ctx.n_query)

    pcb(_predicting([0] * 60, [], 2, 8, n_total=100), gamma=0.29, base=base)
    assert asked == [29]


def test_the_paper_begins_at_random():
    """`ACTIVE.INITIAL_SAMPLER: auto` takes `random` for every base."""
    assert SAMPLERS["pcb"].facts["needs_labels"] is True
