"""The sampler registry, and the one place where samplers are called and their answers checked."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated

import torch
from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.kernels.scores import row_blocks
from dassl.data.dataset import Dataset
from dassl.utils.errors import ConfigError, TrainingError
from dassl.utils.paths import printable
from dassl.utils.registry import Registry


class _IsSampler:
    """Marks a parameter that names a sampler in YAML and arrives as a callable."""


SAMPLERS = Registry("sampler", "ACTIVE")
POOL_ROWS = ("ids", "features", "logits", "zero_shot_logits")  # tensors of a context with a row for each image
UPCAST_LIMIT = 2**29  # numbers of a float16 tensor that become 2 GiB in float32
LABELED_ROWS = ("labeled_ids", "labels", "labeled_features", "labeled_logits")

Sampler = Annotated[Callable[[SelectionContext], Tensor | Query], _IsSampler]


BoundSampler = Callable[[SelectionContext], Tensor | Query]


class ContractError(RuntimeError):
    """A sampler's answer, or what it was given, breaks the contract of `active.testing`."""


class NotFiniteError(ContractError):
    """Features or logits of images hold NaN or Inf; `ids` are these images."""

    def __init__(self, what: str, ids: Tensor):
        super().__init__(f"{what} of {len(ids)} images hold NaN or Inf; ids {ids[:10].tolist()}")
        self.what, self.ids = what, ids


@contextlib.contextmanager
def images_named(dataset: Dataset) -> Iterator[None]:
    """Raise TrainingError with the names of images whose features or logits are not finite, in place of their ids."""
    try:
        yield
    except NotFiniteError as error:
        paths = [printable(dataset.train[row].path) for row in error.ids.tolist()]
        more = ", ..." if len(paths) > 10 else ""
        raise TrainingError(f"the {error.what} of {len(paths)} train images hold NaN or Inf: {', '.join(paths[:10])}{more}; "
                            "the weights or the feature cache may be damaged") from error


def build_sampler(name: str, node: CfgNode) -> BoundSampler:
    """Return a sampler that already carries its parameters from the `ACTIVE` node.

    A parameter annotated `Sampler` holds the name of another sampler and is replaced by that one, built the same way.
    Raises ConfigError for an unknown name or for a sampler that wraps itself.
    """
    return _build(name, node, ())


def choosing_samplers() -> list[str]:
    """Return the names of the samplers that choose by the context: all but those that repeat a record."""
    return [component.name for component in SAMPLERS if "answers" not in component.facts]


def check_sampler_names(node: CfgNode) -> None:
    """Raise ConfigError unless every sampler that an `ACTIVE` node names is known and its parameters fit the node.

    A sampler says the latter by the fact `check`, a function of the node that raises what it finds wrong.
    """
    for sampler in (node.SAMPLER, *([node.INITIAL_SAMPLER] if node.INITIAL_SAMPLER != "auto" else [])):
        build_sampler(sampler, node)
        for name in wrapped(sampler, node):
            SAMPLERS[name].facts.get("check", lambda _: None)(node)


def check_learner(node: CfgNode, learner: str, *, has_negative_texts: bool) -> None:
    """Raise ConfigError if a sampler of an `ACTIVE` node reads negative prompts and the learner that selects has none."""
    check_sampler_names(node)
    for sampler in (initial_sampler(node), node.SAMPLER):
        for name in wrapped(sampler, node):
            if SAMPLERS[name].facts.get("needs_negative_texts") and not has_negative_texts:
                raise ConfigError(f"sampler {name!r} compares positive with negative prompts, and {learner} has no negative "
                                  "ones; set TRAINER.NAME to DualPrompt, or ACTIVE.SELECTOR_TRAINER to DualPrompt and "
                                  "TRAINER.NAME to the learner that is reported")


def initial_sampler(node: CfgNode) -> str:
    """Return the name of round 0's sampler: the one asked for, or `random` where the sampler needs labels, or itself."""
    if node.INITIAL_SAMPLER != "auto":
        return node.INITIAL_SAMPLER
    return "random" if SAMPLERS[node.SAMPLER].facts.get("needs_labels") else node.SAMPLER


def wrapped(name: str, node: CfgNode) -> list[str]:
    """Return the names of a sampler, of the one it wraps, of the one that wraps, ..."""
    component = SAMPLERS[name]
    inner = [node[component.key][parameter.key] for parameter in component.parameters if _IsSampler in parameter.extras]
    return [name, *(found for sampler in inner for found in wrapped(sampler, node))]


