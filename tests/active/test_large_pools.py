"""What keeps a pool of a million images in memory: no copies, float16 rows handed out as they are, early refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import active.kernels.herding as herding
import active.kernels.memory as memory
import active.kernels.scores as scores
import active.selection as selection
from active.kernels.memory import need_memory
from active.registry import choosing_samplers
from active.selection import select
from active.testing import make_context, picks, sampler_by_name
from dassl.utils.errors import UserError

MATRICES = ("features", "logits", "zero_shot_logits", "labeled_features", "labeled_logits")


def _halves(**sizes):
    ctx = make_context(**sizes)
    return replace(ctx, **{name: getattr(ctx, name).half() for name in MATRICES})


@pytest.mark.parametrize("name", choosing_samplers())
def test_half_precision_pools_are_computed_in_single(name, monkeypatch):
    """Each sampler gets float16 in blocks of a few rows, and picks the same as from the same numbers in float32."""
    ctx, sampler = _halves(), sampler_by_name(name)
    expected = picks(sampler, ctx)
    monkeypatch.setattr(selection, "UPCAST_LIMIT", 0)
    assert picks(sampler, ctx) == expected
    monkeypatch.setattr(scores, "BLOCK", 100)
    assert picks(sampler, ctx) == expected


@pytest.mark.parametrize("name", ["random", "margin", "entropy", "coreset", "badge", "cb", "uherding"])
def test_no_sampler_of_large_pools_copies_one_in_single_precision(name, monkeypatch):
    """Each reads a few rows of a float16 pool at a time. The candidates of `uherding` are only some of its rows."""
    ctx, sampler = _halves(n_pool=300, n_query=5), sampler_by_name(name, **({"max_pool": 1} if name == "uherding" else {}))
    sizes, convert = [0], torch.Tensor.float
    monkeypatch.setattr(selection, "UPCAST_LIMIT", 0)
    monkeypatch.setattr(herding, "CANDIDATES", 50)
    monkeypatch.setattr(herding, "TARGETS", 1)
    monkeypatch.setattr(scores, "BLOCK", 100)

    def watched(rows):
        if rows.dtype == torch.float16:
            sizes.append(len(rows))
        return convert(rows)

    monkeypatch.setattr(torch.Tensor, "float", watched)
    select(sampler, ctx)
    assert max(sizes) < 100


@pytest.mark.parametrize("name", choosing_samplers())
def test_no_value_of_a_pick_keeps_the_whole_pool_alive(name, monkeypatch):
    """A view of one number holds all of its tensor: at 1.28 million images, 1,000 picks of BAIT held 10 GB."""
    stack, held, ctx = torch.stack, [0], make_context(n_query=20)

    def watched(parts, *arguments, **options):
        held.append(sum({own.untyped_storage().data_ptr(): own.untyped_storage().nbytes() for own in parts}.values()))
        return stack(parts, *arguments, **options)

    monkeypatch.setattr(torch, "stack", watched)
    select(sampler_by_name(name), ctx)
    assert max(held) <= 2 * 8 * ctx.n_pool


def test_sorted_rows_are_handed_out_without_a_copy(monkeypatch, tmp_path):
    """A sampler sees the memory-mapped file itself when the pool is in order and above the limit, and float32 below it."""
    ctx = _halves(n_pool=8, n_query=2)
    mapped = np.memmap(tmp_path / "features", np.float16, "w+", shape=tuple(ctx.features.shape))
    mapped[:] = ctx.features.numpy()
    ctx, seen = replace(ctx, features=torch.from_numpy(mapped)), []

    def sampler(inner):
        seen.append(inner.features)
        return torch.arange(2)

    select(sampler, ctx)
    monkeypatch.setattr(selection, "UPCAST_LIMIT", 0)
    select(sampler, ctx)
    assert seen[0].dtype == torch.float32
    assert seen[1].data_ptr() == ctx.features.data_ptr()


def test_a_sampler_that_does_not_fit_says_so_before_it_starts(monkeypatch):
    """Row 18: with 1 MiB free, BADGE on 70 x 5 probabilities is fine, on a thousand times as many an error of both figures."""
    monkeypatch.setattr(memory, "available_memory", lambda: 2.0**20)
    picks(sampler_by_name("badge"), make_context())
    with pytest.raises(UserError, match=r"badge needs about 2\.9 GiB of memory and 0\.0 GiB are free"):
        need_memory("badge", 4 * 70_000 * (5_000 + 2 * 3_000))


@pytest.mark.parametrize(("limit", "expected"), [("1048576\n", 2.0**20), ("max\n", None)])
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, limit, expected):
    """Its own memory is smaller than the machine's; "max" is not a limit."""
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(memory, "CGROUP_FILES", (str(tmp_path / "memory.max"), str(tmp_path / "absent")))
    assert memory.total_memory() == (expected or memory._physical_memory())
    assert memory.available_memory() <= memory.total_memory()


def test_available_memory_is_that_of_this_machine():
    """More than this test uses and less than a petabyte."""
    assert 2**26 < memory.available_memory() < 2**50


def test_a_subset_of_a_half_precision_pool_is_unit_rows(monkeypatch):
    """Lengths of float16 rows are off by 1e-5."""
    rows, own = [], herding.Herd
    monkeypatch.setattr(selection, "UPCAST_LIMIT", 0)
    monkeypatch.setattr(herding, "Herd", lambda features, *rest: rows.append(features) or own(features, *rest))
    select(sampler_by_name("uherding", max_pool=1), _halves(n_pool=300, n_query=5))
    assert (rows[0].norm(dim=1) - 1).abs().max() < 1e-6
