"""Dual prompt: it asks for the least clean rows of each class, and mines the cleanest."""

from dataclasses import replace

import pytest
import torch

from active.samplers.dual_prompt import clean_margins, dual_prompt, rank_in_group, warm_start
from active.selection import ContractError, select
from active.testing import make_context, picks, sampler_by_name, small_pools


def slow_dual_prompt(ctx, remainder: str, k: int) -> tuple[list[int], dict[int, int]]:
    """Group by group: the quota, then the remainder by one candidate a class at a time or by all at once, then the mining."""
    positive, negative = ctx.text_features.double(), ctx.negative_text_features.double()
    predicted = ctx.logits.argmax(1).tolist()
    margin = [float(ctx.features[row].double() @ (positive[label] - negative[label])) for row, label in enumerate(predicted)]
    groups = {label: sorted((row for row in range(ctx.n_pool) if predicted[row] == label), key=lambda row: (margin[row], row))
              for label in range(ctx.n_classes)}
    quota = ctx.n_query // ctx.n_classes
    asked = sorted((row for group in groups.values() for row in group[:quota]), key=lambda row: (margin[row], row))
    waiting = [list(group[quota:]) for group in groups.values()]
    while len(asked) < ctx.n_query:
        heads = [row for group in waiting for row in (group if remainder == "global" else group[:1])]
        heads = sorted(heads, key=lambda row: (margin[row], row))[: ctx.n_query - len(asked)]
        asked += heads
        waiting = [[row for row in group if row not in heads] for group in waiting]
    mined = {}
    for label, group in groups.items():
        free = sorted((row for row in group if row not in asked), key=lambda row: (-margin[row], row))
        mined |= dict.fromkeys(free[:k], label)
    return asked, mined


@pytest.mark.parametrize("remainder", ["per_class", "global"])
def test_200_pools_are_asked_and_mined_as_by_a_slow_reference(remainder):
    """Queries, their order, mined rows and their labels agree, for quotas of 0 and more."""
    for ctx in small_pools(200):
        ctx = replace(ctx, n_query=min(ctx.n_query, ctx.n_pool - 1))
        query = dual_prompt(ctx, remainder=remainder, k=3)
        asked, mined = slow_dual_prompt(ctx, remainder, 3)
        assert query.rows.tolist() == asked
        assert dict(zip(query.mined_rows.tolist(), query.mined_labels.tolist(), strict=True)) == mined


def with_margins(margins: list[float], predicted: list[int], n_query: int):
    """Return a context of these margins and predicted classes: features on a circle, negative texts at right angles."""
    ctx = make_context(n_pool=len(margins), n_classes=max(predicted) + 1, n_query=n_query, width=2)
    margin = torch.tensor(margins)
    features = torch.stack([margin, (1 - margin**2).sqrt()], 1)
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), ctx.n_classes).float()
    texts = torch.tensor([[1.0, 0.0]]).expand(ctx.n_classes, -1)
    return replace(ctx, features=features, logits=logits, text_features=texts, negative_text_features=torch.zeros_like(texts))


def test_the_remainder_by_hand():
    """Two labels, three classes: no quota. Class 0 holds the least clean rows: globally both go to it, per class one."""
    ctx = with_margins([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 0, 0, 0, 1, 2], n_query=2)
    assert dual_prompt(ctx, remainder="global").rows.tolist() == [0, 1]
    assert dual_prompt(ctx, remainder="per_class").rows.tolist() == [0, 4]


def test_a_class_below_its_quota_passes_the_rest_on():
    """Six labels, three classes: two each, but class 1 has one row and class 2 none, so three more go to class 0."""
    ctx = with_margins([0.1, 0.2, 0.3, 0.4, 0.5, 0.05, 0.6], [0, 0, 0, 0, 0, 1, 0], n_query=6)
    ctx = replace(ctx, logits=torch.nn.functional.pad(ctx.logits, (0, 1)), text_features=torch.tensor([[1.0, 0.0]] * 3),
                  negative_text_features=torch.zeros(3, 2))
    for remainder in ("global", "per_class"):
        query = dual_prompt(ctx, remainder=remainder)
        assert query.rows.tolist() == [5, 0, 1, 2, 3, 4] and query.mined_rows.tolist() == [6]