def warm_start(name: str, node: CfgNode, ctx: SelectionContext) -> Query | None:
    """Return what zero-shot CLIP mines before the first query of a sampler, None for samplers that do not begin so.

    A sampler registered with the fact `warm_start`, a function of the context and the sampler's parameters, begins by
    fitting the model to pseudo-labels. Raises ContractError as `select` does.
    """
    for component in (SAMPLERS[inner] for inner in wrapped(name, node)):
        if "warm_start" in component.facts:
            _check_finite(ctx)
            query = component.facts["warm_start"](ctx, **component.arguments(node[component.key]))
            _check_answer(query, replace(ctx, n_query=0))
            return query
    return None


def select(sampler: BoundSampler, ctx: SelectionContext) -> Query:
    """Return the sampler's answer to a context whose rows may stand in any order, checked.

    Rows are brought into the order of their ids first, so that no answer depends on the order of the pool. A budget at or
    above the pool is answered with the whole pool and one of 0 with nothing, without calling the sampler. Raises
    ContractError, naming the ids, if features or logits are not finite, and if the rows to ask and to pseudo-label are
    not `min(n_query, N)` distinct pool rows together, or the mined ones not others.
    """
    _check_finite(ctx)
    order, n_query = ctx.ids.argsort(), min(ctx.n_query, ctx.n_pool)
    if n_query <= 0 or n_query == ctx.n_pool:
        return Query(order[:max(n_query, 0)])
    ctx = replace(ctx, n_query=n_query, **_ordered(ctx, "ids", order, POOL_ROWS),
                  **_ordered(ctx, "labeled_ids", ctx.labeled_ids.argsort(), LABELED_ROWS))
    answer = sampler(ctx)
    query = answer if isinstance(answer, Query) else Query(torch.as_tensor(answer))
    _check_answer(query, ctx)
    return replace(query, **{rows: order[getattr(query, rows).long()] for rows in ("rows", "pseudo_rows", "mined_rows")})


def _build(name: str, node: CfgNode, inside: tuple[str, ...]) -> BoundSampler:
    if name in inside:
        raise ConfigError(f"sampler {name!r} wraps itself: {' -> '.join((*inside, name))}")
    component = SAMPLERS[name]
    arguments = component.arguments(node.get(component.key, {}))
    for parameter in component.parameters:
        if _IsSampler in parameter.extras:
            arguments[parameter.name] = _build(arguments[parameter.name], node, (*inside, name))
    return partial(component.build, **arguments)


def _ordered(ctx: SelectionContext, ids: str, order: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the named tensors with their rows in order and in float32; where they are so already, without a copy.

    float16 tensors above `UPCAST_LIMIT` stay as they are, also memory-mapped: samplers bring blocks of them to float32.
    """
    in_order = bool((getattr(ctx, ids).diff() > 0).all())
    ordered, done = {}, {}
    for name in names:
        value = getattr(ctx, name)
        if id(value) not in done:  # zero-shot logits and logits of round 0 are one tensor, and stay one
            rows = value if in_order else value[order]
            keep = not rows.is_floating_point() or (rows.dtype == torch.float16 and rows.numel() > UPCAST_LIMIT)
            done[id(value)] = rows if keep else rows.float()
        ordered[name] = done[id(value)]
    return ordered


def _check_finite(ctx: SelectionContext) -> None:
    for what in (*POOL_ROWS[1:], *LABELED_ROWS[2:]):
        values = getattr(ctx, what)
        bad = torch.cat([~torch.isfinite(values[block]).all(1) for block in row_blocks(*values.shape)] or [values.new_empty(0)])
        if bad.any():
            ids = (ctx.labeled_ids if what.startswith("labeled") else ctx.ids)[bad]
            raise NotFiniteError(what, ids)


def _check_answer(query: Query, ctx: SelectionContext) -> None:
    rows = torch.cat([query.rows, query.pseudo_rows, query.mined_rows])
    if rows.is_floating_point() or rows.dim() != 1:
        raise ContractError(f"a sampler must return a vector of row numbers, not {rows.dtype} {tuple(rows.shape)}")
    if len(query.rows) + len(query.pseudo_rows) != ctx.n_query:
        raise ContractError(f"a sampler must return {ctx.n_query} rows, not {len(query.rows) + len(query.pseudo_rows)}")
    if len(rows.unique()) != len(rows):
        raise ContractError("a sampler returned a row twice")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < ctx.n_pool:
        raise ContractError(f"a sampler returned a row outside 0..{ctx.n_pool - 1}")
    for kind in ("pseudo", "mined"):
        guessed, labels = getattr(query, f"{kind}_rows"), getattr(query, f"{kind}_labels")
        if len(guessed) != len(labels):
            raise ContractError(f"a sampler returned {len(labels)} labels for {len(guessed)} {kind} rows")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < ctx.n_classes:
            raise ContractError(f"a sampler returned a {kind} label outside 0..{ctx.n_classes - 1}")
