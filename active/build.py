"""From a config to a run: what `active.loop.run` is given."""

import contextlib
import inspect
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor
from yacs.config import CfgNode

from active.audit import Reserved, reserve
from active.devices import check_device
from active.known import read_known
from active.loop import run
from active.oracles.oracle import ORACLES, Oracle, Setting
from active.oracles.registry import asks_people
from active.plan import ASKS_A_LABEL, Run, Trainer
from active.record.folder import open_result
from active.record.recorders import build_recorders
from active.record.results import RunResult
from active.registry import SAMPLERS, audit_size, build_chosen, check_learner, initial_sampler, query_size, wrapped
from dassl.config.setup import as_dict, cache_path
from dassl.data.answers import code_of, recorded
from dassl.data.dataset import UNLABELED, Dataset
from dassl.evaluation.evaluate import build_metrics
from dassl.utils.errors import ConfigError
from dassl.utils.linear import TORCH, pairs_by
from dassl.utils.paths import exists
from dassl.utils.run_folder import RESULTS

UNSURE_WEIGHTS = {"leave_out": 0.0, "half": 0.5}

logger = logging.getLogger(__name__)


def carry_out(
    cfg: CfgNode, dataset: Dataset, trainer: Trainer, selector: Trainer | None = None, *,
    certificate: Mapping[str, str] | None = None,
) -> RunResult:
    """Do the rounds of a whole config that its output folder does not hold yet, and return the record.

    `certificate` holds the hashes of `active.record.certificate`; its `linear` names the product that pairs are compared by,
    torch's own if it is absent. Raises what `build_run`, `open_result` and `run` raise.
    """
    output = Path(cfg.OUTPUT_DIR)
    is_new = not exists(output / RESULTS)  # else the record holds them
    result = open_result(output, as_dict(cfg), dataset, certificate or {})
    if is_new:
        found = (read_known(cfg.ACTIVE.KNOWN_LABELS, cfg.ACTIVE.RENAMED_CLASSES, dataset) if cfg.ACTIVE.KNOWN_LABELS
                 else _repeated(cfg.ACTIVE, "known"))
        result.known = {path: recorded(code) for path, code in found.items() if path in dataset.train_rows}
    known = {path: code_of(answer) for path, answer in result.known.items()}
    plan = build_run(cfg, dataset, trainer, selector, known)
    with pairs_by((certificate or {}).get("linear", TORCH)), contextlib.closing(plan.oracle):
        return run(plan, result)


def build_run(
    cfg: CfgNode, dataset: Dataset, trainer: Trainer, selector: Trainer | None = None, known: Mapping[str, int] | None = None
) -> Run:
    """Return the run of a whole config; `known` are answers, by path, from before the run.

    Raises ConfigError if a sampler needs more than the selecting learner has.
    """
    check_device(cfg)
    _check_selector(cfg, selector is not None, selector or trainer)
    _check_weights(cfg, *(own for own in (trainer, selector) if own))
    n_query = query_size(cfg.ACTIVE.QUERY_SIZE, len(dataset.train), len(dataset.classnames))
    output, names = Path(cfg.OUTPUT_DIR), (initial_sampler(cfg.ACTIVE), cfg.ACTIVE.SAMPLER)
    n_audited, known = audit_size(cfg.ACTIVE.AUDIT, len(dataset.train)), known or {}
    if known and cfg.ACTIVE.INITIAL_SAMPLER == "auto":
        names = (cfg.ACTIVE.SAMPLER,) * 2
    free = np.array([row for row, datum in enumerate(dataset.train) if datum.path not in known], dtype=np.int64)
    reserved = reserve(free, n_audited, cfg.ACTIVE.AUDIT_ROUNDS, cfg.SEED)
    _check_reserved(cfg, dataset, reserved, known)
    oracle = build_oracle(cfg, dataset, n_query * cfg.ACTIVE.ROUNDS * (ASKS_A_LABEL if cfg.ACTIVE.REFILL else 1))
    return Run(
        dataset, trainer, selector, samplers=tuple(build_chosen(name, cfg.ACTIVE) for name in names),
        oracle=oracle, metrics=build_metrics(cfg.TEST), n_query=n_query, n_rounds=cfg.ACTIVE.ROUNDS, seed=cfg.SEED,
        recorders=[*oracle.recorders, *build_recorders(cfg.LOG, output, dataset)], output=output, known=known,
        reserved=reserved, refills=cfg.ACTIVE.REFILL, unsure_weight=UNSURE_WEIGHTS[cfg.ACTIVE.UNSURE],
        watches=bool(n_audited or cfg.ACTIVE.STOP or asks_people(cfg.ACTIVE)), stop=cfg.ACTIVE.STOP,
        scores=cfg.LOG.SCORES, relations=cache_path(cfg) / "relations", device=_device(cfg))


