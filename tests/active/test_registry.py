"""Building samplers from YAML nodes, and the checks around every call of one."""

from dataclasses import replace

import pytest
import torch

from active.context import Query
from active.registry import (
    SAMPLERS,
    Sampler,
    build_chosen,
    build_sampler,
    check_learner,
    check_sampler_names,
    initial_sampler,
    wrapped,
)
from active.selection import ContractError, select, warm_start
from active.testing import make_context, sampler_node, without_labels
from dassl.utils.errors import ConfigError


@pytest.fixture
def component(monkeypatch):
    """Register samplers for one test only."""
    monkeypatch.setattr(SAMPLERS, "_components", dict(SAMPLERS._components))
    return SAMPLERS.register


def test_an_unknown_sampler_is_refused_with_the_nearest_name():
    """A typo never falls back to another sampler."""
    with pytest.raises(ConfigError, match="unknown sampler 'entropie'; did you mean 'entropy'"):
        build_sampler("entropie", sampler_node())


def test_check_sampler_names_covers_the_first_round_too():
    """A typo in INITIAL_SAMPLER is found before anything is loaded."""
    node = sampler_node()
    check_sampler_names(node)
    node.INITIAL_SAMPLER = "randon"
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        check_sampler_names(node)


def test_the_first_round_is_random_only_where_labels_are_needed():
    """`auto` keeps a sampler that can start cold; a name wins over it."""
    node = sampler_node()
    for sampler, initial, expected in [("coreset", "auto", "random"), ("entropy", "auto", "entropy"),
                                       ("coreset", "entropy", "entropy")]:
        node.SAMPLER, node.INITIAL_SAMPLER = sampler, initial
        assert initial_sampler(node) == expected


def test_a_sampler_carries_its_parameters_from_its_node(component):
    """Keyword-only parameters come from the YAML node of the sampler's name."""

    @component("every-nth")
    def every_nth(ctx, *, step: int = 2):
        return torch.arange(0, ctx.n_pool, step)[: ctx.n_query]

    node = sampler_node()
    node.EVERY_NTH.STEP = 5
    rows = select(build_sampler("every-nth", node), make_context(n_pool=40, n_query=3)).rows
    assert rows.tolist() == make_context(n_pool=40).ids.argsort()[::5][:3].tolist()


def test_a_wrapper_receives_its_inner_sampler_with_its_own_node(component):
    """A parameter annotated `Sampler` arrives as a callable, built from the inner sampler's node."""

    @component("inner")
    def inner(ctx, *, start: int = 0):
        return torch.arange(start, start + ctx.n_query)

    @component("outer")
    def outer(ctx, *, base: Sampler = "inner"):
        return base(ctx).flip(0)

    node = sampler_node()
    node.INNER.START = 4
    assert build_sampler("outer", node)(make_context(n_query=3)).tolist() == [6, 5, 4]


def test_a_sampler_that_wraps_itself_is_refused(component):
    """The error shows the circle."""

    @component("ouroboros")
    def ouroboros(ctx, *, base: Sampler = "ouroboros"):
        return base(ctx)

    with pytest.raises(ConfigError, match="'ouroboros' wraps itself: ouroboros -> ouroboros"):
        build_sampler("ouroboros", sampler_node())


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
    """Whatever order and precision the caller has, the sampler gets one."""
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


def test_what_a_wrapper_wraps_is_known(component):
    """Needs of the inner sampler are needs of the run."""
    node = sampler_node()
    node.PCB.BASE = "dual_prompt"
    assert wrapped("pcb", node) == ["pcb", "dual_prompt"] and wrapped("entropy", node) == ["entropy"]


@pytest.mark.parametrize(("sampler", "initial", "fits"), [
    ("dual_prompt", "auto", False), ("random", "dual_prompt", False), ("entropy", "auto", True)])
def test_a_sampler_of_negative_prompts_needs_a_learner_that_has_them(sampler, initial, fits):
    """Either round counts; a learner with negative prompts suits every sampler."""
    node = sampler_node()
    node.SAMPLER, node.INITIAL_SAMPLER = sampler, initial
    check_learner(node, "DualPrompt", has_negative_texts=True)
    if fits:
        check_learner(node, "CoOp", has_negative_texts=False)
    else:
        with pytest.raises(ConfigError, match="CoOp has no negative ones"):
            check_learner(node, "CoOp", has_negative_texts=False)


def test_only_samplers_that_say_so_begin_with_a_warm_start():
    """`dual_prompt` mines before its first query, also inside a wrapper; the others answer with nothing."""
    node, ctx = sampler_node(), without_labels(make_context())
    assert build_chosen("entropy", node).begin is None
    node.PCB.BASE = "dual_prompt"
    for name in ("dual_prompt", "pcb"):
        query = warm_start(build_chosen(name, node), ctx)
        assert not len(query.rows) and len(query.mined_rows) == len(query.mined_labels) > 0
    with pytest.raises(ContractError, match="NaN or Inf"):
        warm_start(build_chosen("dual_prompt", node), replace(ctx, logits=ctx.logits * torch.inf))


@pytest.mark.parametrize(("sampler", "numbers"), [
    ("alfa_mix", {"delta": 0.2}), ("cb", {"fusion": "concat"}), ("cbsq", {"factor": 4, "fusion": "concat"}),
    ("cec", {"n_support": 10, "prior_support": "own", "prior_floor": 0.0, "n_neighbors": 10, "beta": 1.0, "kernel": "cos",
             "rho": 1.0, "combine": "sum", "over": "pool", "calibrate": True, "choose": "weighted_k_means"}),
    ("coreset", {"start": "random"}), ("dual_prompt", {"remainder": "per_class", "k_initial": 16, "k": 16}),
    ("gcnal", {"variant": "core", "subset": 10_000, "hidden": 128, "dropout": 0.3, "pool_weight": 1.2, "margin": 0.1,
               "steps": 200, "lr": 1e-3, "weight_decay": 5e-4}),
    ("pcb", {"base": "margin", "gamma": 0.1, "mode": "repaired", "within": "rank"}),
    ("probcover", {"delta": 0.0, "purity": 0.95}),
    ("typiclust", {"n_neighbors": 20, "max_clusters": 500, "min_cluster_size": 5, "distance": "plain"})])
def test_the_numbers_of_the_papers_and_of_published_tables_are_the_defaults(sampler, numbers):
    """They are what a run without these keys means, and what a record of one is read as."""
    defaults = {parameter.name: parameter.default for parameter in SAMPLERS[sampler].parameters}
    assert {name: defaults[name] for name in numbers} == numbers


def test_what_a_wrapped_sampler_needs_of_the_config_is_checked(tmp_path):
    """A record to replay that is not there is found before anything is loaded, inside a wrapper too."""
    node = sampler_node()
    node.SAMPLER, node.PCB.BASE, node.REPLAY.RESULTS = "pcb", "replay", str(tmp_path / "results.json")
    with pytest.raises(ConfigError, match=r"ACTIVE\.REPLAY\.RESULTS is .*results.json"):
        check_sampler_names(node)
