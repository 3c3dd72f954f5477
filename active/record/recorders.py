"""TensorBoard, for those who want it: the numbers of each round over the labels so far (`LOG.TENSORBOARD`)."""

import dataclasses
import time
from pathlib import Path

from active.record.folder import TENSORBOARD
from active.record.results import RoundRecord
from dassl.utils.errors import ConfigError
from dassl.utils.files import atomic_path


def check_tensorboard() -> None:
    """Raise ConfigError unless the package is installed."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"LOG.TENSORBOARD needs the package tensorboard ({error}): pip install tensorboard") from error


def add_round(output: Path, record: RoundRecord) -> None:
    """Write every number of a round as an event file of its own, whole or not at all; a repeated round replaces its file."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    numbers = dataclasses.asdict(record)
    numbers |= {f"seconds/{step}": seconds for step, seconds in numbers.pop("seconds").items()}
    values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items() if isinstance(value, (int, float))]
    now = time.time()
    path = output / TENSORBOARD / f"events.out.tfevents.round_{record.round:03d}"
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        writer = RecordWriter(file)
        for event in (Event(wall_time=now, file_version="brain.Event:2"),
                      Event(wall_time=now, step=record.n_labeled, summary=Summary(value=values))):
            writer.write(event.SerializeToString())
