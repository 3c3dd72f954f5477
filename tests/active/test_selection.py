"""The one place where samplers are called: what they see, and answers that are refused."""

from dataclasses import replace

import pytest
import torch

from active.context import Query
from active.registry import (
    build_chosen,
)
from active.selection import ContractError, select, warm_start
from active.testing import make_context, sampler_node, without_labels


@pytest.mark.parametrize(("answer", "message"), [
    (torch.tensor([0, 1]), "must return 3 rows, not 2"),
    (torch.tensor([0, 1, 1]), "a row twice"),
    (torch.tensor([0, 1, 70]), r"outside 0\.\.69"),
    (torch.tensor([-1, 0, 1]), r"outside 0\.\.69"),
    (torch.tensor([0.0, 1.0, 2.0]), "vector of row numbers, not torch.float32"),
    (torch.tensor([[0, 1, 2]]), r"vector of row numbers, not torch.int64 \(1, 3\)"),
    (Query(torch.tensor([0, 1]), torch.tensor([1]), torch.tensor([0]), torch.ones(1)), "a row twice"),
    (Query(torch.tensor([0, 1, 2]), torch.tensor([3]), torch.tensor([0]), torch.ones(1)), "must return 3 rows, not 4"),
    (Query(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([], dtype=torch.int64)), "0 labels for 1 pseudo rows"),
    (Query(torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([5])), r"a pseudo label outside 0\.\.4"),
    (Query(torch.tensor([0, 1, 2]), mined_rows=torch.tensor([2]), mined_labels=torch.tensor([0])), "a row twice"),
    (Query(torch.tensor([0, 1, 2]), mined_rows=torch.tensor([4, 4]), mined_labels=torch.tensor([0, 0])), "a row twice"),
    (Query(torch.tensor([0, 1, 2]), mined_rows=torch.tensor([70]), mined_labels=torch.tensor([0])), r"outside 0\.\.69"),
    (Query(torch.tensor([0, 1, 2]), mined_rows=torch.tensor([4]), mined_labels=torch.tensor([-1])), "a mined label outside"),
    (Query(torch.tensor([0, 1, 2]), mined_rows=torch.tensor([4]), mined_labels=torch.tensor([0, 1])), "2 labels for 1 mined"),
])
def test_a_wrong_answer_is_refused(answer, message):
    """Count, distinctness, range and kind of the rows are checked for every call."""
    with pytest.raises(ContractError, match=message):
        select(lambda ctx: answer, make_context(n_query=3))


def test_rows_asked_and_rows_guessed_count_together():
    """A sampler may label part of its query itself; both parts are translated to the caller's rows."""
    ctx = make_context(n_query=3)
    shuffled = replace(ctx, ids=ctx.ids.flip(0), features=ctx.features.flip(0), logits=ctx.logits.flip(0),
                       zero_shot_logits=ctx.zero_shot_logits.flip(0))
    query = Query(torch.tensor([5, 0]), torch.tensor([7]), torch.tensor([2]), torch.tensor([0.9]),
                  torch.tensor([1, 2]), torch.tensor([0, 4]))
    answer = select(lambda ctx: query, shuffled)
    assert answer.mined_rows.tolist() == [68, 67] and answer.mined_labels.tolist() == [0, 4]
    assert answer.rows.tolist() == [64, 69] and answer.pseudo_rows.tolist() == [62]
    assert answer.pseudo_labels.tolist() == [2] and answer.pseudo_confidence.tolist() == pytest.approx([0.9])


def test_the_sampler_sees_rows_in_the_order_of_their_ids_as_float32():
    """The caller's order and precision do not matter: the sampler always gets the same one."""
    ctx, seen = make_context(n_query=2), []
    shuffled = replace(ctx, ids=ctx.ids.flip(0), features=ctx.features.flip(0).double(), logits=ctx.logits.flip(0).double(),
                       zero_shot_logits=ctx.zero_shot_logits.flip(0).double())
    select(lambda ctx: seen.append(ctx) or torch.arange(2), shuffled)
    assert torch.equal(seen[0].ids, ctx.ids) and torch.equal(seen[0].features, ctx.features)
    assert seen[0].logits.dtype == torch.float32


