"""The active-learning loop: select, label, fit, evaluate, record; then again."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from active.asking import acquire, asked, context_of
from active.context import Query, joined
from active.devices import CPU, selection_device
from active.oracles.oracle import as_tensors
from active.plan import Predicted, Run, State
from active.pool import LabelPool
from active.record.folder import check_files, file_hashes, note_selection, prompts_path, selected_on
from active.record.report import audit_in_words, in_words, percent
from active.record.results import RoundRecord, RunResult, query_hash
from active.selection import images_named, warm_start
from active.stopping import advice
from active.watching import is_enough, watched
from dassl.data.answers import code_of, recorded
from dassl.evaluation.evaluate import Value, evaluate
from dassl.evaluation.metrics import is_per_class
from dassl.utils.environment import peak_memory_mb
from dassl.utils.errors import TrainingError, UserError
from dassl.utils.events import event

logger = logging.getLogger(__name__)


def run(plan: Run, result: RunResult) -> RunResult:
    """Do all rounds that a record does not hold yet and return the whole record; the recorders are told of each.

    The run ends early, and says so, when the pool is used up. Raises TrainingError, with the record marked "failed", if a
    round's numbers stop being finite, UserError if the record names other images, and WaitingForLabels when it is people's
    turn.
    """
    if result.finished:
        return result
    state = _start(plan, result)
    _replay(plan, state, result)
    result.status, result.failure = "running", ""
    for recorder in plan.recorders:
        recorder.begin(result)
    for round in range(len(result.rounds), plan.n_rounds):
        if not len(state.pool.unlabeled):
            logger.warning("the pool is used up after %d rounds of the %d asked for", round, plan.n_rounds)
            break
        if is_enough(plan, result):
            break
        try:
            with images_named(plan.dataset):
                record = _round(plan, state, round)
        except TrainingError as error:
            _end(plan, result, "failed", f"round {round}: {error}")
            raise TrainingError(result.failure) from error
        result.rounds.append(record)
        state.n_labeled[round] = record.n_labeled - record.n_saved
        for recorder in plan.recorders:
            recorder.add_round(result, state.losses)
        _log(record, watches=plan.watches)
    _end(plan, result, "finished")
    return result


def _start(plan: Run, result: RunResult) -> State:
    model = plan.trainer.zero_shot()
    if not result.zero_shot:
        result.zero_shot = _evaluate(plan, model, ("accuracy",))
    if plan.dataset.test:
        logger.info("zero-shot accuracy %s", percent(result.zero_shot["accuracy"]))
    for trainer in (plan.trainer, plan.selector):
        if trainer is not None and len(plan.reserved.rows) and hasattr(trainer, "leave_out"):
            trainer.leave_out(plan.reserved.rows)
    pool, row_of = LabelPool(len(plan.dataset.train), plan.reserved.rows, plan.unsure_weight), plan.dataset.train_rows
    if gone := [path for path in plan.known if path not in row_of]:
        raise UserError(f"the record in {plan.output} names images that are not in the train split, first {gone[0]!r}")
    known = as_tensors({row_of[path]: code for path, code in plan.known.items()})
    pool.acquire(*known, 0)
    plan.oracle.know(*known)
    zero_shot = plan.trainer.predict(model, "train")
    return State(result.config, zero_shot, pool, plan.samplers[0], device=_device(plan, result, zero_shot))


def _device(plan: Run, result: RunResult, zero_shot: Predicted) -> torch.device:
    """Return where picks are computed, and name it in the record; a run that began on the CPU stays there by default."""
    asked = "cpu" if plan.device == "auto" and result.rounds and selected_on(result.environment) == "cpu" else plan.device
    device = selection_device(asked, getattr(plan.chooser, "device", CPU), zero_shot.features, zero_shot.logits)
    note_selection(result, device.type)
    return device


def _end(plan: Run, result: RunResult, status: str, failure: str = "") -> None:
    result.status, result.failure = status, failure
    for recorder in plan.recorders:
        recorder.end(result)


def _replay(plan: Run, state: State, result: RunResult) -> None:
    """Bring the state to the point where the last recorded round left it."""
    if not result.rounds:
        return
    row_of = plan.dataset.train_rows
    for record in result.rounds:
        known = record.pseudo_labeled, record.answers, record.corrections
        unknown = [path for paths in (record.queried, *known) for path in paths if path not in row_of]
        if unknown:
            raise UserError(f"the record in {plan.output} names images that are not in the train split, first {unknown[0]!r}")
        guesses, answers, corrections = (
            as_tensors({row_of[path]: code_of(answer) for path, answer in own.items()}) for own in known)
        is_new = torch.isin(answers[0], plan.oracle.unknown(answers[0]))  # others come from the record that a sampler repeats
        plan.oracle.learn(*(own[is_new] for own in answers))
        audit = plan.audit_rows(record.round)
        if [plan.dataset.train[row].path for row in audit.tolist()] != record.audited:
            raise UserError(f"the record in {plan.output} audits other images in round {record.round} than this run would")
        plan.oracle.audit(audit)
        plan.oracle.n_further = record.n_further
        state.n_labeled[record.round] = record.n_labeled - record.n_saved
        queried = torch.tensor([row_of[path] for path in record.queried], dtype=torch.int64)
        acquire(plan, state, Query(queried, *guesses), record.round)
        plan.oracle.correct(*corrections)
        _correct(plan, state, *corrections)
    last = result.rounds[-1]
    check_files([last], plan.output)
    state.model = plan.chooser.load(plan.model_path(last.round))
    logger.info("continuing after round %d of %s", last.round, plan.output)


def _round(plan: Run, state: State, round: int) -> RoundRecord:
    """Do one round, store its models, and return its record."""
    state.seconds, state.losses, state.sampler = {}, {}, plan.sampler(round, state.pool)
    if not round:
        _warm_start(plan, state)
    queries, answers, corrections = asked(plan, state, round)
    query = joined(queries)
    _correct(plan, state, *as_tensors(corrections))
    state.predicted = None
    model = _fit(plan, state, query, round)
    event("after-fit")
    metrics = state.timed("evaluate", _evaluate, plan, model)
    event("after-evaluate")
    given, corrected = ({plan.dataset.train[row].path: recorded(code) for row, code in own.items()}
                        for own in (answers, corrections))
    per_class = {name: metrics.pop(name) or [] for name in [*metrics] if is_per_class(name)}
    return _record(plan, state, query, round=round, sampler=state.sampler.name, metrics=metrics, per_class=per_class,
                   files=_save(plan, state, model, round), answers=given, corrections=corrected,
                   refills=[len(own.rows) for own in queries[1:]], **watched(plan, state, model, round))


def _warm_start(plan: Run, state: State) -> None:
    """Train the selecting model before round 0 on known labels, or on zero-shot pseudo-labels if the first sampler asks.

    Its round is -1.
    """
    if len(state.pool.labeled):
        state.model = state.fitted("warm_start", plan.chooser, -1)
    elif state.sampler.begin is not None:
        ctx = replace(context_of(plan, state, state.zero_shot, 0), n_query=0)
        query = warm_start(state.sampler, ctx.to(state.device))
        state.model = state.fitted("warm_start", plan.chooser, -1, **_mined(query))


def _correct(plan: Run, state: State, rows: Tensor, answers: Tensor) -> None:
    """Correct the labels of the pool; those of the audit are the oracle's alone."""
    known = state.pool.round_of[rows] >= 0
    state.pool.correct(rows[known], answers[known])