def _device(cfg: CfgNode) -> str:
    """Return `ACTIVE.DEVICE`; under `DETERMINISTIC`, auto is the CPU, as some steps repeat on a card only up to rounding."""
    return "cpu" if cfg.DETERMINISTIC and cfg.ACTIVE.DEVICE == "auto" else cfg.ACTIVE.DEVICE


def build_oracle(cfg: CfgNode, dataset: Dataset, budget: int) -> Oracle:
    """Return the oracle of a whole config, which may be asked for at most `budget` images."""
    component = ORACLES[cfg.ACTIVE.ORACLE]
    setting = Setting(dataset, _known_labels(cfg.ACTIVE, dataset), budget, Path(cfg.OUTPUT_DIR))
    return component.build(setting, **component.arguments(cfg.ACTIVE.get(component.key, {})))


def _named(node: CfgNode) -> list[str]:
    """Return the names of all samplers of a node, including those inside others."""
    return list(dict.fromkeys(name for sampler in (initial_sampler(node), node.SAMPLER) for name in wrapped(sampler, node)))


def _repeated(node: CfgNode, fact: str) -> dict[str, int]:
    """Return a fact of the record that a sampler repeats, {} without a record."""
    return next((SAMPLERS[name].facts[fact](node) for name in _named(node) if fact in SAMPLERS[name].facts), {})


def _check_reserved(cfg: CfgNode, dataset: Dataset, reserved: Reserved, known: Mapping[str, int]) -> None:
    """Raise ConfigError if a record to be repeated asked for images of the audit; warn if known labels bias the audit."""
    held = {dataset.train[row].path for row in reserved.rows.tolist()}
    if held & set(_repeated(cfg.ACTIVE, "asks")):
        raise ConfigError("the audit sets images aside that the record asked for; give the run the SEED and ACTIVE.AUDIT of "
                          "the record, or none")
    if held and known:
        logger.warning("the audit covers images without a known label; if those with one were chosen, such as by an earlier "
                       "run, it says how good the model is on what that run left over, not on new images")


def _check_selector(cfg: CfgNode, is_given: bool, chooser: Trainer) -> None:
    name = cfg.ACTIVE.SELECTOR_TRAINER
    if bool(name) != is_given:
        raise ValueError(f"ACTIVE.SELECTOR_TRAINER is {name!r}, and a selector was {'' if is_given else 'not '}given")
    check_learner(cfg.ACTIVE, name or cfg.TRAINER.NAME, has_negative_texts=getattr(chooser, "has_negative_texts", False),
                  is_linear=getattr(chooser, "is_linear", True))


def _check_weights(cfg: CfgNode, *trainers: Trainer) -> None:
    """Raise ConfigError, before people label anything, if a trainer does not support half labels but may be given some."""
    for trainer in trainers if UNSURE_WEIGHTS[cfg.ACTIVE.UNSURE] else ():
        parameters = inspect.signature(trainer.fit).parameters.values()
        if not any(own.name == "weights" or own.kind is own.VAR_KEYWORD for own in parameters):
            raise ConfigError(f"ACTIVE.UNSURE is {cfg.ACTIVE.UNSURE!r}, but {type(trainer).__name__}.fit takes no weights of "
                              "labels; give it a parameter `weights`, or set ACTIVE.UNSURE leave_out")


def _known_labels(node: CfgNode, dataset: Dataset) -> Tensor:
    """Return the labels of the train split, with what people answered in a record that a sampler repeats."""
    labels = dataset.labels("train")
    for name in _named(node):
        if "answers" in SAMPLERS[name].facts:
            for path, label in SAMPLERS[name].facts["answers"](node, dataset.classnames).items():
                row = dataset.train_rows.get(path)
                if row is not None and labels[row] == UNLABELED:
                    labels[row] = label
    return labels
