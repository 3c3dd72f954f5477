"""Every registered sampler under the contract kit, and the kit under samplers that break it."""

import numpy as np
import pytest
import torch

import active.testing as kit
from active.registry import choosing_samplers
from active.selection import ContractError
from active.testing import CHECKS, make_context, picks, sampler_by_name, sampler_contract
from dassl.utils.allocation import freed_memory_kept


@sampler_contract(*choosing_samplers())
def test_every_sampler_keeps_the_contract(check):
    """Rows 4, 5 and 6: each check of the kit passes for each sampler in `active/samplers/`."""
    check()


VARIANTS = [
    ("alfa_mix", {"delta": 0.05}), ("cb", {"fusion": "mean"}), ("cbsq", {"fusion": "mean", "factor": 1}),
    ("cec", {"prior_support": "union", "kernel": "rbf", "combine": "convex", "over": "all", "prior_floor": 1e-6}),
    ("cec", {"choose": "k_means", "calibrate": False}), ("cec", {"choose": "top"}), ("coreset", {"start": "medoid"}),
    ("dual_prompt", {"remainder": "global", "k": 2}), ("gcnal", {"variant": "uncertain", "subset": 0, "steps": 20}),
    ("pcb", {"mode": "reference"}), ("pcb", {"within": "random", "gamma": 1.0}), ("pcb", {"base": "badge"}),
    ("pcb", {"base": "coreset"}), ("pcb", {"base": "random"}), ("probcover", {"delta": 0.4}),
    ("purity", {"unflagged": "texts"}), ("purity", {"unflagged": "texts", "base": "typiclust"}),
    ("purity", {"rule": "negative"}),
    ("schedule", {"by": "rounds", "samplers": ("cbsq", "coreset", "badge"), "starts": (0.0, 1.0, 2.0)}),
    ("typiclust", {"max_clusters": 4}), *((name, {"max_pool": 1}) for name in (
        "cec", "dcom", "maxherding", "probcover", "uherding")),
]


@pytest.mark.parametrize("check", [check for check in CHECKS if check is not kit.check_scale])
@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
def test_every_variant_keeps_the_contract(name, parameters, check):
    """All checks but the one of scale, on the parameters that lead through other code than the defaults."""
    check(sampler_by_name(name, **parameters))


def _first(ctx):
    return torch.arange(ctx.n_query)


def _repeats(ctx):
    return torch.zeros(ctx.n_query, dtype=torch.int64)


def _too_few(ctx):
    return torch.arange(ctx.n_query - 1)


def _outside(ctx):
    return torch.arange(ctx.n_query) + ctx.n_pool


def _global_state(ctx):
    return torch.randperm(ctx.n_pool)[: ctx.n_query]


def _numpy_state(ctx):
    return torch.from_numpy(np.random.permutation(ctx.n_pool)[: ctx.n_query])  # noqa: NPY002


def _modifies(ctx):
    ctx.features.zero_()
    return _first(ctx)


def _needs_labels(ctx):
    return ctx.labels.mode().values * 0 + _first(ctx)


def _unseeded(ctx):
    return torch.from_numpy(np.random.default_rng().permutation(ctx.n_pool)[: ctx.n_query])


def _dense(ctx):
    return ctx.features.new_ones(ctx.n_pool, ctx.n_pool).sum(1).argsort()[: ctx.n_query]


@pytest.mark.parametrize(("sampler", "check"), [
    (_repeats, "check_budget"), (_too_few, "check_budget"), (_outside, "check_pool_sizes"), (_repeats, "check_duplicates"),
    (_global_state, "check_global_random_state"), (_numpy_state, "check_global_random_state"),
    (_modifies, "check_inputs_unmodified"), (_needs_labels, "check_cold_start"), (_unseeded, "check_same_seed"),
    (_dense, "check_scale"),
])
def test_the_kit_catches_a_broken_sampler(sampler, check, monkeypatch):
    """Each fault is found by the check that is made for it."""
    monkeypatch.setattr(kit, "MAX_GROWTH_GIB", 0.2)
    monkeypatch.setattr(kit, "SCALE", 10_000)
    with freed_memory_kept():
        if check == "check_scale":
            torch.ones(2**27)  # 0.5 GiB that the process has had before, and may use again
        with pytest.raises((AssertionError, ContractError, IndexError)):
            getattr(kit, check)(sampler)


def test_a_sound_sampler_passes_every_check():
    """The kit does not refuse the simplest sound sampler: the first rows of the pool."""
    for check in CHECKS:
        check(_first)


def test_a_sampler_that_reads_row_order_outside_the_ids_is_not_possible():
    """`select` sorts rows by id, so even a sampler that returns its first rows picks the lowest ids."""
    ctx = make_context()
    assert picks(_first, ctx) == sorted(ctx.ids.tolist())[: ctx.n_query]
