"""What a round asks: its query, further ones that replace skipped images, and the answers."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from active.context import Query, SelectionContext
from active.explained import score_table, without_scores
from active.oracles.asked import stands_on
from active.oracles.oracle import Question
from active.plan import ASKS_A_LABEL, Predicted, Run, State
from active.record.folder import scores_path
from active.relations import Relations
from active.selection import select
from dassl.data.answers import SKIP
from dassl.data.dataset import UNLABELED
from dassl.utils.events import event
from dassl.utils.files import write_text
from dassl.utils.large import taken, unit_rows
from dassl.utils.seeding import rng_for

logger = logging.getLogger(__name__)


def asked(plan: Run, state: State, round: int) -> tuple[list[Query], dict[int, int], dict[int, int]]:
    """Ask the query of a round and, where the run refills, further ones for skipped images; return all of them.

    Also return, by row, people's answers for images that have no label in the data set, and corrections of earlier answers.
    Corrections take effect once the round is over.
    """
    before = dict(plan.oracle.said(plan.oracle.answered_before.nonzero().flatten().tolist()))
    queries, given, corrected = [], {}, {}
    while ((n_query := _n_wanted(plan, state, round, queries)) and len(state.pool.unlabeled)) or not queries:
        part, basis = len(queries), stands_on(state.config, state.pool)
        audit = plan.audit_rows(round, part)
        event("before-select")
        query = plan.oracle.asked(round, part, basis) or state.timed("select", _select, plan, state, round, part, n_query)
        event("after-select")
        _, corrections = plan.oracle.answers(Question(
            round, query, basis, state.pool.settled, lambda rows: _guesses(plan, state, rows), audit, part))
        plan.oracle.audit(audit)
        acquire(plan, state, query, round)
        given |= plan.oracle.said([row for row in torch.cat([query.rows, audit]).tolist()
                                   if plan.dataset.train[row].label == UNLABELED])  # including answers of a replayed record
        corrected |= corrections
        queries.append(query)
    said = before | given
    return queries, given, {row: code for row, code in sorted(corrected.items()) if code != said[row]}


def _n_wanted(plan: Run, state: State, round: int, queries: Sequence[Query]) -> int:
    """Return how many images a round asks next, after `queries`: at first its query, then replacements for skipped ones.

    The limits are the labels that the run may have bought by now, and twice as many images asked.
    No round depends on how many follow, nor on corrections made during its own question.
    """
    if not plan.refills:
        return 0 if queries else plan.n_query
    if state.sampler.sizes is not None:  # skips in the record may have been corrected since
        sizes = state.sampler.sizes(round)
        return min(plan.n_query, sizes[len(queries)]) if len(queries) < len(sizes) else 0
    n_open = int((state.pool.labels_of(queries[-1].rows) == SKIP).sum()) if queries else plan.n_query
    n_asked, n_bought = plan.oracle.counts["asked"], plan.n_query * (round + 1)
    n_skipped = int(plan.oracle.asked_before[state.pool.skipped].sum())
    return max(0, min(n_open, n_bought - (n_asked - n_skipped), ASKS_A_LABEL * n_bought - n_asked))


def _select(plan: Run, state: State, round: int, part: int, n_query: int) -> Query:
    """Return the query of a part of a round, in rows of the train split."""
    needs_model = state.sampler.needs_model and state.model is not None
    ctx = context_of(plan, state, state.predict(plan.chooser, state.model) if needs_model else state.zero_shot, round, part)
    there = replace(ctx, n_query=n_query).to(state.device)  # again each round, as rows leave the pool: 1.3 GB for ImageNet
    query = _explained(plan, state.sampler.name, ctx, select(state.sampler.select, there))
    return query.renumbered(ctx.ids)


def _explained(plan: Run, sampler: str, ctx: SelectionContext, query: Query) -> Query:
    """Write down why images were picked, if that is asked for; return the query as people should see it."""
    if plan.scores == "none":
        return without_scores(query)
    if query.scores is None:
        logger.info("round %d: %s gives this query no scores", ctx.round, sampler)
        return query
    paths = [plan.dataset.train[row].path for row in ctx.ids.tolist()]
    write_text(scores_path(plan.output, ctx.round, ctx.part), score_table(query, paths, with_pool=plan.scores == "pool"))
    return query


def context_of(plan: Run, state: State, now: Predicted, round: int, part: int = 0) -> SelectionContext:
    """Return what the sampler of a round sees; `now` holds the selecting model's predictions of the train split."""
    stream = f"select {state.sampler.stream}" + (f" part {part + 1}" if part else "")
    rows, labeled, skipped, flagged = state.pool.unlabeled, state.pool.labeled, state.pool.skipped, state.pool.flagged
    logits = taken(now.logits, rows)
    return SelectionContext(
        ids=rows, features=taken(now.features, rows), logits=logits,
        zero_shot_logits=logits if now is state.zero_shot else taken(state.zero_shot.logits, rows),
        labeled_ids=labeled, labeled_features=unit_rows(now.features[labeled]), labeled_logits=now.logits[labeled],
        labels=state.pool.labels, text_features=now.text_features, n_query=plan.n_query, round=round,
        n_total=len(plan.dataset.train), rng=rng_for(plan.seed, stream, round), part=part,
        negative_text_features=getattr(now, "negative_text_features", None), bias=getattr(now, "bias", None),
        class_directions=getattr(now, "class_directions", None),
        find=plan.dataset.train_rows.get, skipped_features=unit_rows(now.features[skipped]) if len(skipped) else None,
        skipped_logits=now.logits[skipped] if len(skipped) else None, skipped_ids=skipped if len(skipped) else None,
        relations=Relations(now.features, plan.relations, state.related),
        flagged_features=unit_rows(now.features[flagged]) if len(flagged) else None,
        flagged_ids=flagged if len(flagged) else None)


def _guesses(plan: Run, state: State, rows: Tensor) -> Tensor:
    """Return the class probabilities [n, C] that the selecting model gives to rows of the train split."""
    now = state.zero_shot if state.model is None else state.predict(plan.chooser, state.model)
    return now.logits[rows].softmax(1)


def acquire(plan: Run, state: State, query: Query, round: int) -> None:
    """Move the images that a query asks, or labels itself, out of the pool, with the answers."""
    state.pool.acquire(query.rows, plan.oracle.label(query.rows), round)
    state.pool.acquire(query.pseudo_rows, query.pseudo_labels, round, pseudo=True)
