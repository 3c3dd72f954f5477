"""PCB: pseudo-class balance over the candidates of another sampler.

Source: Bang, Ahn and Park, "Active Prompt Learning in Vision Language Models", CVPR 2024, Section 3.2 and Algorithm 1. A base
sampler proposes gamma times the original train split; of these, labels go to the predicted classes with fewest labels. `mode:
reference` follows the authors' code: when the class with fewest labels has no candidate, a random candidate is picked and no
count grows, so that class stays the smallest and all later picks are random. `mode: repaired` goes on to the next smallest
class that has a candidate. Within a class it keeps the base sampler's order (`within: rank`) or shuffles (`within: random`, as
the reference always does).
Differences in both modes: never fewer than `n_query` candidates (endless loop there); `random` as the base proposes as many as
any other. The base is any sampler that does not label images itself; the paper's are entropy, coreset and badge. BADGE is the
best and, with one pass for each of the gamma N candidates, the slowest. The paper's first round is random.
"""

import heapq
from collections import deque
from dataclasses import replace
from typing import Annotated, Literal

import torch
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.registry import SAMPLERS, Sampler, refuse_own_labels, refuse_records, wrapped
from dassl.utils.registry import AtLeast, AtMost


def check_base(node: CfgNode) -> None:
    """Raise ConfigError for a base that labels images itself, whose labels would be lost, or that repeats a record."""
    refuse_records("PCB.BASE", wrapped("pcb", node)[1:])
    refuse_own_labels("PCB.BASE", wrapped("pcb", node)[1:], "pcb balances what is asked")


@SAMPLERS.register("pcb", needs_labels=True, check=check_base)
def pcb(
    ctx: SelectionContext, *, base: Sampler = "margin", gamma: Annotated[float, AtLeast(0), AtMost(1)] = 0.1,
    mode: Literal["repaired", "reference"] = "repaired", within: Literal["rank", "random"] = "rank",
) -> Query:
    """Return `n_query` of the base sampler's candidates, balanced over labels so far and predicted classes."""
    n_candidates = min(max(int(gamma * ctx.n_total + 1e-9), ctx.n_query), ctx.n_pool)  # 0.29 * 100 is 28.999999999999996
    answer = base(replace(ctx, n_query=n_candidates))
    answer = answer if isinstance(answer, Query) else Query(answer)
    candidates, pool_scores = answer.rows, answer.pool_scores
    score_of = None if answer.scores is None else dict(zip(candidates.tolist(), answer.scores.tolist(), strict=True))
    if mode == "reference" or within == "random":
        candidates = candidates[torch.from_numpy(ctx.rng.permutation(len(candidates)))]
    queues = [deque() for _ in range(ctx.n_classes)]
    for row, predicted in zip(candidates.tolist(), ctx.logits[candidates].argmax(1).tolist(), strict=True):
        queues[predicted].append(row)
    heap = [(count, label) for label, count in enumerate(ctx.labels.bincount(minlength=ctx.n_classes).tolist())]
    heapq.heapify(heap)
    spare = candidates[torch.from_numpy(ctx.rng.permutation(len(candidates)))].tolist() if mode == "reference" else []
    picked: dict[int, None] = {}
    while len(picked) < min(ctx.n_query, len(candidates)):
        count, label = heap[0]
        while queues[label] and queues[label][0] in picked:  # already picked as a random candidate
            queues[label].popleft()
        if queues[label]:
            picked[queues[label].popleft()] = None
            heapq.heapreplace(heap, (count + 1, label))
        elif mode == "repaired":
            heapq.heappop(heap)
        else:
            picked[next(row for row in iter(spare.pop, None) if row not in picked)] = None
    scores = None if score_of is None else torch.tensor([score_of[row] for row in picked])
    return Query(torch.tensor(list(picked), dtype=torch.int64), scores=scores, pool_scores=pool_scores,
                 approximation=answer.approximation)
