"""TensorBoard, for those who want it: the numbers of each round over the labels so far (`LOG.TENSORBOARD`)."""

import dataclasses
from pathlib import Path

from active.results import RoundRecord
from dassl.utils.errors import ConfigError

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raise ConfigError unless the package is installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"LOG.TENSORBOARD needs the package tensorboard ({error}): pip install tensorboard") from error


def add_round(output: Path, record: RoundRecord) -> None:
    """Write every number of a round as an event file of its own, which a continued run does not touch."""
    from torch.utils.tensorboard import SummaryWriter

    numbers = dataclasses.asdict(record)
    numbers |= {f"seconds/{step}": seconds for step, seconds in numbers.pop("seconds").items()}
    with SummaryWriter(str(output / FOLDER), filename_suffix=f".round_{record.round:03d}") as writer:
        for name, value in numbers.items():
            if isinstance(value, (int, float)):
                writer.add_scalar(name, value, record.n_labeled)
