"""Learning-rate schedules in closed form, one factor per epoch, with Dassl's warm-up.

In the warm-up epochs the rate is constant (or linear); then the main schedule begins at its own epoch 0 and still counts
`MAX_EPOCH`. So cosine with one warm-up epoch over E epochs is `1e-5` in epoch 0 and
`lr (1 + cos(pi (e - 1) / E)) / 2` in epoch e >= 1, and never reaches zero.

(torch's SequentialLR of ConstantLR and CosineAnnealingLR gives the same rates, but warns about its own calls before
torch 2.5.)
"""

import math

import torch
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError


def build_scheduler(optimizer: torch.optim.Optimizer, cfg: CfgNode) -> LambdaLR:
    """Return the schedule of an `OPTIM` node. Step it once per epoch, after the epoch's last optimizer step."""
    return LambdaLR(optimizer, lambda epoch: _factor(epoch, cfg))


def check_schedule(cfg: CfgNode) -> None:
    """Raise ConfigError if `OPTIM.STEPSIZE` does not fit the schedule."""
    steps = _steps(cfg)
    if cfg.LR_SCHEDULER == "single_step" and len(steps) != 1:
        raise ConfigError(f"OPTIM.STEPSIZE is {cfg.STEPSIZE}, but single_step takes one number")
    fits = all(type(step) is int and step != 0 and step >= -1 for step in steps)
    if cfg.LR_SCHEDULER in ("single_step", "multi_step") and not fits:
        raise ConfigError(f"OPTIM.STEPSIZE is {cfg.STEPSIZE}, but must hold epochs from 1 on, or -1 for MAX_EPOCH")


def _factor(epoch: int, cfg: CfgNode) -> float:
    """Return the learning rate of an epoch as a share of `OPTIM.LR`."""
    if epoch < cfg.WARMUP_EPOCH:
        if cfg.WARMUP_TYPE == "linear" and epoch > 0:
            return epoch / cfg.WARMUP_EPOCH
        first = cfg.WARMUP_CONS_LR if cfg.WARMUP_TYPE == "constant" else cfg.WARMUP_MIN_LR
        return first / cfg.LR if cfg.LR else 1.0
    epoch, n_epochs = epoch - cfg.WARMUP_EPOCH, max(cfg.MAX_EPOCH, 1)
    if cfg.LR_SCHEDULER == "cosine":
        return (1 + math.cos(math.pi * epoch / n_epochs)) / 2
    if cfg.LR_SCHEDULER == "constant":
        return 1.0
    steps = [step if step > 0 else n_epochs for step in _steps(cfg)]
    n_drops = epoch // steps[0] if cfg.LR_SCHEDULER == "single_step" else sum(epoch >= step for step in steps)
    return cfg.GAMMA**n_drops


def _steps(cfg: CfgNode) -> list[int]:
    return [cfg.STEPSIZE] if isinstance(cfg.STEPSIZE, int) else list(cfg.STEPSIZE)
