"""The recorders of a run: `results.json`, and those that `LOG.RECORDERS` and `LOG.TRACKERS` name.

A recorder is registered as a function or class of the output folder (a Path) that returns a `Recorder`. A plug-in's recorder
writes below `output / "recorders"`: an output folder with other foreign files is never moved aside by --overwrite. An error
that it raises ends the run before the round is recorded, so the round is done again; those that `LOG.TRACKERS` names may
fail, see `Forgiven`. A keyword-only parameter `dataset` annotated as `Given` is the data set. A fact `check`, a function
without arguments, raises ConfigError before anything is loaded where the recorder could not work.
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

# the mean loss of each epoch, by step of the round: "fit", "fit_selector", "warm_start"; if `dassl.engine.fit` ran it, the
# attribute `rates` of these losses holds the learning rates of the epochs
Losses = Mapping[str, Sequence[float]]

MEANWHILE = "the run goes on without the tracker %s until its end, and is recorded all the same: %s"
AT_THE_END = "the tracker %s was not told all of the run, which is recorded all the same: %s"

logger = logging.getLogger(__name__)


class Recorder:
    """Is told what happens in a run. No method has to be overridden."""

    def begin(self, result: RunResult) -> None:
        """A run begins, or goes on after the rounds that its record holds."""

    def add_round(self, result: RunResult, losses: Losses) -> None:
        """A round has ended, the last one in the record. A run that is killed here does the round again and tells it again."""

    def end(self, result: RunResult) -> None:
        """All rounds are done, or, if the record's status is "failed", one could not be done."""


@RECORDERS.register("results")
class ResultsFile(Recorder):
    """Writes `results.json` at the start, so that the folder shows which run it belongs to, and after every round."""

    def __init__(self, output: Path):
        self._path = output / RESULTS

    def begin(self, result: RunResult) -> None:
        result.write(self._path)

    def add_round(self, result: RunResult, losses: Losses) -> None:
        result.write(self._path)

    def end(self, result: RunResult) -> None:
        result.write(self._path)


class Forgiven(Recorder):
    """A tracker, which may fail: the run goes on without it, and at its end tells it everything that it has missed."""

    def __init__(self, name: str, recorder: Recorder):
        self._name, self._recorder = name, recorder
        self._waiting: list[tuple[Any, ...]] = []  # what it has yet to be told: methods and their arguments
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
        except Exception as error:  # a service and its package may raise anything
            self._is_away = True
            logger.warning(AT_THE_END if is_end else MEANWHILE, self._name, first_line(error))


def build_recorders(cfg: CfgNode, output: Path, dataset: Dataset | None = None) -> list[Recorder]:
    """Return the recorders of a `LOG` node, which are given the data set if they take it.

    Of those that must not fail, `results.json` comes last, since a round that is in it is not done again. Trackers, which
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
