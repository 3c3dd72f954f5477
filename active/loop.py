"""The active-learning loop: select, label, fit, evaluate, write; then again."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.oracles.asked import read_query, stands_on, write_query
from active.oracles.files import ask_people
from active.pool import LabelPool, Oracle, query_size
from active.record.folder import RESULTS, check_files, file_hashes, open_result, prompts_path, query_path, selector_path
from active.record.recorders import add_round
from active.record.report import percent
from active.record.results import RoundRecord, RunResult, query_hash
from active.registry import SAMPLERS, build_sampler, check_learner, images_named, initial_sampler, select, warm_start, wrapped
from dassl.data.dataset import UNLABELED, Dataset
from dassl.evaluation.evaluate import METRICS, evaluate
from dassl.utils.environment import peak_memory_mb
from dassl.utils.errors import TrainingError, UserError
from dassl.utils.events import event
from dassl.utils.seeding import rng_for

logger = logging.getLogger(__name__)


class Predicted(Protocol):
    """What the loop reads of a prediction: float32 on the CPU, rows in the order of the split.

    A model with negative prompts also gives `negative_text_features` [C, D]. Texts are those of logits, see `active.context`.
    """

    features: Tensor  # [N, D], unit norm
    logits: Tensor  # [N, C]
    text_features: Tensor  # [C, D]


class Trainer(Protocol):
    """What the loop asks of a trainer; the model itself is opaque to it.

    One whose models have negative prompts says so by `has_negative_texts = True`, and its `fit` takes a further `mined`:
    rows and labels that it trains on beside the labeled ones.
    """

    def zero_shot(self) -> Any: ...
    def fit(self, rows: Tensor, labels: Tensor, round: int) -> Any: ...
    def predict(self, model: Any, split: str) -> Predicted: ...
    def save(self, model: Any, path: Path) -> None: ...
    def load(self, path: Path) -> Any: ...


@dataclass
class _State:
    """What one round hands to the next."""

    config: dict[str, Any]  # of the record
    zero_shot: Predicted  # of the train split
    pool: LabelPool
    oracle: Oracle
    model: Any = None  # of the learner that selects; None while that is zero-shot CLIP
    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, step: str, function: Callable, *arguments: Any, **named: Any) -> Any:
        """Return the function's answer and note its seconds under the name of the step."""
        start = time.perf_counter()
        answer = function(*arguments, **named)
        self.seconds[step] = round(time.perf_counter() - start, 3)
        return answer


def run(
    cfg: CfgNode, dataset: Dataset, trainer: Trainer, selector: Trainer | None = None, *,
    certificate: Mapping[str, str] | None = None,
) -> RunResult:
    """Run all rounds that `cfg.OUTPUT_DIR/results.json` does not hold yet and return the whole record.

    With a `selector`, its models select and the trainer's are reported; without one, the trainer does both. The record is
    written at the start and after every round. The run ends early, and says so, when the pool is used up. With
    `ACTIVE.ORACLE: file` people label what the data set does not, see `active.oracles.files`. `certificate` holds the hashes of
    `active.record.certificate`.

    Raises ConfigError if a sampler needs more than the selecting learner has, UserError if the folder holds a run of
    another config or data set, WaitingForLabels when it is people's turn.
    """
    output, chooser = Path(cfg.OUTPUT_DIR), selector or trainer
    _check_selector(cfg, selector is not None, chooser)
    n_query = query_size(cfg.ACTIVE.QUERY_SIZE, len(dataset.train), len(dataset.classnames))
    result = open_result(cfg, dataset, certificate or {})
    if result.finished:
        return result
    oracle = Oracle(_known_labels(cfg, dataset), n_query * cfg.ACTIVE.ROUNDS)
    state = _start(trainer, dataset, oracle, result)
    _replay(result, state, dataset, chooser, selector_path if selector else prompts_path, output)
    result.status, result.failure = "running", ""
    result.write(output / RESULTS)  # from the first query on, the folder says whose it is
    for round in range(len(result.rounds), cfg.ACTIVE.ROUNDS):
        if not len(state.pool.unlabeled):
            logger.warning("the pool is used up after %d rounds of the %d asked for", round, cfg.ACTIVE.ROUNDS)
            break
        try:
            with images_named(dataset):
                result.rounds.append(_round(cfg, state, dataset, trainer, selector, n_query, round))
        except TrainingError as error:
            result.status, result.failure = "failed", f"round {round}: {error}"
            result.write(output / RESULTS)
            raise TrainingError(result.failure) from error
        if cfg.LOG.TENSORBOARD:
            add_round(output, result.rounds[-1])  # before the record: a round that is in there is not done again
        result.write(output / RESULTS)
        _log(result.rounds[-1])
    result.status = "finished"
    result.write(output / RESULTS)
    return result


def _check_selector(cfg: CfgNode, is_given: bool, chooser: Trainer) -> None:
    name = cfg.ACTIVE.SELECTOR_TRAINER
    if bool(name) != is_given:
        raise ValueError(f"ACTIVE.SELECTOR_TRAINER is {name!r}, and a selector was {'' if is_given else 'not '}given")
    check_learner(cfg.ACTIVE, name or cfg.TRAINER.NAME, has_negative_texts=getattr(chooser, "has_negative_texts", False))


