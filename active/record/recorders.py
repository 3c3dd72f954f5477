"""Who writes down what happens in a run: `results.json`, and what else `LOG.RECORDERS` and `LOG.TRACKERS` name.

A recorder is registered as a function or class of the output folder (a Path) that returns a `Recorder`. One of a plug-in
writes below `output / "recorders"`: a folder that holds anything else is not a run's alone, and is never overwritten. What
it raises ends the run before the round is recorded, so that the round is done again; what `LOG.TRACKERS` names may fail, see
`Forgiven`. A keyword-only `dataset` that is annotated as `Given` is the data set. A fact `check`, a function without
arguments, raises ConfigError before anything is loaded where the recorder could not work.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from active.record.results import RunResult
from dassl.data.dataset import Dataset
from dassl.utils.errors import first_line
from dassl.utils.registry import Registry
from dassl.utils.run_folder import RESULTS

RECORDERS = Registry("recorder", "LOG", home="active.record.trackers", facts={"check": Callable})

# the mean loss of each epoch of a fit, by its step: "fit", "fit_selector", "warm_start"; where `dassl.engine.fit` took the
# steps, the learning rates of the epochs are `rates` of these losses
Losses = Mapping[str, Sequence[float]]

MEANWHILE = "the run goes on without the tracker %s until its end, and is recorded all the same: %s"
AT_THE_END = "the tracker %s was not told all of the run, which is recorded all the same: %s"

logger = logging.getLogger(__name__)


class Recorder:
    """Is told what happens in a run. Each method may be left as it is."""

    def begin(self, result: RunResult) -> None:
        """A run begins, or goes on after the rounds that its record holds."""

    def add_round(self, result: RunResult, losses: Losses) -> None:
        """A round has ended, the last one in the record. A run that is killed here does the round again and tells it again."""

    def end(self, result: RunResult) -> None:
        """All rounds are done, or, of a record of status "failed", one could not be."""


@RECORDERS.register("results")
class ResultsFile(Recorder):
    """Writes `results.json` at the start, so that the folder says whose it is, and whole after every round."""

    def __init__(self, output: Path):
        self._path = output / RESULTS

    def begin(self, result: RunResult) -> None:
        result.write(self._path)

    def add_round(self, result: RunResult, losses: Losses) -> None:
        result.write(self._path)

    def end(self, result: RunResult) -> None:
        result.write(self._path)


class Forgiven(Recorder):
    """A tracker, which may fail: the run goes on without it, and at its end tells it all that it has missed."""

    def __init__(self, name: str, recorder: Recorder):
        self._name, self._recorder = name, recorder
        self._waiting: list[tuple[Any, ...]] = []  # what it is to be told: the method and its arguments
        self._is_away = False

    def begin(self, result: RunResult) -> None:
        self._tell("begin", result)

    def add_round(self, result: RunResult, losses: Losses) -> None:
        self._tell("add_round", result, losses)

    def end(self, result: RunResult) -> None:
        self._is_away = False
        self._tell("end", result)

    def _tell(self, method: str, result: RunResult, *more: Losses) -> None:
        is_end = method == "end"
        self._waiting.append((method, replace(result, rounds=[*result.rounds]), *more))
        try:
            while self._waiting and not self._is_away:
                method, *arguments = self._waiting[0]
                getattr(self._recorder, method)(*arguments)
                del self._waiting[0]
        except Exception as error:  # whatever a service and its package raise
            self._is_away = True
            logger.warning(AT_THE_END if is_end else MEANWHILE, self._name, first_line(error))


def build_recorders(cfg: CfgNode, output: Path, dataset: Dataset | None = None) -> list[Recorder]:
    """Return the recorders of a `LOG` node, which are given the data set if they take it.

    Of those that must not fail `results.json` comes last, since a round that is in there is not done again. Trackers, which
    may fail or take long, are told afterwards.
    """
    needed, trackers = _names(cfg)
    return [*(_built(cfg, name, output, dataset) for name in needed),
            *(Forgiven(name, _built(cfg, name, output, dataset)) for name in trackers)]


def _built(cfg: CfgNode, name: str, output: Path, dataset: Dataset | None) -> Recorder:
    component = RECORDERS[name]
    given = {"dataset": dataset} if "dataset" in component.given else {}
    return component.build(output, **component.arguments(cfg.get(component.key, {})), **given)


def _names(cfg: CfgNode) -> tuple[list[str], list[str]]:
    """Return the names of the recorders that must not fail, and of those that may, each once."""
    names = dict.fromkeys([*cfg.RECORDERS, *(["tensorboard"] if cfg.TENSORBOARD else [])])
    trackers = dict.fromkeys(name for name in cfg.TRACKERS if name != "results" and name not in names)
    return [*(name for name in names if name != "results"), "results"], [*trackers]


def check_recorders(cfg: CfgNode) -> None:
    """Raise ConfigError if a recorder of a `LOG` node is unknown or could not work."""
    needed, trackers = _names(cfg)
    for name in (*needed, *trackers):
        RECORDERS[name].facts.get("check", lambda: None)()
