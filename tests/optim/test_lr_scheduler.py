"""The learning rate of every epoch."""

import math
from itertools import pairwise

import pytest
import torch
from yacs.config import CfgNode

from dassl.config.defaults import default_config
from dassl.optim.lr_scheduler import build_scheduler, check_schedule
from dassl.utils.errors import ConfigError


def optim(**values) -> CfgNode:
    cfg = default_config().OPTIM
    cfg.update(values)
    return cfg


def rates(cfg: CfgNode) -> list[float]:
    """Return the rate of each epoch, as the optimizer has it. Warnings of torch are errors in all tests."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.LR)
    scheduler = build_scheduler(optimizer, cfg)
    found = []
    for _ in range(cfg.MAX_EPOCH):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def cosine(cfg: CfgNode, epoch: int) -> float:
    return 0.5 * cfg.LR * (1 + math.cos(math.pi * (epoch - cfg.WARMUP_EPOCH) / cfg.MAX_EPOCH))


def closed_form(cfg: CfgNode) -> list[float]:
    warm_up = {"constant": [cfg.WARMUP_CONS_LR] * cfg.WARMUP_EPOCH,
               "linear": [cfg.WARMUP_MIN_LR, *(cfg.LR * epoch / cfg.WARMUP_EPOCH for epoch in range(1, cfg.WARMUP_EPOCH))]}
    return [warm_up[cfg.WARMUP_TYPE][epoch] if epoch < cfg.WARMUP_EPOCH else cosine(cfg, epoch)
            for epoch in range(cfg.MAX_EPOCH)]


@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("n_warm_up", [0, 1, 3])
@pytest.mark.parametrize("n_epochs", [1, 2, 50, 200])
def test_cosine_with_warm_up_is_the_closed_form(n_epochs, n_warm_up, kind):
    """After the warm-up the cosine starts at its own epoch 0 and counts all epochs, also if the warm-up is longer than they."""
    cfg = optim(MAX_EPOCH=n_epochs, WARMUP_EPOCH=n_warm_up, WARMUP_TYPE=kind, WARMUP_CONS_LR=1e-4, WARMUP_MIN_LR=1e-6)
    assert rates(cfg) == pytest.approx(closed_form(cfg), rel=1e-9, abs=1e-15)


def test_coops_last_epoch_has_the_published_rate():
    """200 epochs, one of them warm-up: from 1e-5 over 0.002 down to 4.9e-7, never zero."""
    found = rates(optim())
    assert [f"{rate:.2g}" for rate in (*found[:2], found[-1])] == ["1e-05", "0.002", "4.9e-07"]


@pytest.mark.parametrize("n_warm_up", [0, 2])
@pytest.mark.parametrize(("schedule", "step_size", "expected"), [
    ("constant", (-1,), [1.0] * 6),
    ("single_step", 2, [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    ("single_step", (2,), [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]),
    ("single_step", (-1,), [1.0] * 6),
    ("multi_step", (1, 4), [1.0, 0.1, 0.1, 0.1, 0.01, 0.01]),
])
def test_steps_count_from_the_end_of_the_warm_up(schedule, step_size, expected, n_warm_up):
    """The factor of each epoch is computed by hand. -1 means never."""
    cfg = optim(LR=3.0, LR_SCHEDULER=schedule, STEPSIZE=step_size, MAX_EPOCH=6 + n_warm_up, WARMUP_EPOCH=n_warm_up)
    assert rates(cfg)[n_warm_up:] == pytest.approx([3.0 * factor for factor in expected])


def test_a_learning_rate_of_zero_stays_zero():
    """The warm-up must not divide by zero."""
    assert rates(optim(LR=0.0, MAX_EPOCH=3)) == [0.0, 0.0, 0.0]


def test_the_linear_warm_up_rises():
    """Each epoch's rate is above the last one's, up to the full rate."""
    found = rates(optim(MAX_EPOCH=6, WARMUP_EPOCH=5, WARMUP_TYPE="linear"))
    assert all(earlier < later for earlier, later in pairwise(found))
    assert found[-1] == pytest.approx(0.002)


@pytest.mark.parametrize(("schedule", "step_size", "reason"), [
    ("single_step", (10, 20), "one number"), ("single_step", (), "one number"),
    ("single_step", (0.5,), "epochs"), ("multi_step", (10, 20.5), "epochs"), ("multi_step", ("a",), "epochs"),
    ("multi_step", (0, 5), "epochs"), ("single_step", (-2,), "epochs"), ("multi_step", (True,), "epochs"),
    ("multi_step", ((1,),), "epochs")])
def test_steps_that_do_not_fit_the_schedule_are_refused(schedule, step_size, reason):
    """Before anything is loaded (row 14 of the faults table)."""
    with pytest.raises(ConfigError, match=rf"OPTIM\.STEPSIZE is .*{reason}"):
        check_schedule(optim(LR_SCHEDULER=schedule, STEPSIZE=step_size))


@pytest.mark.parametrize(("schedule", "step_size"), [
    ("single_step", 10), ("single_step", (-1,)), ("multi_step", (10, 20)), ("cosine", (0.5,)), ("constant", ())])
def test_steps_that_fit_the_schedule_or_do_not_matter_to_it_pass(schedule, step_size):
    """A single number needs no brackets."""
    check_schedule(optim(LR_SCHEDULER=schedule, STEPSIZE=step_size))
