"""The active-learning loop: select, label, fit, evaluate, write; then again."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from yacs.config import CfgNode

from active.context import Query, SelectionContext
from active.pool import LabelPool, Oracle
from active.registry import SAMPLERS, build_sampler, check_learner, initial_sampler, select, warm_start
from active.results import RoundRecord, RunResult, query_hash
from dassl.config.setup import as_dict, differences
from dassl.data.dataset import Dataset
from dassl.evaluation.evaluate import evaluate
from dassl.utils.environment import environment, peak_memory_mb
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.seeding import rng_for

logger = logging.getLogger(__name__)

RESULTS = "results.json"


class Predicted(Protocol):
    """What the loop reads of a prediction: float32 on the CPU, rows in the order of the split.

    A model with negative prompts also gives `negative_text_features` [C, D], unit norm.
    """

    features: Tensor  # [N, D], unit norm
    logits: Tensor  # [N, C]
    text_features: Tensor  # [C, D], unit norm


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


def run(cfg: CfgNode, dataset: Dataset, trainer: Trainer, selector: Trainer | None = None) -> RunResult:
    """Run all rounds that `cfg.OUTPUT_DIR/results.json` does not hold yet and return the whole record.

    With a `selector`, its models select and the trainer's are reported; without one, the trainer does both. The record is
    rewritten after every round. The run ends early, and says so, when the pool is used up. Raises ConfigError if a sampler
    needs more than the selecting learner has, UserError if the folder holds a run of another config or data set.
    """
    output, chooser = Path(cfg.OUTPUT_DIR), selector or trainer
    _check_selector(cfg, selector is not None, chooser)
    n_query = query_size(cfg.ACTIVE.QUERY_SIZE, len(dataset.train), len(dataset.classnames))
    result = open_result(cfg, dataset)
    if result.finished:
        return result
    state = _start(trainer, dataset, n_query * cfg.ACTIVE.ROUNDS, result)
    _replay(result, state, dataset, chooser, selector_path if selector else prompts_path, output)
    for round in range(len(result.rounds), cfg.ACTIVE.ROUNDS):
        if not len(state.pool.unlabeled):
            logger.warning("the pool is used up after %d rounds of the %d asked for", round, cfg.ACTIVE.ROUNDS)
            break
        state.seconds = {}
        name = cfg.ACTIVE.SAMPLER if round else initial_sampler(cfg.ACTIVE)
        if not round:
            _warm_start(cfg, state, dataset, chooser, name)
        query = state.timed("select", _select, cfg, state, dataset, chooser, name, n_query, round)
        _label(query, state, round)
        model = _fit(state, trainer, selector, query, round)
        metrics = state.timed("evaluate", _evaluate, trainer, model, dataset)
        trainer.save(model, prompts_path(output, round))
        if selector:
            selector.save(state.model, selector_path(output, round))
        result.rounds.append(_record(round, name, query, state, dataset, metrics))
        result.write(output / RESULTS)
        _log(result.rounds[-1])
    result.status = "finished"
    result.write(output / RESULTS)
    return result


def query_size(size: int | str, n_train: int, n_classes: int) -> int:
    """Return the labels of a round for `ACTIVE.QUERY_SIZE`: an integer, a share such as "1%" (rounded), or per_class."""
    if size == "per_class":
        return n_classes
    share = str(size).removesuffix("%").strip()
    try:
        if isinstance(size, int):
            n_query = size
        elif size.endswith("%") and 0 < float(share) <= 100:
            n_query = max(1, int(n_train * float(share) / 100 + 0.5))
        else:
            raise ValueError
    except ValueError:
        raise ConfigError(f"ACTIVE.QUERY_SIZE is {size!r}, but must be an integer, a share such as '1%', "
                          "or per_class") from None
    if n_query < 1:
        raise ConfigError(f"ACTIVE.QUERY_SIZE is {size}, but must be at least 1")
    return n_query


def open_result(cfg: CfgNode, dataset: Dataset) -> RunResult:
    """Return the record in the output folder, or a new one.

    Raises UserError with the differences if the folder holds a run of another config, data set or class list.
    """
    new = RunResult(as_dict(cfg), environment(), {
        "name": dataset.name, "n_train": len(dataset.train), "n_test": len(dataset.test),
        "n_classes": len(dataset.classnames), "classnames": list(dataset.classnames)})
    path = Path(cfg.OUTPUT_DIR) / RESULTS
    if not path.exists():
        return new
    old = RunResult.read(path)
    check_same_config(old, new.config, path)
    if old.dataset != new.dataset:
        raise UserError(f"{path} holds a run on another data set: {_of(old)}, not {_of(new)}")
    return old


def check_same_config(old: RunResult, config: dict[str, Any], path: Path) -> None:
    """Raise UserError, showing each key, if a record was made with another config than this one."""
    if changed := differences(old.config, config):
        raise UserError(f"{path} holds a run of another config; choose another --output-dir, or --overwrite to move it "
                        "aside:\n  " + "\n  ".join(changed))


def prompts_path(output: Path, round: int) -> Path:
    """Return the file of the prompts that a round ended with."""
    return output / "prompts" / f"round_{round:03d}.safetensors"


def _check_selector(cfg: CfgNode, is_given: bool, chooser: Trainer) -> None:
    name = cfg.ACTIVE.SELECTOR_TRAINER
    if bool(name) != is_given:
        raise ValueError(f"ACTIVE.SELECTOR_TRAINER is {name!r}, and a selector was {'' if is_given else 'not '}given")
    check_learner(cfg.ACTIVE, name or cfg.TRAINER.NAME, has_negative_texts=getattr(chooser, "has_negative_texts", False))


def selector_path(output: Path, round: int) -> Path:
    """Return the file of the prompts of `ACTIVE.SELECTOR_TRAINER` that a round ended with."""
    return output / "prompts" / f"round_{round:03d}_selector.safetensors"


def _start(trainer: Trainer, dataset: Dataset, budget: int, result: RunResult) -> _State:
    model = trainer.zero_shot()
    if not result.zero_shot:
        result.zero_shot = {"accuracy": _evaluate(trainer, model, dataset)["accuracy"]}
    logger.info("zero-shot accuracy %.2f %%", 100 * result.zero_shot["accuracy"])
    return _State(trainer.predict(model, "train"), LabelPool(len(dataset.train)), Oracle(dataset.labels("train"), budget))


def _replay(
    result: RunResult, state: _State, dataset: Dataset, chooser: Trainer, path_of: Callable[[Path, int], Path], output: Path
) -> None:
    """Bring the state to where the last recorded round left it."""
    if not result.rounds:
        return
    row_of = {datum.path: row for row, datum in enumerate(dataset.train)}
    for record in result.rounds:
        unknown = [path for path in (*record.queried, *record.pseudo_labeled) if path not in row_of]
        if unknown:
            raise UserError(f"{output / RESULTS} names images that are not in the train split, first {unknown[0]!r}")
        asked, guessed = (torch.tensor([row_of[path] for path in paths], dtype=torch.int64)
                          for paths in (record.queried, record.pseudo_labeled))
        guesses = torch.tensor(list(record.pseudo_labeled.values()), dtype=torch.int64)
        _label(Query(asked, guessed, guesses), state, record.round)
    state.model = chooser.load(path_of(output, result.rounds[-1].round))
    logger.info("continuing after round %d of %s", result.rounds[-1].round, output)


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
        negative_text_features=getattr(now, "negative_text_features", None))


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


def _evaluate(trainer: Trainer, model: Any, dataset: Dataset) -> dict[str, float]:
    return dict(evaluate(trainer.predict(model, "test").logits, dataset.labels("test")))


def _record(
    round: int, sampler: str, query: Query, state: _State, dataset: Dataset, metrics: dict[str, float]
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
        query_hash=query_hash(queried, pseudo_labeled), seconds=dict(state.seconds), peak_memory_mb=peak_memory_mb(),
        n_saved=len(pool.pseudo_labeled), pseudo_precision=state.oracle.precision(guessed, guesses),
        pseudo_labeled=pseudo_labeled)


def _log(record: RoundRecord) -> None:
    pseudo = f", {record.n_pseudo} pseudo-labels ({record.n_saved} saved)" if record.n_pseudo else ""
    logger.info("round %d: %s, %d labels%s, accuracy %.2f %%, macro-F1 %.2f %%, ECE %.2f %% (%s)", record.round,
                record.sampler, record.n_paid, pseudo, 100 * record.accuracy, 100 * record.macro_f1, 100 * record.ece,
                ", ".join(f"{step} {seconds:.1f} s" for step, seconds in record.seconds.items()))


def _of(result: RunResult) -> str:
    return ", ".join(f"{key} {value}" for key, value in result.dataset.items() if key != "classnames")
