"""The contract that every sampler must keep, for samplers of this project and of others.

    from active.testing import sampler_contract

    @sampler_contract("my_sampler", plugins=["path/to/my_sampler.py"])
    def test_contract(check):
        check()

The checks call the sampler through `active.selection.select`, as the loop does, so what `select` refuses fails here too.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.oracles.oracle import Oracle
from active.pool import LabelPool
from active.registry import SAMPLERS, build_sampler
from active.selection import ContractError, select
from dassl.config.defaults import default_config
from dassl.config.setup import add_component_nodes, load_plugin
from dassl.utils.environment import forget_peak, peak_resident_mb
from dassl.utils.seeding import rng_for

BoundSampler = Callable[[SelectionContext], "Tensor | Query"]

SCALE = 25_000  # pool of the time and memory check
MAX_SECONDS, MAX_GROWTH_GIB = 30.0, 1.5


def sampler_contract(*names: str, plugins: Sequence[str] = ()) -> Any:
    """Return a pytest decorator that runs every check on registered samplers, with the defaults of their YAML nodes."""
    import pytest

    for plugin in plugins:
        load_plugin(plugin)
    cases = [pytest.param(partial(check, sampler_by_name(name)), id=f"{name}-{check.__name__.removeprefix('check_')}")
             for name in names for check in CHECKS]
    return pytest.mark.parametrize("check", cases)


def sampler_by_name(name: str, **parameters: Any) -> BoundSampler:
    """Return a registered sampler with its default parameters, or the ones given."""
    component = SAMPLERS[name]
    node = sampler_node()
    for key, value in parameters.items():
        node[component.key][key.upper()] = value
    return build_sampler(name, node)


def sampler_node() -> CfgNode:
    """Return an `ACTIVE` node with the default parameters of every registered sampler."""
    cfg = default_config()
    add_component_nodes(cfg, SAMPLERS)
    return cfg.ACTIVE


def make_context(
    seed: int = 0, *, n_pool: int = 70, n_labeled: int = 12, n_classes: int = 5, width: int = 8, n_query: int = 6
) -> SelectionContext:
    """Return a random context: unit-norm features, texts near the class means, logits at scale 20, interleaved ids."""
    rng, n_total = np.random.default_rng(seed), n_pool + n_labeled
    centers = rng.normal(size=(n_classes, width))
    truth = rng.integers(n_classes, size=n_total)
    features = _unit(centers[truth] + 0.8 * rng.normal(size=(n_total, width)))
    texts = _unit(centers + 0.5 * rng.normal(size=centers.shape))
    logits, zero_shot = 20 * features @ texts.T, 20 * features @ _unit(texts + 0.1 * torch.from_numpy(centers).float()).T
    labeled, pool = (torch.from_numpy(np.sort(ids)) for ids in np.split(rng.permutation(n_total), [n_labeled]))
    return SelectionContext(
        ids=pool, features=features[pool], logits=logits[pool], zero_shot_logits=zero_shot[pool], labeled_ids=labeled,
        labeled_features=features[labeled], labeled_logits=logits[labeled], labels=torch.from_numpy(truth)[labeled],
        text_features=texts, n_query=n_query, round=1, n_total=n_total, rng=rng_for(seed, "contract"),
        negative_text_features=_unit(rng_for(seed, "negative").normal(size=centers.shape)))


def small_pools(n: int = 200, **sizes: int) -> Iterator[SelectionContext]:
    """Yield n small random contexts of varying sizes, for comparing a sampler with a slow reference."""
    for seed in range(n):
        rng = np.random.default_rng([seed, 1])
        varied = {"n_pool": int(rng.integers(2, 40)), "n_labeled": int(rng.integers(1, 20)),
                  "n_classes": int(rng.integers(2, 7)), "width": int(rng.integers(2, 9)), "n_query": int(rng.integers(1, 12))}
        yield make_context(seed, **(varied | sizes))


def without_labels(ctx: SelectionContext) -> SelectionContext:
    """Return the context with an empty labeled set, as in round 0."""
    return replace(ctx, labeled_ids=ctx.labeled_ids[:0], labeled_features=ctx.labeled_features[:0],
                   labeled_logits=ctx.labeled_logits[:0], labels=ctx.labels[:0], round=0)


def picks(sampler: BoundSampler, ctx: SelectionContext) -> list[int]:
    """Return the ids that a sampler asks for, in order, from a fresh random stream and after checking the answer."""
    return answer(sampler, ctx)[0]


def answer(sampler: BoundSampler, ctx: SelectionContext) -> tuple[list[int], dict[int, int], dict[int, int]]:
    """Return what `picks` does, and the labels that the sampler itself gives to pseudo-labeled and to mined ids."""
    query = select(sampler, replace(ctx, rng=rng_for(0, "picks")))
    assert len(set(query.rows.tolist())) == len(query.rows), "a row is asked twice"
    ids = ctx.ids.cpu()
    pseudo, mined = (dict(zip(ids[rows].tolist(), labels.tolist(), strict=True)) for rows, labels in (
        (query.pseudo_rows, query.pseudo_labels), (query.mined_rows, query.mined_labels)))
    return ids[query.rows].tolist(), pseudo, mined


def check_budget(sampler: BoundSampler) -> None:
    """The answer has min(n_query, N) rows for n_query 0, 1, N - 1, N and above N; at N the whole pool."""
    ctx = make_context()
    for n_query in (0, 1, 6, ctx.n_pool - 1, ctx.n_pool, ctx.n_pool + 5):
        query = select(sampler, replace(ctx, n_query=n_query))
        assert len(query.rows) + len(query.pseudo_rows) == min(n_query, ctx.n_pool)


def check_pool_sizes(sampler: BoundSampler) -> None:
    """Pools of one row, of two, and around multiples of usual batch sizes work."""
    for n_pool in (1, 2, 31, 32, 33, 63, 64, 65):
        picks(sampler, make_context(n_pool=n_pool, n_query=min(7, n_pool)))


def check_one_class(sampler: BoundSampler) -> None:
    """A single class works, with and without labels."""
    picks(sampler, make_context(n_classes=1))
    picks(sampler, without_labels(make_context(n_classes=1)))


def check_cold_start(sampler: BoundSampler) -> None:
    """An empty labeled set works."""
    picks(sampler, without_labels(make_context()))


def check_identical_features(sampler: BoundSampler) -> None:
    """A pool of copies of a single image works, with and without that image labeled."""
    ctx = make_context()
    same = replace(ctx, features=ctx.features[:1].expand_as(ctx.features), logits=ctx.logits[:1].expand_as(ctx.logits),
                   zero_shot_logits=ctx.zero_shot_logits[:1].expand_as(ctx.logits))
    picks(sampler, same)
    picks(sampler, replace(same, labeled_features=ctx.features[:1].expand_as(ctx.labeled_features)))


def check_duplicates(sampler: BoundSampler) -> None:
    """In a pool with duplicate images, no row is picked twice, at any budget."""
    ctx, twice = make_context(n_query=30), torch.arange(70) // 2
    double = replace(ctx, features=ctx.features[twice], logits=ctx.logits[twice], zero_shot_logits=ctx.zero_shot_logits[twice])
    for n_query in (1, 30, 69):
        picks(sampler, replace(double, n_query=n_query))


def check_equal_scores(sampler: BoundSampler) -> None:
    """Uniform probabilities for every row work."""
    ctx = make_context()
    picks(sampler, replace(ctx, logits=torch.zeros_like(ctx.logits), zero_shot_logits=torch.zeros_like(ctx.logits)))


def check_saturated(sampler: BoundSampler) -> None:
    """Probabilities that are exactly one-hot in float32 work."""
    ctx = make_context()
    saturated = 1e4 * F.one_hot(ctx.logits.argmax(1), ctx.n_classes).float()
    picks(sampler, replace(ctx, logits=saturated, zero_shot_logits=saturated))


def check_not_finite(sampler: BoundSampler) -> None:
    """NaN and Inf in features or logits raise ContractError with the ids of the rows."""
    ctx = make_context()
    for what in ("features", "logits"):
        for bad in (float("nan"), float("inf")):
            values = getattr(ctx, what).clone()
            values[3, 1] = bad
            try:
                select(sampler, replace(ctx, **{what: values}))
            except ContractError as error:
                assert str(ctx.ids[3].item()) in str(error)
            else:
                raise AssertionError(f"{bad} in {what} was not refused")


def check_same_seed(sampler: BoundSampler) -> None:
    """The same context and the same random stream give the same picks in the same order, and the same labels."""
    assert answer(sampler, make_context()) == answer(sampler, make_context())


def check_global_random_state(sampler: BoundSampler) -> None:
    """The global generators of Python, NumPy and torch are neither read nor moved."""
    before = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        before.append(answer(sampler, make_context()))
        assert random.getstate() == states[0], "Python's global generator was moved"
        assert np.random.get_state()[1].tolist() == states[1], "NumPy's global generator was moved"  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), states[2]), "torch's global generator was moved"
    assert before[0] == before[1], "the picks depend on a global generator"


def check_inputs_unmodified(sampler: BoundSampler) -> None:
    """No tensor of the context is written to."""
    ctx, untouched = make_context(), make_context()
    sampler(ctx)  # not through `select`, which passes copies of rows that it reorders
    for name, value in vars(untouched).items():
        if isinstance(value, Tensor):
            assert torch.equal(getattr(ctx, name), value), f"{name} was modified"


def check_row_order(sampler: BoundSampler) -> None:
    """Permuting the rows of pool and labeled set changes nothing: the same ids, in the same order."""
    ctx, rng = make_context(), np.random.default_rng(5)
    pool, labeled = (torch.from_numpy(rng.permutation(size)) for size in (ctx.n_pool, len(ctx.labels)))
    shuffled = replace(
        ctx, ids=ctx.ids[pool], features=ctx.features[pool], logits=ctx.logits[pool],
        zero_shot_logits=ctx.zero_shot_logits[pool], labeled_ids=ctx.labeled_ids[labeled],
        labeled_features=ctx.labeled_features[labeled], labeled_logits=ctx.labeled_logits[labeled], labels=ctx.labels[labeled])
    assert answer(sampler, shuffled) == answer(sampler, ctx)


def check_skipped(sampler: BoundSampler) -> None:
    """Images that people could not label are never asked, however a sampler uses them, and the answer repeats."""
    ctx = make_context(n_pool=50, n_labeled=8)
    rest, skipped = slice(0, 40), slice(40, 50)
    ctx = replace(ctx, ids=ctx.ids[rest], features=ctx.features[rest], logits=ctx.logits[rest],
                  zero_shot_logits=ctx.zero_shot_logits[rest], skipped_features=ctx.features[skipped],
                  skipped_logits=ctx.logits[skipped])
    for n_query in (6, 39):
        assert picks(sampler, replace(ctx, n_query=n_query)) == picks(sampler, replace(ctx, n_query=n_query))


def check_dtypes(sampler: BoundSampler) -> None:
    """Values that float16 can hold give the same picks as float16, float32 and float64."""
    ctx = make_context()
    halves = {name: getattr(ctx, name).half()
              for name in ("features", "logits", "zero_shot_logits", "labeled_features", "labeled_logits")}
    answers = [answer(sampler, replace(ctx, **{name: value.to(dtype) for name, value in halves.items()}))
               for dtype in (torch.float16, torch.float32, torch.float64)]
    assert answers[0] == answers[1] == answers[2]


def check_card(sampler: BoundSampler) -> None:
    """If there is a card, the sampler works on a context that lies on it; picks may differ from the CPU's by rounding."""
    if torch.cuda.is_available():
        for ctx in (make_context(), without_labels(make_context())):
            assert len(picks(sampler, ctx.to(torch.device("cuda")))) <= ctx.n_query


