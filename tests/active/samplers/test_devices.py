"""Samplers on a pretended card: the picks are those of the CPU, and the number of waits for the card is known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import active.samplers.replay as replaying
import active.selection as selection
from active.registry import SAMPLERS, build_chosen, choosing_samplers
from active.relations import Relations
from active.selection import select, warm_start
from active.testing import make_context, sampler_by_name, sampler_node, without_labels
from dassl.utils.errors import UserError
from dassl.utils.seeding import rng_for
from tests.active.test_contract import VARIANTS
from tests.pretend_cuda import pretend_cuda

CUDA = torch.device("cuda")
SHORT = {"activeft": {"steps": 10}, "gcnal": {"steps": 10}}  # each of hundreds of steps is the same
ALL = [(name, SHORT.get(name, {})) for name in choosing_samplers()] + VARIANTS + [
    ("promptherding", {"kernel": "guided"}), ("promptherding", {"kernel": "plain", "balance": 0.0}),
    ("promptherding", {"max_pool": 1}), ("uherding", {"radius": "mass", "cold": "zero_shot"}),
    ("activeft", {"max_rows": 20, "steps": 10}), ("purity", {"min_flags": 2}), ("purity", {"rule": "negative"})]

# read-backs a further pick, rounded up, on a pool of 400; beside them a selection has at most `ONCE`
A_PICK = {
    "activeft": 0, "coreset": 0, "dual_prompt": 0, "entropy": 0, "gcnal": 0, "least_confidence": 0, "margin": 0, "pcb": 0,
    "pcoreset": 0, "purity": 0, "random": 0, "replay": 0, "schedule": 0, "tcm": 0, "tfs": 0,
    "badge": 1, "bait_binary": 1, "dcom": 2, "maxherding": 3, "promptherding": 3, "uherding": 3, "probcover": 5,
    "alfa_mix": 3, "cec": 3, "dropquery": 3,  # a seed of k-means each
    "cb": 0, "cbsq": 0,  # as many clusters as classes and labels
    "typiclust": 6}  # a seed of k-means, and the neighbors in a cluster
ONCE = 200


def _usual(**sizes):
    return make_context(**({"n_pool": 90, "width": 16, "n_query": 12} | sizes))


def _halves():
    ctx = _usual()
    names = ("features", "logits", "zero_shot_logits", "labeled_features", "labeled_logits")
    return replace(ctx, **{name: getattr(ctx, name).half() for name in names})


def _with_others():
    """A context with skipped and flagged images, shuffled, that knows the relations of its train split."""
    ctx = _usual(n_pool=110)
    split = torch.empty(ctx.n_total, 16)
    split[ctx.ids], split[ctx.labeled_ids] = ctx.features, ctx.labeled_features
    pool, skipped, flagged = torch.from_numpy(rng_for(0, "rows").permutation(110)).split([90, 14, 6])
    return replace(ctx, ids=ctx.ids[pool], features=ctx.features[pool], logits=ctx.logits[pool],
                   zero_shot_logits=ctx.zero_shot_logits[pool], skipped_ids=ctx.ids[skipped], relations=Relations(split),
                   skipped_features=ctx.features[skipped], skipped_logits=ctx.logits[skipped],
                   flagged_features=ctx.features[flagged])


CONTEXTS = {"usual": _usual, "without labels": lambda: without_labels(_usual()), "float16": _halves, "others": _with_others}


def _answer(sampler, ctx):
    """Return the query's tensors by name; they are on the CPU."""
    found = vars(select(sampler, replace(ctx, rng=rng_for(0, "picks"))))
    tensors = {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
    assert {type(value) for value in tensors.values()} == {torch.Tensor}
    return tensors


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize(("name", "parameters"), ALL)
def test_a_sampler_on_a_card_picks_what_it_picks_on_the_cpu(name, parameters, context, monkeypatch):
    """No operation mixes devices, random numbers are the CPU's, and rows, labels and scores come back to the CPU, the same."""
    if context == "float16":
        monkeypatch.setattr(selection, "UPCAST_LIMIT", 0)
    ctx, sampler = CONTEXTS[context](), sampler_by_name(name, **parameters)
    expected = _answer(sampler, ctx)
    with pretend_cuda():
        found = _answer(sampler, ctx.to(CUDA))
    assert found.keys() == expected.keys()
    for what in expected:
        assert torch.equal(found[what].nan_to_num(nan=7), expected[what].nan_to_num(nan=7)), what
        assert found[what].dtype == expected[what].dtype


def _replays(ctx, n_query, monkeypatch):
    """Let `replay` repeat a record of the first rows of the pool."""
    parts = [[str(number) for number in ctx.ids[:n_query].tolist()]]
    record = SimpleNamespace(rounds=[SimpleNamespace(parts=parts, pseudo_labeled={})] * 2)
    monkeypatch.setattr(replaying, "_record", lambda results: record)
    return replace(ctx, find=int)


def _read_backs(name, n_query, monkeypatch):
    """Return how often a sampler's answer of some picks makes the host wait, on a pool of 400."""
    ctx, sampler = make_context(n_pool=400, width=16, n_query=n_query), sampler_by_name(name, **SHORT.get(name, {}))
    if name == "replay":
        ctx = _replays(ctx, n_query, monkeypatch)
    with pretend_cuda() as card:
        there = ctx.to(CUDA)
        card.forget()
        sampler(there)
        return card.n_read_backs


@pytest.mark.parametrize("name", A_PICK)
def test_how_often_a_pick_waits_for_the_card(name, monkeypatch):
    """It is measured between 10 and 20 picks, before balls cover everything. A figure that falls must be updated too."""
    few, many = (_read_backs(name, n_query, monkeypatch) for n_query in (10, 20))
    assert A_PICK[name] - 1 < (many - few) / 10 <= A_PICK[name]
    assert few - 10 * A_PICK[name] <= ONCE


def test_every_sampler_has_its_figure():
    """A new sampler needs one as well."""
    assert A_PICK.keys() == {component.name for component in SAMPLERS}


def test_replayed_rows_come_back_to_the_cpu(monkeypatch):
    """This sampler is the only one that does not choose."""
    ctx = _replays(_usual(), 12, monkeypatch)
    with pretend_cuda():
        assert _answer(sampler_by_name("replay"), ctx.to(CUDA))["rows"].tolist() == list(range(12))


def test_what_is_mined_before_the_first_round_comes_back_to_the_cpu():
    """This is the warm start of `dual_prompt`."""
    ctx, sampler = replace(without_labels(_usual()), n_query=0), build_chosen("dual_prompt", sampler_node())
    expected = warm_start(sampler, ctx)
    with pretend_cuda():
        found = warm_start(sampler, ctx.to(CUDA))
    assert type(found.mined_rows) is torch.Tensor
    assert torch.equal(found.mined_rows, expected.mined_rows)
    assert torch.equal(found.mined_labels, expected.mined_labels)


def test_the_memory_that_counts_is_the_card_s(monkeypatch):
    """With 1 KiB free on the card, BADGE does not start, however much memory the machine has."""
    with pretend_cuda():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**10, 2**30))
        with pytest.raises(UserError, match=r"badge needs about .* choose ACTIVE\.DEVICE cpu, another sampler or a smaller"):
            select(sampler_by_name("badge"), _usual().to(CUDA))


def test_one_tensor_of_a_context_stays_one_on_the_card():
    """Zero-shot logits that are those of round 0 are copied only once. Derived values are computed on the card."""
    ctx = _usual()
    ctx = replace(ctx, zero_shot_logits=ctx.logits)
    assert ctx.to(torch.device("cpu")) is ctx
    assert len(ctx.probs) == len(ctx.unlabeled_features) == 90
    with pretend_cuda() as card:
        there = ctx.to(CUDA)
        assert there.logits is there.zero_shot_logits
        assert there.probs.device == there.permutation(3).device == there.device == torch.device("cuda:0")
        assert card.uploads.total() == 10  # nine tensors and the permutation


