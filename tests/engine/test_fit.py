"""The training loop, on one parameter."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dassl.config.defaults import default_config
from dassl.engine.fit import _Steps, fit, rows_in_parts
from dassl.optim.lr_scheduler import build_scheduler
from dassl.utils.errors import TrainingError, UserError


class Run:
    """One parameter, a plain SGD of rate 1 and a schedule over `n_epochs`; `parameter * batch` is the default loss."""

    def __init__(self, n_epochs: int = 3, **schedule):
        cfg = default_config().OPTIM
        cfg.update(LR=1.0, MAX_EPOCH=n_epochs, LR_SCHEDULER="constant", WARMUP_EPOCH=0)
        cfg.update(schedule)
        self.n_epochs = n_epochs
        self.parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.optimizer = torch.optim.SGD([self.parameter], lr=cfg.LR)
        self.scheduler = build_scheduler(self.optimizer, cfg)

    def times(self, batch: float) -> Tensor:
        return (self.parameter * batch).sum()

    def fit(self, epochs, loss_of=None, **arguments) -> list[float]:
        return fit(epochs, loss_of or self.times, self.optimizer, self.scheduler, n_epochs=self.n_epochs, **arguments)


def test_every_batch_is_one_step_of_its_own_gradient():
    """With rate 1 and loss p * batch, p ends at minus the sum of all batches: no gradient is lost or added up."""
    run = Run()
    run.fit([[1.0, 2.0], [4.0], [8.0, 16.0, 32.0]])
    assert run.parameter.item() == -63.0


def test_the_rate_of_each_epoch_is_the_closed_form():
    """The schedule steps once an epoch, after its last batch: cosine over 5 epochs after one of warm-up at 0.25."""
    run, seen = Run(5, LR_SCHEDULER="cosine", WARMUP_EPOCH=1, WARMUP_CONS_LR=0.25), []

    def loss_of(batch: float) -> Tensor:
        seen.append(run.optimizer.param_groups[0]["lr"])
        return run.times(batch)

    means = run.fit([[1.0, 1.0, 1.0]] * 5, loss_of)
    expected = [0.25, *(0.5 * (1 + math.cos(math.pi * epoch / 5)) for epoch in range(4))]
    assert seen == pytest.approx([rate for rate in expected for _ in range(3)])
    assert means.rates == seen[::3]  # which trackers are told


def test_the_mean_loss_of_each_epoch_is_returned():
    """The mean is over the epoch's batches, of the losses before their steps."""
    run = Run()
    means = run.fit(iter([iter([1.0, 2.0]), iter([4.0]), iter([3.0, 3.0, 9.0])]), lambda batch: run.times(0.0) + batch)
    assert means == [1.5, 4.0, 5.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_its_step(bad):
    """Row 17 of the faults table: epoch, batch and learning rate are named, the parameters are those before that batch."""
    run = Run(LR_SCHEDULER="single_step", STEPSIZE=(1,), GAMMA=0.5)
    with pytest.raises(TrainingError, match=rf"loss is {bad} in epoch 1, batch 2, at learning rate 0\.5"):
        run.fit([[0.0], [0.0, 0.0, bad, 0.0]], lambda batch: run.times(2.0) + batch)
    assert run.parameter.item() == -2 - 0.5 * (2 + 2)


def test_the_end_of_each_epoch_is_told_after_its_last_step():
    """It has the epoch's number, and the parameters are those after all its batches."""
    run, seen = Run(), []
    run.fit([[1.0, 2.0], [4.0], [8.0]], after_epoch=lambda epoch: seen.append((epoch, run.parameter.item())))
    assert seen == [(0, -3.0), (1, -7.0), (2, -15.0)]


def test_no_epochs_train_nothing():
    """With MAX_EPOCH 0 the prompts stay as initialized."""
    run = Run(0)
    assert run.fit([]) == []
    assert run.parameter.item() == 0.0


@pytest.mark.parametrize(("print_freq", "epochs"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4]), (9, [])])
def test_the_loss_is_logged_every_so_many_epochs(caplog, print_freq, epochs):
    """A line names the run's step, the epoch and the loss."""
    run = Run(5)
    with caplog.at_level("DEBUG", "dassl"):
        run.fit([[1.0]] * 5, lambda batch: run.times(0.0) + batch, print_freq=print_freq, description="round 0")
    assert caplog.messages == [f"round 0: epoch {epoch}/5, loss 1.0000" for epoch in epochs]


class Batches:
    """A linear model on batches of tensors. Memory has room for at most `room` rows at once."""

    def __init__(self, room: int):
        self.weight = nn.Parameter(torch.arange(3, dtype=torch.float64))
        self.room, self.sizes = room, []

    def loss_of(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        rows, targets = batch
        self.sizes.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return (rows @ self.weight - targets).square().mean() + self.weight.square().sum()

    def fit(self, **arguments) -> list[float]:
        generator = torch.Generator().manual_seed(0)
        batches = [tuple(torch.randn(n, *shape, generator=generator, dtype=torch.float64) for shape in ((3,), ()))
                   for n in (7, 7, 2)]
        optimizer = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        return fit([batches] * 2, self.loss_of, optimizer, scheduler, n_epochs=2, **arguments)


@pytest.mark.parametrize(("room", "first", "warned"), [(6, [7, 4, 3, 4, 3, 1, 1], 1), (2, [7, 4, 2, 2, 2, 1, 2, 2, 2, 1], 2)])
def test_a_batch_that_finds_no_memory_is_taken_in_parts(caplog, room, first, warned):
    """The gradient and loss are those of the whole batch, and the following batches are taken in parts too."""
    whole, parted = Batches(99), Batches(room)
    expected, found = whole.fit(), parted.fit(parts_of=rows_in_parts)
    assert found == pytest.approx(expected, rel=1e-12) and torch.allclose(parted.weight, whole.weight, rtol=1e-12, atol=0)
    assert parted.sizes[:len(first)] == first
    assert sum("out of memory: going on with batches in" in message for message in caplog.messages) == warned


def test_a_step_that_is_taken_again_draws_the_same_numbers():
    """As the loss of DualPrompt draws wrong classes: a run that once found no memory trains as any other does."""
    def fitted(room: int) -> list[float]:
        batches, rng = Batches(room), np.random.default_rng(0)
        plain = batches.loss_of

        def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
            rows, targets = batch
            return plain((rows, targets + torch.from_numpy(rng.normal(size=len(rows)))))

        def remember():
            state = rng.bit_generator.state
            return lambda: setattr(rng.bit_generator, "state", state)

        batches.loss_of = loss_of
        return batches.fit(parts_of=rows_in_parts, remember=remember)

    assert fitted(room=4) == pytest.approx(fitted(room=99), rel=1e-12)


@pytest.mark.parametrize("arguments", [{}, {"parts_of": rows_in_parts}])
def test_a_step_that_finds_no_memory_in_the_smallest_parts_is_one_line(arguments):
    """It says what needs less memory."""
    with pytest.raises(UserError, match=r"out of memory in a step of training: CUDA out of memory\. MODEL\.PREC bf16") as error:
        Batches(0).fit(**arguments)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_kept_holds_no_graph():
    """On a card, losses are kept until the epoch is over."""
    own = nn.Parameter(torch.ones(3))
    steps = _Steps(lambda batch: (own * batch).sum(), torch.optim.SGD([own], 0.1), None, lambda: lambda: None)
    assert not steps._gradient(torch.ones(3)).requires_grad