def test_tensors_that_are_in_order_are_not_copied():
    """At a million rows a copy is gigabytes; logits that are also the zero-shot logits stay one tensor in any order."""
    ctx, seen = make_context(n_query=2), []
    ctx = replace(ctx, zero_shot_logits=ctx.logits)
    for given in (ctx, replace(ctx, ids=ctx.ids.flip(0), features=ctx.features.flip(0))):
        select(lambda ctx: seen.append(ctx) or torch.arange(2), given)
    assert seen[0].features is ctx.features and seen[0].logits is ctx.logits
    assert seen[1].zero_shot_logits is seen[1].logits


@pytest.mark.parametrize(("n_query", "expected"), [(0, 0), (-1, 0), (70, 70), (500, 70)])
def test_all_or_nothing_is_answered_without_the_sampler(n_query, expected):
    """A budget of 0 gives nothing and one at or above the pool the whole pool, in the order of ids."""

    def never(ctx):
        raise AssertionError("the sampler was called")

    ctx = make_context()
    rows = select(never, replace(ctx, n_query=n_query)).rows
    assert ctx.ids[rows].tolist() == sorted(ctx.ids.tolist())[:expected]


@pytest.mark.parametrize("what", ["features", "logits", "zero_shot_logits", "labeled_features", "labeled_logits"])
def test_values_that_are_not_finite_are_refused_with_their_ids(what):
    """The error names the tensor and the ids of the images, also of labeled ones."""
    ctx = make_context()
    values = getattr(ctx, what).clone()
    values[2, 0] = torch.nan
    image = (ctx.labeled_ids if what.startswith("labeled") else ctx.ids)[2].item()
    with pytest.raises(ContractError, match=rf"{what} of 1 images hold NaN or Inf; ids \[{image}\]"):
        select(lambda ctx: torch.arange(ctx.n_query), replace(ctx, **{what: values}))


@pytest.mark.parametrize("has_ids", [True, False])
@pytest.mark.parametrize("what", ["skipped_features", "skipped_logits", "flagged_features"])
def test_so_are_those_of_images_that_people_skipped_or_flagged(what, has_ids):
    """Samplers cover skipped images, and learn from flagged ones."""
    ctx = make_context()
    values = {name: ctx.logits[:4].clone() if name.endswith("logits") else ctx.features[:4].clone()
              for name in ("skipped_features", "skipped_logits", "flagged_features")}
    values[what][2, 0] = torch.nan
    ids = {f"{kind}_ids": torch.arange(200, 204) if has_ids else None for kind in ("skipped", "flagged")}
    with pytest.raises(ContractError, match=rf"{what} of 1 images hold NaN or Inf; ids \[{202 if has_ids else 2}\]"):
        select(lambda ctx: torch.arange(ctx.n_query), replace(ctx, **values, **ids))


def test_features_kept_in_float16_are_unit_rows():
    """Their lengths are off by 1e-5, at which copies would have a distance."""
    ctx, seen = make_context(width=512), []
    rows = ctx.features.half()
    rows[1] = rows[0]
    select(lambda own: seen.append(own) or torch.arange(own.n_query), replace(ctx, features=rows))
    found = seen[0].features
    assert found.dtype == torch.float32 and (rows.float().norm(dim=1) - 1).abs().max() > 5e-6
    assert (found.norm(dim=1) - 1).abs().max() < 5e-7 and torch.equal(found[0], found[1])
    assert (found - rows.float()).norm(dim=1).max() < 1e-4


def test_only_samplers_that_say_so_begin_with_a_warm_start():
    """`dual_prompt` mines before its first query, even inside a wrapper. The others return nothing."""
    node, ctx = sampler_node(), without_labels(make_context())
    assert build_chosen("entropy", node).begin is None
    node.PCB.BASE = "dual_prompt"
    for name in ("dual_prompt", "pcb"):
        query = warm_start(build_chosen(name, node), ctx)
        assert not len(query.rows) and len(query.mined_rows) == len(query.mined_labels) > 0
    with pytest.raises(ContractError, match="NaN or Inf"):
        warm_start(build_chosen("dual_prompt", node), replace(ctx, logits=ctx.logits * torch.inf))