def check_poisoned_labels(sampler: BoundSampler) -> None:
    """Wrong labels for every image that is never asked change no pick of any round, and no label that the sampler gives."""
    labels = torch.from_numpy(np.random.default_rng(3).integers(5, size=90))
    answers = simulate(sampler, labels)
    poisoned = (labels + 1) % 5
    given = torch.tensor([row for asked, _, _ in answers for row in asked])
    poisoned[given] = labels[given]
    assert simulate(sampler, poisoned) == answers


def check_restart(sampler: BoundSampler) -> None:
    """A run whose state was written and read back in the middle goes on with the same picks."""
    labels = torch.from_numpy(np.random.default_rng(3).integers(5, size=90))
    assert simulate(sampler, labels, restart=True) == simulate(sampler, labels)


def check_scale(sampler: BoundSampler) -> None:
    """25,000 rows, 10 classes and 100 picks stay below 30 s of CPU time and 1.5 GiB of further memory (no N x N matrix)."""
    ctx = make_context(n_pool=SCALE, n_labeled=100, n_classes=10, width=64, n_query=100)
    forget_peak()  # else an earlier peak of the process would hide this one
    before, start = peak_resident_mb(), time.process_time()
    picks(sampler, ctx)
    seconds, growth = time.process_time() - start, (peak_resident_mb() - before) / 2**10
    assert seconds < MAX_SECONDS, f"took {seconds:.0f} s of CPU time"
    assert growth < MAX_GROWTH_GIB, f"took {growth:.1f} GiB"