def _known_labels(cfg: CfgNode, dataset: Dataset) -> Tensor:
    """Return the labels of the train split, with what people answered in a record that a sampler repeats."""
    labels = dataset.labels("train")
    samplers = (initial_sampler(cfg.ACTIVE), cfg.ACTIVE.SAMPLER)
    for name in dict.fromkeys(name for sampler in samplers for name in wrapped(sampler, cfg.ACTIVE)):
        if "answers" in SAMPLERS[name].facts:
            for path, label in SAMPLERS[name].facts["answers"](cfg.ACTIVE, dataset.classnames).items():
                row = dataset.train_rows.get(path)
                if row is not None and labels[row] == UNLABELED:
                    labels[row] = label
    return labels


def _start(trainer: Trainer, dataset: Dataset, oracle: Oracle, result: RunResult) -> _State:
    model = trainer.zero_shot()
    if not result.zero_shot:
        result.zero_shot = {"accuracy": _evaluate(trainer, model, dataset)["accuracy"]}
    logger.info("zero-shot accuracy %s", percent(result.zero_shot["accuracy"]))
    return _State(result.config, trainer.predict(model, "train"), LabelPool(len(dataset.train)), oracle)


def _replay(
    result: RunResult, state: _State, dataset: Dataset, chooser: Trainer, path_of: Callable[[Path, int], Path], output: Path
) -> None:
    """Bring the state to where the last recorded round left it."""
    if not result.rounds:
        return
    row_of = dataset.train_rows
    for record in result.rounds:
        unknown = [path for path in (*record.queried, *record.pseudo_labeled) if path not in row_of]
        if unknown:
            raise UserError(f"{output / RESULTS} names images that are not in the train split, first {unknown[0]!r}")
        asked, guessed = (torch.tensor([row_of[path] for path in paths], dtype=torch.int64)
                          for paths in (record.queried, record.pseudo_labeled))
        guesses = torch.tensor(list(record.pseudo_labeled.values()), dtype=torch.int64)
        state.oracle.learn(*(torch.tensor(values, dtype=torch.int64) for values in (
            [row_of[path] for path in record.answers], list(record.answers.values()))))
        _label(Query(asked, guessed, guesses), state, record.round)
    check_files(result.rounds[-1:], output)
    state.model = chooser.load(path_of(output, result.rounds[-1].round))
    logger.info("continuing after round %d of %s", result.rounds[-1].round, output)


def _round(
    cfg: CfgNode, state: _State, dataset: Dataset, trainer: Trainer, selector: Trainer | None, n_query: int, round: int
) -> RoundRecord:
    """Do one round, keep its models, and return its record."""
    output, chooser = Path(cfg.OUTPUT_DIR), selector or trainer
    state.seconds = {}
    name = cfg.ACTIVE.SAMPLER if round else initial_sampler(cfg.ACTIVE)
    if not round:
        _warm_start(cfg, state, dataset, chooser, name)
    event("before-select")
    asked = None
    if cfg.ACTIVE.ORACLE == "file":
        asked = read_query(query_path(output, round), stands_on(state.config, state.pool), dataset)
    query = asked or state.timed("select", _select, cfg, state, dataset, chooser, name, n_query, round)
    event("after-select")
    answers = _ask(cfg, query, state, dataset, chooser, round) if cfg.ACTIVE.ORACLE == "file" else {}
    _label(query, state, round)
    model = _fit(state, trainer, selector, query, round)
    event("after-fit")
    metrics = state.timed("evaluate", _evaluate, trainer, model, dataset)
    event("after-evaluate")
    files = [prompts_path(output, round)]
    trainer.save(model, files[0])
    if selector:
        files.append(selector_path(output, round))
        selector.save(state.model, files[1])
    return _record(round, name, query, answers, state, dataset, metrics, file_hashes(output, files))


def _warm_start(cfg: CfgNode, state: _State, dataset: Dataset, chooser: Trainer, name: str) -> None:
    """Fit the selecting model to what zero-shot CLIP mines, if the first round's sampler begins so; its round is -1."""
    query = warm_start(name, cfg.ACTIVE, _context(cfg, state, dataset, state.zero_shot, name, 0, 0))
    if query is not None:
        state.model = state.timed("warm_start", chooser.fit, state.pool.labeled, state.pool.labels, -1, **_mined(query))


def _select(cfg: CfgNode, state: _State, dataset: Dataset, chooser: Trainer, name: str, n_query: int, round: int) -> Query:
    """Return the query of a round, in rows of the train split."""
    needs_model = SAMPLERS[name].facts.get("needs_model", True) and state.model is not None
    now = chooser.predict(state.model, "train") if needs_model else state.zero_shot
    ctx = _context(cfg, state, dataset, now, name, n_query, round)
    query = select(build_sampler(name, cfg.ACTIVE), ctx)
    return replace(query, **{rows: ctx.ids[getattr(query, rows)] for rows in ("rows", "pseudo_rows", "mined_rows")})


