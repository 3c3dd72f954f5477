"""From a config to a run: what `active.loop.run` is given."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor
from yacs.config import CfgNode

from active.audit import reserve
from active.known import read_known
from active.loop import run
from active.oracles.oracle import ORACLES, Oracle, Setting
from active.oracles.registry import asks_people
from active.plan import Run, Trainer
from active.record.folder import open_result
from active.record.recorders import build_recorders
from active.record.results import RunResult
from active.registry import SAMPLERS, audit_size, build_chosen, check_learner, initial_sampler, query_size, wrapped
from dassl.config.setup import as_dict
from dassl.data.answers import code_of, recorded
from dassl.data.dataset import UNLABELED, Dataset
from dassl.evaluation.evaluate import build_metrics
from dassl.utils.paths import exists
from dassl.utils.run_folder import RESULTS


def carry_out(
    cfg: CfgNode, dataset: Dataset, trainer: Trainer, selector: Trainer | None = None, *,
    certificate: Mapping[str, str] | None = None,
) -> RunResult:
    """Do the rounds of a whole config that its output folder does not hold yet, and return the record.

    `certificate` holds the hashes of `active.record.certificate`. Raises what `build_run`, `open_result` and `run` raise.
    """
    output = Path(cfg.OUTPUT_DIR)
    is_new = not exists(output / RESULTS)  # else the record holds them
    result = open_result(output, as_dict(cfg), dataset, certificate or {})
    if cfg.ACTIVE.KNOWN_LABELS and is_new:
        found = read_known(cfg.ACTIVE.KNOWN_LABELS, cfg.ACTIVE.RENAMED_CLASSES, dataset)
        result.known = {path: recorded(code) for path, code in found.items()}
    known = {path: code_of(answer) for path, answer in result.known.items()}
    return run(build_run(cfg, dataset, trainer, selector, known), result)


def build_run(
    cfg: CfgNode, dataset: Dataset, trainer: Trainer, selector: Trainer | None = None, known: Mapping[str, int] | None = None
) -> Run:
    """Return the run of a whole config; `known` are answers by path that are there before.

    Raises ConfigError if a sampler needs more than the selecting learner has.
    """
    _check_selector(cfg, selector is not None, selector or trainer)
    n_query = query_size(cfg.ACTIVE.QUERY_SIZE, len(dataset.train), len(dataset.classnames))
    output, names = Path(cfg.OUTPUT_DIR), (initial_sampler(cfg.ACTIVE), cfg.ACTIVE.SAMPLER)
    n_audited, known = audit_size(cfg.ACTIVE.AUDIT, len(dataset.train)), known or {}
    if known and cfg.ACTIVE.INITIAL_SAMPLER == "auto":
        names = (cfg.ACTIVE.SAMPLER,) * 2
    free = np.array([row for row, datum in enumerate(dataset.train) if datum.path not in known], dtype=np.int64)
    return Run(
        dataset, trainer, selector, samplers=tuple(build_chosen(name, cfg.ACTIVE) for name in names),
        oracle=build_oracle(cfg, dataset, n_query * cfg.ACTIVE.ROUNDS), metrics=build_metrics(cfg.TEST), n_query=n_query,
        n_rounds=cfg.ACTIVE.ROUNDS, seed=cfg.SEED, recorders=build_recorders(cfg.LOG, output), output=output,
        known=known, reserved=reserve(free, n_audited, cfg.ACTIVE.AUDIT_ROUNDS, cfg.SEED),
        watches=bool(n_audited or cfg.ACTIVE.STOP or asks_people(cfg.ACTIVE)), stop=cfg.ACTIVE.STOP)


def build_oracle(cfg: CfgNode, dataset: Dataset, budget: int) -> Oracle:
    """Return the oracle of a whole config, which hands out at most `budget` labels."""
    component = ORACLES[cfg.ACTIVE.ORACLE]
    setting = Setting(dataset, _known_labels(cfg.ACTIVE, dataset), budget, Path(cfg.OUTPUT_DIR))
    return component.build(setting, **component.arguments(cfg.ACTIVE.get(component.key, {})))


def _check_selector(cfg: CfgNode, is_given: bool, chooser: Trainer) -> None:
    name = cfg.ACTIVE.SELECTOR_TRAINER
    if bool(name) != is_given:
        raise ValueError(f"ACTIVE.SELECTOR_TRAINER is {name!r}, and a selector was {'' if is_given else 'not '}given")
    check_learner(cfg.ACTIVE, name or cfg.TRAINER.NAME, has_negative_texts=getattr(chooser, "has_negative_texts", False),
                  is_linear=getattr(chooser, "is_linear", True))


def _known_labels(node: CfgNode, dataset: Dataset) -> Tensor:
    """Return the labels of the train split, with what people answered in a record that a sampler repeats."""
    labels = dataset.labels("train")
    samplers = (initial_sampler(node), node.SAMPLER)
    for name in dict.fromkeys(name for sampler in samplers for name in wrapped(sampler, node)):
        if "answers" in SAMPLERS[name].facts:
            for path, label in SAMPLERS[name].facts["answers"](node, dataset.classnames).items():
                row = dataset.train_rows.get(path)
                if row is not None and labels[row] == UNLABELED:
                    labels[row] = label
    return labels