def _fit(plan: Run, state: State, query: Query, round: int) -> Any:
    """Fit fresh models to all labels so far; return the reported one and leave the selecting one in the state.

    Mined images are for the learner that selects: a separate reported learner is fitted to the labeled set alone.
    """
    step = "fit_selector" if plan.selector else "fit"
    state.model = state.fitted(step, plan.chooser, round, **_mined(query))
    return state.fitted("fit", plan.trainer, round) if plan.selector else state.model


def _mined(query: Query) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the argument `mined` of `fit`, or nothing without mined images, since most learners do not take it."""
    return {"mined": (query.mined_rows, query.mined_labels)} if len(query.mined_rows) else {}


def _evaluate(plan: Run, model: Any, names: Sequence[str] = ()) -> dict[str, Value | None]:
    """Return metrics of a model on the test split, all or some of them; None for each without test images."""
    metrics = {name: plan.metrics[name] for name in names or plan.metrics}
    if not plan.dataset.test:
        return dict.fromkeys(metrics)
    return evaluate(plan.trainer.predict(model, "test").logits, plan.dataset.labels("test"), metrics)


def _save(plan: Run, state: State, model: Any, round: int) -> dict[str, str]:
    """Store the models of a finished round, and return the hashes of their files."""
    files = {prompts_path(plan.output, round): (plan.trainer, model)}
    if plan.selector:
        files[plan.model_path(round)] = plan.selector, state.model
    for path, (trainer, own) in files.items():
        trainer.save(own, path)
    return file_hashes(plan.output, files)


def _record(plan: Run, state: State, query: Query, *, round: int, **known: Any) -> RoundRecord:
    """Return the record of a round; `known` holds the fields that do not follow from the state."""
    pool, paths = state.pool, [datum.path for datum in plan.dataset.train]
    queried = [paths[row] for row in query.rows.tolist()]
    pseudo = zip(query.pseudo_rows.tolist(), query.pseudo_labels.tolist(), strict=True)
    pseudo_labeled = {paths[row]: label for row, label in pseudo}
    guessed = torch.cat([pool.pseudo_labeled, query.mined_rows])
    guesses, counts = torch.cat([pool.labels_of(pool.pseudo_labeled), query.mined_labels]), plan.oracle.counts
    known_rows = torch.tensor([plan.dataset.train_rows[path] for path in plan.known], dtype=torch.int64)
    return RoundRecord(
        round=round, queried=queried, n_labeled=len(pool.labeled), n_paid=plan.oracle.n_paid,
        n_further=plan.oracle.n_further, n_known=int(torch.isin(pool.labeled, known_rows).sum()), n_asked=counts["asked"],
        n_skipped=counts["skip"], n_none=counts["none"], n_unsure=counts["unsure"], n_pseudo=len(guessed),
        class_counts=pool.labels.bincount(minlength=len(plan.dataset.classnames)).tolist(),
        query_hash=query_hash(queried, pseudo_labeled, known["answers"] | known["corrections"], known["audited"]),
        seconds=dict(state.seconds), peak_memory_mb=peak_memory_mb(), n_saved=len(pool.pseudo_labeled),
        pseudo_precision=plan.oracle.precision(guessed, guesses), pseudo_labeled=pseudo_labeled,
        approximation=query.approximation, **known)


def _log(record: RoundRecord, *, watches: bool) -> None:
    pseudo = f", {record.n_pseudo} pseudo-labels ({record.n_saved} saved)" if record.n_pseudo else ""
    counts = {"skipped": record.n_skipped, "of no class": record.n_none, "unsure": record.n_unsure}
    others = "".join(f", {number} {what}" for what, number in counts.items() if number)
    measured = f", {in_words(record.metrics)}" if any(value is not None for value in record.metrics.values()) else ""
    logger.info("round %d: %s, %d labels%s%s%s (%s)", record.round, record.sampler, record.n_paid, others, pseudo, measured,
                ", ".join(f"{step} {seconds:.1f} s" for step, seconds in record.seconds.items()))
    if record.approximation:
        logger.info("round %d: not all pairs of images were compared: %s", record.round,
                    ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record.approximation.items()))
    if record.audit:
        logger.info("round %d: %s", record.round, audit_in_words(record.audit))
    if watches:
        logger.info("round %d: %s", record.round, advice(record.kappa, len(record.class_counts)))
