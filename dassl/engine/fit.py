"""The only training loop."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from dassl.utils.errors import TrainingError, UserError
from dassl.utils.events import event
from dassl.utils.progress import Progress

Batch = TypeVar("Batch")
Parts = Callable[[Batch, int], Sequence[tuple[Batch, float]]]  # at most n parts of a batch, and the share of each
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
    parts_of: Parts[Batch] | None = None,
    remember: Callable[[], Callable[[], object]] = lambda: lambda: None,
) -> Epochs:
    """Take one optimizer step per batch and one scheduler step per epoch; return the mean loss and rate of each epoch.

    `after_epoch` is told the number of each epoch after its last step. A batch that finds no room on a card is taken in parts
    as `parts_of` makes them, for a loss that is the sum of share times loss over parts; without it, UserError. What the loss
    had drawn for it is drawn again: `remember` returns what puts its random streams back to where they are. Raises
    TrainingError, naming epoch, batch and learning rate, at the first loss that is not finite, on a card at the end of its
    epoch; the parameters are then still those before that batch.
    """
    means, steps = Epochs(), _Steps(loss_of, optimizer, parts_of, remember)
    with Progress(description, n_epochs, "epoch") as progress:
        for epoch, batches in enumerate(epochs):
            rate = scheduler.get_last_lr()[0]
            steps.begin(f"in epoch {epoch}, batch {{}}, at learning rate {rate:.3g}")
            for batch in batches:
                steps.take(batch)
                event("train")
            means.append(steps.mean())
            means.rates.append(rate)
            scheduler.step()
            after_epoch(epoch)
            progress.update(loss=f"{means[-1]:.3f}")
            if print_freq and (epoch + 1) % print_freq == 0:
                logger.debug("%s: epoch %d/%d, loss %.4f", description, epoch + 1, n_epochs, means[-1])
    return means


class _Steps(Generic[Batch]):
    """Takes the steps of a fit, and knows the losses of the epoch that it is in.

    On the CPU, each loss is checked before its step. On a card this would mean waiting: there, the parameters stay as they
    are from the first loss that is not finite, and all losses are read at once when the epoch is over.
    """

    def __init__(self, loss_of: Callable[[Batch], Tensor], optimizer: torch.optim.Optimizer, parts_of: Parts[Batch] | None,
                 remember: Callable[[], Callable[[], object]]):
        self._loss_of, self._optimizer, self._parts_of, self._remember = loss_of, optimizer, parts_of, remember
        self._parameters = [own for group in optimizer.param_groups for own in group["params"]]
        self._n_parts = 1
        self.begin("")

    def begin(self, where: str) -> None:
        """Begin an epoch; `where` names the place of a batch, given its number."""
        self._where = where
        self._losses: list[float | Tensor] = []
        self._fine: Tensor | None = None  # on a card: whether all losses so far are finite

    def take(self, batch: Batch) -> None:
        """Take the step of a batch, if its loss and all before it are finite."""
        loss = self._gradient(batch)
        if loss.is_cuda:
            self._losses.append(loss)
            self._fine = loss.isfinite() if self._fine is None else self._fine & loss.isfinite()
            self._step_if(self._fine)
        else:
            self._losses.append(loss.item())
            self._check(len(self._losses) - 1)
            self._optimizer.step()

    def mean(self) -> float:
        """Return the mean of the epoch's losses, 0 for none."""
        if self._fine is not None:
            self._losses = torch.stack(self._losses).tolist()
            for index in range(len(self._losses)):
                self._check(index)
        return sum(self._losses) / max(len(self._losses), 1)

    def _gradient(self, batch: Batch) -> Tensor:
        """Compute the gradients of a batch, in as many parts as were needed to fit so far, and return its loss."""
        parts, draw_again = self._parts(batch), self._remember()
        self._forget_gradients()
        try:
            losses = [self._gradient_of(part, share) for part, share in parts]
        except torch.OutOfMemoryError as error:
            self._n_parts *= 2
            if len(self._parts(batch)) == len(parts):
                raise UserError(f"out of memory in a step of training: {str(error).splitlines()[0]} MODEL.PREC bf16 takes "
                                "about half of it, and a smaller DATALOADER.TRAIN_X.BATCH_SIZE may take less") from error
            logger.warning("out of memory: going on with batches in %d parts", self._n_parts)
        else:
            return losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self._forget_gradients()
        torch.cuda.empty_cache()
        draw_again()
        return self._gradient(batch)

    def _forget_gradients(self) -> None:
        for own in self._parameters:  # `optimizer.zero_grad` runs hooks, which a small head's step notices
            own.grad = None

    def _parts(self, batch: Batch) -> Sequence[tuple[Batch, float]]:
        if self._n_parts == 1 or self._parts_of is None:
            return [(batch, 1.0)]
        return self._parts_of(batch, self._n_parts)

    def _gradient_of(self, part: Batch, share: float) -> Tensor:
        loss = self._loss_of(part)
        if share != 1:
            loss = share * loss
        loss.backward()
        return loss.detach()

    def _step_if(self, fine: Tensor) -> None:
        """Take the optimizer's step, and undo it on the card unless all losses are finite."""
        before = [own.detach().clone() for own in self._parameters]
        self._optimizer.step()
        with torch.no_grad():
            for own, old in zip(self._parameters, before, strict=True):
                own.copy_(own.where(fine, old))

    def _check(self, index: int) -> None:
        if not math.isfinite(self._losses[index]):
            raise TrainingError(f"the loss is {self._losses[index]} {self._where.format(index)}")


def rows_in_parts(batch: tuple[Tensor, ...], n: int) -> list[tuple[tuple[Tensor, ...], float]]:
    """Return a batch of tensors [B, ...] in n parts, or in as many as it has rows, each with its share of the rows."""
    n_rows = len(batch[0])
    parts = zip(*(own.tensor_split(min(n, n_rows)) for own in batch), strict=True)
    return [(part, len(part[0]) / n_rows) for part in parts]
