"""torch.optim's own optimizers under the field's key names."""

from collections.abc import Iterable

import torch
from torch import nn
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError


def check_optimizer(cfg: CfgNode) -> None:
    """Raise ConfigError if torch refuses the values of an `OPTIM` node."""
    try:
        build_optimizer([nn.Parameter(torch.zeros(1))], cfg)
    except ValueError as error:
        raise ConfigError(f"OPTIM: {cfg.NAME} cannot be built: {error}") from error


def build_optimizer(parameters: Iterable[nn.Parameter], cfg: CfgNode) -> torch.optim.Optimizer:
    """Return the optimizer of an `OPTIM` node."""
    common = {"lr": cfg.LR, "weight_decay": cfg.WEIGHT_DECAY}
    if cfg.NAME == "sgd":
        return torch.optim.SGD(parameters, momentum=cfg.MOMENTUM, dampening=cfg.SGD_DAMPNING,
                               nesterov=cfg.SGD_NESTEROV, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[cfg.NAME]
    return kind(parameters, betas=(cfg.ADAM_BETA1, cfg.ADAM_BETA2), fused=True, **common)  # one pass over memory per step