def test_every_class_gets_its_quota():
    """With enough rows each predicted class is asked B // C times, and at most once more."""
    ctx = make_context(n_pool=300, n_query=23)
    counts = ctx.logits[dual_prompt(ctx).rows].argmax(1).bincount(minlength=5)
    assert counts.min() >= 4 and counts.max() <= 5


def test_asked_mined_and_labeled_rows_are_three_sets():
    """Nothing is asked and mined at once, whatever the budget; each class is mined at most k times."""
    for n_query in (1, 30, 69):
        ctx = make_context(n_query=n_query)
        query = select(sampler_by_name("dual_prompt", k=4), ctx)
        assert not set(query.rows.tolist()) & set(query.mined_rows.tolist())
        assert not set(ctx.ids[query.mined_rows].tolist()) & set(ctx.labeled_ids.tolist())
        assert query.mined_labels.bincount().max() <= 4
        assert query.mined_labels.tolist() == ctx.logits[query.mined_rows].argmax(1).tolist()
    assert not len(dual_prompt(make_context(), k=0).mined_rows)


def test_a_cleaner_row_is_asked_later():
    """Raising one row's margin alone moves it back in the order, never forward."""
    ctx = with_margins([0.5] * 6, [0] * 6, n_query=6)
    places = []
    for margin in (0.1, 0.5, 0.9):
        features = ctx.features.clone()
        features[3] = torch.tensor([margin, (1 - margin**2) ** 0.5])
        places.append(dual_prompt(replace(ctx, features=features)).rows.tolist().index(3))
    assert places == [0, 3, 5]


def test_equal_prompts_leave_the_order_of_ids():
    """Positive and negative texts alike: p_clean is 1/2 for all, so the lowest ids of each class are asked."""
    ctx = make_context(n_query=10)
    ctx = replace(ctx, negative_text_features=ctx.text_features)
    assert clean_margins(ctx, ctx.logits.argmax(1)).tolist() == [0] * 70
    predicted = ctx.logits.argmax(1)
    expected = [row for label in range(5) for row in (predicted == label).nonzero().flatten()[:2].tolist()]
    assert sorted(dual_prompt(ctx).rows.tolist()) == sorted(expected)


def test_margins_that_saturate_keep_their_order():
    """p_clean of 0.3 and 0.4 at temperature 0.01 are both 1 in float32; the less clean row still comes first."""
    ctx = with_margins([0.4, 0.3, 0.5], [0, 0, 0], n_query=1)
    assert (100 * torch.tensor([0.4, 0.3])).sigmoid().tolist() == [1, 1]
    assert dual_prompt(ctx).rows.tolist() == [1]


def test_the_warm_start_takes_the_surest_of_each_predicted_class():
    """It takes two of each class, by probability, and asks for none."""
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]])
    query = warm_start(replace(make_context(n_pool=4, n_classes=2), logits=probs.log()), k_initial=2, k=16, remainder="global")
    assert dict(zip(query.mined_rows.tolist(), query.mined_labels.tolist(), strict=True)) == {0: 0, 2: 0, 3: 1}
    assert not len(query.rows) and not len(query.pseudo_rows)


def test_the_warm_start_tells_saturated_probabilities_apart():
    """Both are 1 in float32, 1 - 2e-9 and 1 - 9e-14; equal ones go by id."""
    for logits, surest in (([[20.0, 0.0], [30.0, 0.0]], 1), ([[20.0, 0.0], [20.0, 0.0]], 0)):
        ctx = replace(make_context(n_pool=2, n_classes=2), logits=torch.tensor(logits))
        assert warm_start(ctx, k_initial=1).mined_rows.tolist() == [surest]


def test_ranks_in_groups_by_hand():
    """Ascending within each group; equal values by row."""
    ranks = rank_in_group(torch.tensor([0.5, 0.1, 0.5, 0.3, 0.2]), torch.tensor([2, 0, 2, 2, 0]))
    assert ranks.tolist() == [1, 0, 2, 0, 1]


def test_a_model_without_negative_prompts_is_refused():
    """The error says what is missing."""
    with pytest.raises(ContractError, match="no negative"):
        picks(sampler_by_name("dual_prompt"), replace(make_context(), negative_text_features=None))
