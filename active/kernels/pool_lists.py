"""Neighbor lists among the images that a sampler looks at, out of those of the whole train split."""

import torch
from torch import Tensor

from active.context import SelectionContext
from active.kernels.neighbor_lists import NeighborLists, exact_lists, neighbor_lists
from active.kernels.scores import row_blocks
from active.relations import Relations, all_pairs

KEPT = 10_000  # rows from which exact lists are made once and kept; of fewer they are a matter of a second
FEW = 0.02  # share of rows up to which those that lack neighbors are compared with all others
LARGER = 1.5  # times the rows that are asked for, a split is compared in their place, however large: once for all rounds


def pool_lists(ctx: SelectionContext, features: Tensor, k: int, *, exact: bool, max_pool: int) -> NeighborLists:
    """Return lists of k neighbors of unlabeled images, and of labeled ones if `features` [n, D] hold them behind these.

    `exact` ones are of all pairs: of those of the train split if they are known and worth keeping, or of these features. Of a
    split of more than `max_pool` images they are only if it is hardly larger than these features.

    Numbers are places in `features`, on whose device the lists are. Neighbors not among them are left out; a row that keeps
    fewer than k is compared with all others. With too many such rows, lists are made of these features alone first.
    """
    make, k = (all_pairs if exact else neighbor_lists), min(k, len(features) - 1)
    if exact and (ctx.relations is None or len(features) < KEPT):
        return make(features, k)
    relations, rows = whole_split(ctx, features)
    if exact and len(relations.features) > max(max_pool, LARGER * len(features)):
        return make(features, k)
    near = among(relations.neighbors(k, exact=exact, device=features.device), rows, k)
    if len(short := _short(near)) > FEW * len(features):
        near = make(features, k)
        short = _short(near)
    for part in short.split(1024) if len(short) else ():
        near.rows[part], near.cosines[part] = exact_lists(features, part, k)
    return near


def whole_split(ctx: SelectionContext, features: Tensor) -> tuple[Relations, Tensor]:
    """Return the relations of the train split and the places of `features` there; without them those of `features`."""
    ids = [ctx.ids, *([] if ctx.skipped_ids is None else [ctx.skipped_ids]), ctx.labeled_ids]
    if ctx.relations is None or (ctx.skipped_features is not None and ctx.skipped_ids is None):
        return Relations(features), torch.arange(len(features), device=features.device)
    return ctx.relations, torch.cat(ids)[: len(features)]


def among(lists: NeighborLists, rows: Tensor, k: int) -> NeighborLists:
    """Return the lists of some rows [n] with the first k neighbors that are among them; numbers are places in `rows`."""
    place = lists.rows.new_full((len(lists.rows),), -1)
    place[rows] = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
    k = min(k, lists.rows.shape[1])
    near = NeighborLists(lists.rows.new_empty(len(rows), k), lists.cosines.new_empty(len(rows), k), lists.facts)
    for block in row_blocks(len(rows), 16 * lists.rows.shape[1]):
        own = lists.rows[rows[block]].long()
        places = place[own.clamp(min=0)].where(own >= 0, -1)
        order = (places < 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
        near.rows[block] = places.gather(1, order)
        near.cosines[block] = lists.cosines[rows[block]].gather(1, order).where(near.rows[block] >= 0, -torch.inf)
    return near


def _short(near: NeighborLists) -> Tensor:
    """Return the rows whose lists are not full."""
    return (near.rows < 0).any(1).nonzero().flatten()
