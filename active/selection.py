"""The one place where samplers are called and their answers checked."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.devices import CPU
from active.kernels.scores import row_blocks
from active.registry import BoundSampler, ChosenSampler
from dassl.data.dataset import Dataset
from dassl.utils.errors import TrainingError
from dassl.utils.large import single, taken, unit_rows
from dassl.utils.text import printable

POOL_ROWS = ("ids", "features", "logits", "zero_shot_logits")  # tensors of a context with a row for each image
UPCAST_LIMIT = 2**29  # numbers of a float16 tensor that become 2 GiB in float32
LABELED_ROWS = ("labeled_ids", "labels", "labeled_features", "labeled_logits")
IDS_OF = {"features": "ids", "logits": "ids", "zero_shot_logits": "ids", "labeled_features": "labeled_ids",
          "labeled_logits": "labeled_ids", "skipped_features": "skipped_ids", "skipped_logits": "skipped_ids",
          "flagged_features": "flagged_ids"}


class ContractError(RuntimeError):
    """A sampler's answer, or its input, breaks the contract of `active.testing`."""


class NotFiniteError(ContractError):
    """Features or logits of images hold NaN or Inf; `ids` are these images, or their rows where a context has no ids."""

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


def warm_start(sampler: ChosenSampler, ctx: SelectionContext) -> Query:
    """Return the zero-shot pseudo-labels that a sampler begins with, on the CPU; raises as `select` does."""
    _check_finite(ctx)
    query = sampler.begin(ctx).to(CPU)
    _check_answer(query, replace(ctx, n_query=0))
    return query


def select(sampler: BoundSampler, ctx: SelectionContext) -> Query:
    """Return the sampler's answer to a context whose rows may stand in any order, checked and on the CPU.

    Rows are brought into the order of their ids first, so that no answer depends on the order of the pool. A budget at or
    above the pool's size gives the whole pool, and one of 0 gives nothing, without calling the sampler. Raises
    ContractError, naming the ids, if features or logits are not finite, and if the rows to ask and to pseudo-label are
    not together `min(n_query, N)` distinct pool rows, or the mined rows are among them.
    """
    _check_finite(ctx)
    order, n_query = ctx.ids.argsort(), min(ctx.n_query, ctx.n_pool)
    if n_query <= 0 or n_query == ctx.n_pool:
        return Query(order[:max(n_query, 0)]).to(CPU)
    ctx = replace(ctx, n_query=n_query, **_ordered(ctx, "ids", order, POOL_ROWS),
                  **_ordered(ctx, "labeled_ids", ctx.labeled_ids.argsort(), LABELED_ROWS))
    answer = sampler(ctx)
    query = (answer if isinstance(answer, Query) else Query(torch.as_tensor(answer))).to(CPU)
    _check_answer(query, ctx)
    order = order.to(CPU)
    if query.pool_scores is not None:
        query = replace(query, pool_scores=query.pool_scores[order.argsort()])
    return query.renumbered(order)


def _ordered(ctx: SelectionContext, ids: str, order: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return the named tensors with their rows in order and in float32, without a copy where they already are.

    Features that were kept in float16 are unit rows again. float16 tensors above `UPCAST_LIMIT` stay as they are: samplers
    convert them in blocks.
    """
    in_order = bool((getattr(ctx, ids).diff() > 0).all())
    ordered, done = {}, {}
    for name in names:
        value = getattr(ctx, name)
        if id(value) not in done:  # in round 0, zero-shot logits and logits are one tensor, and stay one
            rows = value if in_order else taken(value, order)
            keep = not rows.is_floating_point() or (rows.dtype == torch.float16 and rows.numel() > UPCAST_LIMIT)
            done[id(value)] = rows if keep else unit_rows(rows) if name.endswith("features") else single(rows)
        ordered[name] = done[id(value)]
    return ordered


def _check_finite(ctx: SelectionContext) -> None:
    done: list[Tensor] = []  # in round 0, zero-shot logits and logits are one tensor
    for what, name in IDS_OF.items():
        values = getattr(ctx, what)
        if values is None or any(values is other for other in done):
            continue
        done.append(values)
        bad = torch.cat([~torch.isfinite(values[block]).all(1) for block in row_blocks(*values.shape)] or [values.new_empty(0)])
        if bad.any():
            ids = getattr(ctx, name)
            raise NotFiniteError(what, bad.nonzero().flatten() if ids is None else ids[bad])


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
    for name, n in (("scores", len(query.rows)), ("pool_scores", ctx.n_pool)):
        if (values := getattr(query, name)) is not None and values.shape != (n,):
            raise ContractError(f"a sampler returned {name} of shape {tuple(values.shape)}, not ({n},)")
    for kind in ("pseudo", "mined"):
        guessed, labels = getattr(query, f"{kind}_rows"), getattr(query, f"{kind}_labels")
        if len(guessed) != len(labels):
            raise ContractError(f"a sampler returned {len(labels)} labels for {len(guessed)} {kind} rows")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < ctx.n_classes:
            raise ContractError(f"a sampler returned a {kind} label outside 0..{ctx.n_classes - 1}")
