"""The only training loop."""

import logging
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from dassl.utils.errors import TrainingError
from dassl.utils.events import event
from dassl.utils.progress import Progress

Batch = TypeVar("Batch")
logger = logging.getLogger(__name__)


class Epochs(list[float]):
    """The mean loss of each epoch; `rates` are the learning rates of their steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []


def fit(
    epochs: Iterable[Iterable[Batch]],
    loss_of: Callable[[Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    *,
    n_epochs: int,
    print_freq: int = 0,
    description: str = "training",
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> Epochs:
    """Take one optimizer step per batch and one scheduler step per epoch; return the mean loss and rate of each epoch.

    `after_epoch` is told the number of each epoch after its last step. Raises TrainingError, naming epoch, batch and
    learning rate, at the first loss that is not finite; the parameters are then still those before that batch.
    """
    means = Epochs()
    with Progress(description, n_epochs, "epoch") as progress:
        for epoch, batches in enumerate(epochs):
            losses = []
            for index, batch in enumerate(batches):
                loss = loss_of(batch)
                value = loss.item()
                if not math.isfinite(value):
                    rate = scheduler.get_last_lr()[0]
                    raise TrainingError(f"the loss is {value} in epoch {epoch}, batch {index}, at learning rate {rate:.3g}")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(value)
                event("train")
            means.append(sum(losses) / max(len(losses), 1))
            means.rates.append(scheduler.get_last_lr()[0])
            scheduler.step()
            after_epoch(epoch)
            progress.update(loss=f"{means[-1]:.3f}")
            if print_freq and (epoch + 1) % print_freq == 0:
                logger.debug("%s: epoch %d/%d, loss %.4f", description, epoch + 1, n_epochs, means[-1])
    return means
