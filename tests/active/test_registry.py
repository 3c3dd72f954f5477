"""Samplers by their names: parameters, wrappers, and what they need of a learner."""


import pytest
import torch

from active.registry import (
    SAMPLERS,
    Sampler,
    build_sampler,
    check_learner,
    check_sampler_names,
    initial_sampler,
    wrapped,
)
from active.selection import select
from active.testing import make_context, sampler_node
from dassl.utils.errors import ConfigError


@pytest.fixture
def component(monkeypatch):
    """Register samplers for one test only."""
    SAMPLERS.fill()
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


def test_what_a_wrapper_wraps_is_known(component):
    """What the inner sampler needs, the run needs."""
    node = sampler_node()
    node.PCB.BASE = "dual_prompt"
    assert wrapped("pcb", node) == ["pcb", "dual_prompt"] and wrapped("entropy", node) == ["entropy"]


@pytest.mark.parametrize(("sampler", "initial", "fits"), [
    ("dual_prompt", "auto", False), ("random", "dual_prompt", False), ("entropy", "auto", True)])
def test_a_sampler_of_negative_prompts_needs_a_learner_that_has_them(sampler, initial, fits):
    """This applies to the first round and the later ones. A learner with negative prompts suits every sampler."""
    node = sampler_node()
    node.SAMPLER, node.INITIAL_SAMPLER = sampler, initial
    check_learner(node, "DualPrompt", has_negative_texts=True)
    if fits:
        check_learner(node, "CoOp", has_negative_texts=False)
    else:
        with pytest.raises(ConfigError, match="CoOp has no negative ones"):
            check_learner(node, "CoOp", has_negative_texts=False)


@pytest.mark.parametrize(("sampler", "initial", "fits"), [
    ("alfa_mix", "auto", False), ("pcb", "auto", False), ("random", "alfa_mix", True), ("entropy", "auto", True),
    ("random", "alfa_mix after known labels", False)])
def test_a_sampler_of_linear_logits_needs_a_linear_learner(sampler, initial, fits):
    """This also holds inside a wrapper. Round 0 is exempt, since zero-shot CLIP is linear, but not after known labels."""
    node = sampler_node()
    initial, _, known = initial.partition(" after ")
    node.KNOWN_LABELS = known and "labels.csv"
    node.SAMPLER, node.INITIAL_SAMPLER, node.PCB.BASE = sampler, initial, "alfa_mix"
    check_learner(node, "LinearProbe", has_negative_texts=False)
    if fits:
        check_learner(node, "TipAdapter", has_negative_texts=False, is_linear=False)
    else:
        with pytest.raises(ConfigError, match=r"'alfa_mix' follows logits .* those of TipAdapter are not linear"):
            check_learner(node, "TipAdapter", has_negative_texts=False, is_linear=False)


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
    """They are what a run without these keys means, and how its record is read."""
    defaults = {parameter.name: parameter.default for parameter in SAMPLERS[sampler].parameters}
    assert {name: defaults[name] for name in numbers} == numbers


def test_what_a_wrapped_sampler_needs_of_the_config_is_checked(tmp_path):
    """A missing record to replay is reported before anything is loaded, even inside a wrapper."""
    node = sampler_node()
    node.SAMPLER, node.SCHEDULE.SAMPLERS, node.SCHEDULE.STARTS = "schedule", ("random", "replay"), (0.0, 1.0)
    node.REPLAY.RESULTS = str(tmp_path / "results.json")
    with pytest.raises(ConfigError, match=r"ACTIVE\.REPLAY\.RESULTS is .*results.json"):
        check_sampler_names(node)


@pytest.mark.parametrize(("sampler", "key"), [("pcb", "PCB"), ("purity", "PURITY")])
@pytest.mark.parametrize("inside", [False, True])
def test_what_chooses_among_some_images_takes_no_record(sampler, key, inside):
    """It would hide images that the record asks for, or ask for more than it has; so inside a schedule too."""
    node = sampler_node()
    node.SAMPLER, node[key].BASE = sampler, "schedule" if inside else "replay"
    node.SCHEDULE.SAMPLERS, node.SCHEDULE.STARTS = ("random", "replay"), (0.0, 1.0)
    with pytest.raises(ConfigError, match=rf"^ACTIVE\.{key}\.BASE is 'replay', which repeats a record"):
        check_sampler_names(node)