def _context(
    cfg: CfgNode, state: _State, dataset: Dataset, now: Predicted, name: str, n_query: int, round: int
) -> SelectionContext:
    rows, labeled = state.pool.unlabeled, state.pool.labeled
    logits = now.logits[rows]
    return SelectionContext(
        ids=rows, features=now.features[rows], logits=logits,
        zero_shot_logits=logits if now is state.zero_shot else state.zero_shot.logits[rows],
        labeled_ids=labeled, labeled_features=now.features[labeled], labeled_logits=now.logits[labeled],
        labels=state.pool.labels, text_features=now.text_features, n_query=n_query, round=round,
        n_total=len(dataset.train), rng=rng_for(cfg.SEED, f"select {name}", round),
        negative_text_features=getattr(now, "negative_text_features", None), find=dataset.train_rows.get)


def _ask(
    cfg: CfgNode, query: Query, state: _State, dataset: Dataset, chooser: Trainer, round: int
) -> dict[str, int]:
    """Return the labels, by dataset id, that people gave to those images of a query whose label nobody knew."""
    rows = state.oracle.unknown(query.rows)
    if not len(rows):
        return {}

    def guess() -> Tensor:
        now = state.zero_shot if state.model is None else chooser.predict(state.model, "train")
        return now.logits[rows].softmax(1)

    write_query(query_path(Path(cfg.OUTPUT_DIR), round), stands_on(state.config, state.pool), query, dataset)
    labels = ask_people(Path(cfg.OUTPUT_DIR), round, dataset, rows.tolist(), guess, labeled=state.pool.labeled.tolist())
    state.oracle.learn(rows, torch.tensor(labels))
    return {dataset.train[row].path: label for row, label in zip(rows.tolist(), labels, strict=True)}


def _label(query: Query, state: _State, round: int) -> None:
    state.pool.acquire(query.rows, state.oracle.label(query.rows), round)
    state.pool.acquire(query.pseudo_rows, query.pseudo_labels, round, pseudo=True)


def _fit(state: _State, trainer: Trainer, selector: Trainer | None, query: Query, round: int) -> Any:
    """Fit fresh prompts to all labels so far; return the reported model and leave the selecting one in the state.

    Mined images are for the learner that selects: a reported one beside it is fitted to the labeled set alone.
    """
    labeled = state.pool.labeled, state.pool.labels, round
    if selector is None:
        state.model = state.timed("fit", trainer.fit, *labeled, **_mined(query))
        return state.model
    state.model = state.timed("fit_selector", selector.fit, *labeled, **_mined(query))
    return state.timed("fit", trainer.fit, *labeled)


def _mined(query: Query) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the further argument of `fit` for mined images, none without them: most learners do not take it."""
    return {"mined": (query.mined_rows, query.mined_labels)} if len(query.mined_rows) else {}


def _evaluate(trainer: Trainer, model: Any, dataset: Dataset) -> dict[str, float | None]:
    if not dataset.test:
        return dict.fromkeys(METRICS)
    return dict(evaluate(trainer.predict(model, "test").logits, dataset.labels("test")))


def _record(
    round: int, sampler: str, query: Query, answers: dict[str, int], state: _State, dataset: Dataset,
    metrics: dict[str, float | None], files: dict[str, str],
) -> RoundRecord:
    pool, paths = state.pool, [datum.path for datum in dataset.train]
    queried = [paths[row] for row in query.rows.tolist()]
    pseudo = zip(query.pseudo_rows.tolist(), query.pseudo_labels.tolist(), strict=True)
    pseudo_labeled = {paths[row]: label for row, label in pseudo}
    guessed = torch.cat([pool.pseudo_labeled, query.mined_rows])
    guesses = torch.cat([pool.labels_of(pool.pseudo_labeled), query.mined_labels])
    return RoundRecord(
        round=round, sampler=sampler, queried=queried, n_labeled=len(pool.labeled), n_paid=state.oracle.n_paid,
        n_pseudo=len(guessed), **metrics, class_counts=pool.labels.bincount(minlength=len(dataset.classnames)).tolist(),
        query_hash=query_hash(queried, pseudo_labeled, answers), seconds=dict(state.seconds), peak_memory_mb=peak_memory_mb(),
        n_saved=len(pool.pseudo_labeled), pseudo_precision=state.oracle.precision(guessed, guesses),
        pseudo_labeled=pseudo_labeled, answers=answers, files=files)


def _log(record: RoundRecord) -> None:
    pseudo = f", {record.n_pseudo} pseudo-labels ({record.n_saved} saved)" if record.n_pseudo else ""
    logger.info("round %d: %s, %d labels%s, accuracy %s, macro-F1 %s, ECE %s (%s)", record.round, record.sampler,
                record.n_paid, pseudo, percent(record.accuracy), percent(record.macro_f1), percent(record.ece),
                ", ".join(f"{step} {seconds:.1f} s" for step, seconds in record.seconds.items()))
