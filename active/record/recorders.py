"""Who writes down what happens in a run: `results.json`, and what else `LOG.RECORDERS` names.

A recorder is registered as a function or class of the output folder (a Path) that returns a `Recorder`. One of a plug-in
writes below `output / "recorders"`: a folder that holds anything else is not a run's alone, and is never overwritten. What
it raises ends the run before the round is recorded, so that the round is done again. A fact `check`, a
function without arguments, raises ConfigError before anything is loaded where the recorder could not work.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from yacs.config import CfgNode

from active.record.results import RunResult, numbers
from dassl.utils.errors import ConfigError
from dassl.utils.files import atomic_path
from dassl.utils.registry import Registry
from dassl.utils.run_folder import RESULTS, TENSORBOARD

RECORDERS = Registry("recorder", "LOG", facts={"check": Callable})

Losses = Mapping[str, Sequence[float]]  # the mean loss of each epoch of a fit, by its step: "fit", "fit_selector", "warm_start"


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


def check_tensorboard() -> None:
    """Raise ConfigError unless the package is installed."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"LOG.TENSORBOARD needs the package tensorboard ({error}): pip install tensorboard") from error


@RECORDERS.register("tensorboard", check=check_tensorboard)
class TensorBoard(Recorder):
    """The numbers of each round over the labels so far, and the losses of its epochs, as event files for TensorBoard."""

    def __init__(self, output: Path):
        self._folder = output / TENSORBOARD

    def add_round(self, result: RunResult, losses: Losses) -> None:
        """Write a round as an event file of its own, whole or not at all; a repeated round replaces its file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        def event(step: int, values: Mapping[str, float]) -> Event:
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
            return Event(wall_time=now, step=step, summary=summary)

        now, record = time.time(), result.rounds[-1]
        path = self._folder / f"events.out.tfevents.round_{record.round:03d}"
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            writer = RecordWriter(file)
            writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
            writer.write(event(record.n_labeled, numbers(record)).SerializeToString())
            for step, values in losses.items():
                for epoch, value in enumerate(values):
                    writer.write(event(epoch, {f"loss/{step}/round_{record.round:03d}": value}).SerializeToString())


def build_recorders(cfg: CfgNode, output: Path) -> list[Recorder]:
    """Return the recorders of a `LOG` node; `results.json` comes last, since a round that is in there is not done again."""
    components = map(RECORDERS.__getitem__, _names(cfg))
    return [component.build(output, **component.arguments(cfg[component.key] if component.parameters else {}))
            for component in components]


def _names(cfg: CfgNode) -> list[str]:
    """Return the names of the recorders that a `LOG` node asks for, each once."""
    names = [*cfg.RECORDERS, *(["tensorboard"] if cfg.TENSORBOARD else [])]
    return [*dict.fromkeys(name for name in names if name != "results"), "results"]


def check_recorders(cfg: CfgNode) -> None:
    """Raise ConfigError if a recorder of a `LOG` node is unknown or could not work."""
    for name in _names(cfg):
        RECORDERS[name].facts.get("check", lambda: None)()
