"""What trackers are told about a round, and the part that all services have in common."""

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from active.record.recorders import Losses, Recorder
from active.record.report import has_curve, learning_curve
from active.record.results import RunResult, numbers
from dassl.data.dataset import Dataset
from dassl.utils.errors import DataError, UserError, first_line
from dassl.utils.files import read_json, write_json
from dassl.utils.paths import exists
from dassl.utils.run_folder import RECORDERS as FOLDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """One round: its numbers, the series of its epochs (`loss/fit/round_003`, `learning_rate/...`), and PNG files by name."""

    round: int
    n_labeled: int
    numbers: Mapping[str, float]
    epochs: Mapping[str, Sequence[float]]
    images: Mapping[str, bytes]


def told(result: RunResult, losses: Losses, dataset: Dataset | None) -> Told:
    """Return the last round of a record, with the curve up to it and, given the data set, the contact sheet of its query."""
    record = result.rounds[-1]
    epochs = {f"loss/{step}/round_{record.round:03d}": values for step, values in losses.items()}
    epochs |= {f"learning_rate/{step}/round_{record.round:03d}": rates for step, values in losses.items()
               if (rates := getattr(values, "rates", ()))}
    images = {"learning_curve": _png(learning_curve(result))} if has_curve(result) else {}
    if dataset is not None and record.queried and (sheet := _sheet(result, dataset)):
        images["query"] = sheet
    return Told(record.round, record.n_labeled, numbers(record), epochs, images)


def _sheet(result: RunResult, dataset: Dataset) -> bytes | None:
    """Return the contact sheet of the last query as a PNG file, None where an image can no longer be read."""
    from active.analysis.picks import draw_sheet  # imported here because it needs pandas and matplotlib

    try:
        return _png(draw_sheet(replace(result, rounds=result.rounds[-1:]), dataset))
    except UserError as error:
        logger.warning("round %d has no contact sheet: %s", result.rounds[-1].round, first_line(error))
        return None


def _png(figure: "Figure") -> bytes:
    from active.analysis.style import png_of  # imported here because it needs matplotlib

    return png_of(figure, 150)


def title(result: RunResult) -> str:
    """Return a name for a run: data set, learner, sampler and seed."""
    config = result.config
    return f"{result.dataset['name']} {config['TRAINER']['NAME']} {config['ACTIVE']['SAMPLER']} seed {config['SEED']}"


class Tracker(Recorder, ABC):
    """Tells a service each round once, also in a continued run.

    A note in the output folder holds the run's name at the service, chosen before it is begun there, and the number of rounds
    told. Rounds that are only in the record are told when the run is continued, without losses, which no record holds.
    """

    service: str

    def __init__(self, output: Path, dataset: Dataset | None):
        self.output, self._dataset = output, dataset
        self.run, self.n_told = "", 0

    @abstractmethod
    def open(self, result: RunResult) -> None:
        """Begin the run `self.run`, or go on with it; set `n_told` to 0 if the service no longer knows it."""

    @abstractmethod
    def tell(self, told: Told) -> None:
        """Tell a round, which may have been told before if the process was killed then."""

    @abstractmethod
    def close(self, status: str) -> None:
        """End the run: "finished" or "failed"."""

    def begin(self, result: RunResult) -> None:
        self.run, self.n_told = self._noted()
        self._note()
        self.open(result)
        for n_rounds in range(self.n_told + 1, len(result.rounds) + 1):
            self.add_round(replace(result, rounds=result.rounds[:n_rounds]), {})

    def add_round(self, result: RunResult, losses: Losses) -> None:
        if len(result.rounds) <= self.n_told:
            return
        self.tell(told(result, losses, self._dataset))
        self.n_told = len(result.rounds)
        self._note()

    def end(self, result: RunResult) -> None:
        self.close(result.status)

    @property
    def _path(self) -> Path:
        return self.output / FOLDER / f"{self.service}.json"

    def _noted(self) -> tuple[str, int]:
        if not exists(self._path):
            return uuid.uuid4().hex, 0
        try:
            note = read_json(self._path)
            return str(note["run"]), int(note["n_told"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{self._path} is damaged; without it the run begins anew at {self.service}") from error

    def _note(self) -> None:
        write_json(self._path, {"run": self.run, "n_told": self.n_told})