def simulate(sampler: BoundSampler, labels: Tensor, *, n_rounds: int = 4, restart: bool = False) -> list[tuple]:
    """Return the answer (see `answer`) in each round of a small run whose model is the nearest class mean."""
    base, pool = make_context(seed=7, n_pool=len(labels), n_labeled=0), LabelPool(len(labels))
    features, texts, oracle, answers = base.features, base.text_features, Oracle(labels, budget=len(labels)), []
    for round in range(n_rounds):
        if restart and round == 2:
            pool = _restored(json.loads(json.dumps({"round_of": pool.round_of.tolist(), "labels": pool.labels.tolist()})))
        logits = 20 * features @ _class_means(features, pool, texts).T
        rows, labeled = pool.unlabeled, pool.labeled
        answers.append(answer(sampler, replace(
            base, ids=rows, features=features[rows], logits=logits[rows], zero_shot_logits=(20 * features @ texts.T)[rows],
            labeled_ids=labeled, labeled_features=features[labeled], labeled_logits=logits[labeled], labels=pool.labels,
            round=round, n_total=len(labels))))
        asked, guessed = (torch.tensor(list(rows), dtype=torch.int64) for rows in answers[-1][:2])
        pool.acquire(asked, oracle.label(asked), round)
        pool.acquire(guessed, torch.tensor([answers[-1][1][row] for row in guessed.tolist()]).long(), round, pseudo=True)
    return answers


def _restored(state: dict) -> LabelPool:
    round_of, labels = torch.tensor(state["round_of"]), torch.tensor(state["labels"])
    pool = LabelPool(len(round_of))
    for round in range(int(round_of.max()) + 1):
        pool.acquire((round_of == round).nonzero().flatten(), labels[round_of[round_of >= 0] == round], round)
    return pool


def _class_means(features: Tensor, pool: LabelPool, texts: Tensor) -> Tensor:
    means = texts.clone()
    for label in pool.labels.unique().tolist():
        means[label] = features[pool.labeled[pool.labels == label]].mean(0)
    return F.normalize(means, dim=1)


def _unit(rows: np.ndarray | Tensor) -> Tensor:
    return F.normalize(torch.as_tensor(rows).float(), dim=1)


CHECKS: tuple[Callable[[BoundSampler], None], ...] = (
    check_budget, check_pool_sizes, check_one_class, check_cold_start, check_identical_features, check_duplicates,
    check_equal_scores, check_saturated, check_not_finite, check_same_seed, check_global_random_state,
    check_inputs_unmodified, check_row_order, check_skipped, check_dtypes, check_card, check_poisoned_labels, check_restart,
    check_scale)
