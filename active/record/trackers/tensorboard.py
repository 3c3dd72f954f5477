"""TensorBoard, through event files in the output folder."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from active.record.recorders import RECORDERS, Losses, Recorder
from active.record.results import RunResult
from active.record.trackers.told import told
from dassl.data.dataset import Dataset
from dassl.utils.errors import ConfigError
from dassl.utils.files import atomic_path
from dassl.utils.paths import exists
from dassl.utils.registry import Given
from dassl.utils.run_folder import TENSORBOARD

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary


def check_tensorboard() -> None:
    """Raise ConfigError unless the package is installed."""
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"TensorBoard (LOG.TENSORBOARD or LOG.TRACKERS) needs the package tensorboard ({error}): "
                          "pip install tensorboard") from error


@RECORDERS.register("tensorboard", check=check_tensorboard)
class TensorBoard(Recorder):
    """Each round's numbers over the labels so far, losses and rates over its epochs, and its images, as event files.

    Each file is complete or absent, and a repeated round replaces its file. Earlier rounds without a file get one.
    """

    def __init__(self, output: Path, *, dataset: Annotated[Dataset | None, Given()] = None):
        self._folder, self._dataset = output / TENSORBOARD, dataset

    def begin(self, result: RunResult) -> None:
        about = {"config": result.config, "certificate": result.certificate}
        self._write("config", [(0, [_text(name, value) for name, value in about.items()])])
        for n_rounds, record in enumerate(result.rounds, start=1):
            if not exists(self._path(_name(record.round))):
                self.add_round(replace(result, rounds=result.rounds[:n_rounds]), {})

    def add_round(self, result: RunResult, losses: Losses) -> None:
        one = told(result, losses, self._dataset)
        epochs = [(epoch, _scalars({name: value})) for name, values in one.epochs.items() for epoch, value in enumerate(values)]
        images = [_image(name, content) for name, content in one.images.items()]
        self._write(_name(one.round), [(one.n_labeled, _scalars(one.numbers) + images), *epochs])

    def _path(self, name: str) -> Path:
        return self._folder / f"events.out.tfevents.{name}"

    def _write(self, name: str, steps: list[tuple[int, list["Summary.Value"]]]) -> None:
        """Write an event file of steps and the values at each."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        events = [Event(wall_time=now, step=step, summary=Summary(value=values)) for step, values in steps]
        with atomic_path(self._path(name)) as temporary, temporary.open("wb") as file:
            writer = RecordWriter(file)
            for event in [Event(wall_time=now, file_version="brain.Event:2"), *events]:
                writer.write(event.SerializeToString())


def _name(round: int) -> str:
    return f"round_{round:03d}"


def _scalars(values: Mapping[str, float]) -> list["Summary.Value"]:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]


def _image(name: str, content: bytes) -> "Summary.Value":
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=name, image=Summary.Image(encoded_image_string=content, colorspace=4))


def _text(name: str, value: Any) -> "Summary.Value":
    """Return JSON as TensorBoard shows it: indented by four, which in Markdown is code."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    lines = "".join(f"    {line}\n" for line in json.dumps(value, indent=2).splitlines())
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
                         string_val=[lines.encode()])
    return Summary.Value(tag=name, tensor=tensor, metadata=create_summary_metadata(display_name=name, description=""))
