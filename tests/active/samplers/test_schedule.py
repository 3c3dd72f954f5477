"""Schedule: whose turn it is, what a run of it is, and what is refused."""

from dataclasses import replace

import pytest

from active.build import carry_out
from active.registry import build_chosen, check_learner, check_sampler_names, initial_sampler
from active.samplers.schedule import stage
from active.testing import make_context, picks, sampler_by_name, sampler_node, without_labels
from dassl.utils.errors import ConfigError
from tests.active.toy import ToyTrainer, record_of, toy_config, toy_task


def toy_run(output, stop=None, **values):
    dataset, features, texts = toy_task()
    return carry_out(toy_config(output, **{f"ACTIVE__{key}": value for key, value in values.items()}), dataset,
                     ToyTrainer(features, texts, stop))


@pytest.mark.parametrize("name", ["random", "badge", "typiclust", "coreset", "cbsq", "probcover"])
def test_a_schedule_of_one_sampler_is_that_sampler(tmp_path, name):
    """It may draw, need labels, or label images itself: record, picks and metrics are the same bit for bit."""
    alone = toy_run(tmp_path / "alone", SAMPLER=name)
    scheduled = toy_run(tmp_path / "scheduled", SAMPLER="schedule", SCHEDULE__SAMPLERS=[name], SCHEDULE__STARTS=[0])
    assert record_of(scheduled) == record_of(alone)


@pytest.mark.parametrize(("by", "starts", "names"), [
    ("labels_per_class", [0, 1.2], ["typiclust", "margin", "margin", "margin"]),
    ("labels_per_class", [0, 1.3], ["typiclust", "typiclust", "margin", "margin"]),
    ("labels_per_class", [0, 3.6], ["typiclust", "typiclust", "typiclust", "margin"]),
    ("rounds", [0, 1], ["typiclust", "margin", "margin", "margin"]),
    ("rounds", [0, 3], ["typiclust", "typiclust", "typiclust", "margin"]),
])
def test_the_record_names_whose_turn_it_is(tmp_path, by, starts, names):
    """Rounds have six labels, in five classes. A sampler whose start is reached exactly takes its turn."""
    result = toy_run(tmp_path, SAMPLER="schedule", SCHEDULE__BY=by, SCHEDULE__STARTS=starts)
    assert [record.sampler for record in result.rounds] == names


@pytest.mark.parametrize("round", [0, 1, 2, 3])
def test_a_run_resumes_across_a_switch(tmp_path, round):
    """Stopped in any round and started again it has the same picks and metrics."""
    keys = {"SAMPLER": "schedule", "SCHEDULE__SAMPLERS": ["random", "badge", "coreset"], "SCHEDULE__STARTS": [0, 1, 3],
            "SCHEDULE__BY": "rounds"}
    whole = toy_run(tmp_path / "whole", **keys)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "stopped", stop=("fit", round), **keys)
    assert record_of(toy_run(tmp_path / "stopped", **keys)) == record_of(whole)


@pytest.mark.parametrize(("n_labeled", "round", "by", "turn"), [
    (0, 0, "labels_per_class", "random"), (4, 9, "labels_per_class", "random"), (5, 1, "labels_per_class", "coreset"),
    (9, 1, "labels_per_class", "coreset"), (10, 1, "labels_per_class", "entropy"), (3, 0, "rounds", "random"),
    (3, 1, "rounds", "coreset"), (3, 2, "rounds", "entropy"), (3, 7, "rounds", "entropy"), (0, 7, "rounds", "random")])
def test_inside_another_sampler_it_takes_turns_too(n_labeled, round, by, turn):
    """Five classes; rounds count once anything is labeled, as the loop has it."""
    ctx = make_context(3, n_labeled=max(n_labeled, 1))
    ctx = replace(ctx if n_labeled else without_labels(ctx), round=round)
    parameters = {"samplers": ("random", "coreset", "entropy"), "starts": (0.0, 1.0, 2.0), "by": by}
    assert picks(sampler_by_name("schedule", **parameters), ctx) == picks(sampler_by_name(turn), ctx)


@pytest.mark.parametrize(("n_classes", "start", "n_labeled"), [(100, 0.07, 7), (10, 1.1, 11), (100, 0.29, 29), (47, 3.0, 141)])
def test_a_start_is_reached_however_its_product_is_rounded(n_classes, start, n_labeled):
    """0.07 * 100 is 7.000000000000001. One label less is too few."""
    turns = [stage(1, n, n_classes, starts=(0.0, start), by="labels_per_class") for n in (n_labeled - 1, n_labeled)]
    assert turns == [0, 1]


@pytest.mark.parametrize(("samplers", "starts", "message"), [
    ([], [], "holds 0 numbers"), (["margin"], [0.0, 1.0], "holds 2 numbers and ACTIVE.SCHEDULE.SAMPLERS 1 names"),
    (["random", "margin"], [1.0, 2.0], r"is \[1.0, 2.0\], but must be rising numbers from 0 on"),
    (["random", "margin", "badge"], [0.0, 2.0, 1.0], "must be rising"), (["random", "margin"], [0.0, 0.0], "must be rising"),
    (["random", "margin"], [0.0, "one"], "must be rising"), (["random", "margin"], [False, True], "must be rising"),
    (["random", "marginn"], [0.0, 1.0], "unknown sampler 'marginn'"),
    (["random", "schedule"], [0.0, 1.0], "'schedule' wraps itself")])
def test_what_is_no_schedule_is_refused(samplers, starts, message):
    node = sampler_node()
    node.SAMPLER, node.SCHEDULE.SAMPLERS, node.SCHEDULE.STARTS = "schedule", tuple(samplers), tuple(starts)
    with pytest.raises(ConfigError, match=message):
        check_sampler_names(node)


def test_the_first_round_is_random_only_where_the_first_sampler_needs_labels():
    node = sampler_node()
    node.SAMPLER = "schedule"
    for first, then, expected in [("coreset", "margin", "random"), ("margin", "coreset", "schedule")]:
        node.SCHEDULE.SAMPLERS = (first, then)
        assert initial_sampler(node) == expected


def test_needs_of_all_samplers_are_needs_of_the_run():
    """This includes samplers whose turn comes late."""
    node = sampler_node()
    node.SAMPLER, node.SCHEDULE.SAMPLERS = "schedule", ("margin", "alfa_mix")
    check_learner(node, "LinearProbe", has_negative_texts=False)
    with pytest.raises(ConfigError, match="'alfa_mix' follows logits"):
        check_learner(node, "TipAdapter", has_negative_texts=False, is_linear=False)
    node.SAMPLER, node.PCB.BASE, node.SCHEDULE.SAMPLERS = "pcb", "schedule", ("margin", "cbsq")
    with pytest.raises(ConfigError, match=r"ACTIVE\.PCB\.BASE is 'cbsq'"):
        check_sampler_names(node)


def test_only_the_first_sampler_begins_with_a_warm_start():
    node = sampler_node()
    for samplers, begins in [(("dual_prompt", "margin"), True), (("margin", "dual_prompt"), False)]:
        node.SCHEDULE.SAMPLERS = samplers
        assert (build_chosen("schedule", node).at(0, 0, 5).begin is not None) == begins
