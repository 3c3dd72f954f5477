"""Where picks are computed: on the CPU, or on a card, see `ACTIVE.DEVICE`."""

import logging

import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.utils.cards import free_bytes
from dassl.utils.errors import ConfigError

CPU = torch.device("cpu")

ROOM = 4  # times the float32 bytes of features and logits that a card must have free: samplers hold a few more such matrices

logger = logging.getLogger(__name__)


def check_device(cfg: CfgNode) -> None:
    """Raise ConfigError if picks are to be computed on a card, but there is none or the run must not use one."""
    if cfg.ACTIVE.DEVICE != "cuda":
        return
    if not torch.cuda.is_available():
        raise ConfigError("ACTIVE.DEVICE is cuda, but torch finds no CUDA device here; set it to auto or cpu")
    if not cfg.USE_CUDA:
        raise ConfigError("ACTIVE.DEVICE is cuda, but USE_CUDA is false; set USE_CUDA true, or ACTIVE.DEVICE to auto or cpu")


def selection_device(asked: str, model: torch.device, features: Tensor, logits: Tensor) -> torch.device:
    """Return the device of a run's picks, given the device of its models and their predictions for the train split.

    "auto" is the card that the models are on, if there is room for features [N, D] and logits [N, C] of the whole split.
    """
    if asked != "auto":
        return torch.device(asked)
    if model.type != "cuda":
        return CPU
    needed = ROOM * 4 * (features.numel() + 2 * logits.numel())  # twice the logits: zero-shot ones too
    free = free_bytes(model)
    if needed > free:
        logger.info("picks are computed on the CPU: the card has %.1f GiB free, and %.1f are wanted; ACTIVE.DEVICE cuda tries "
                    "it all the same", free / 2**30, needed / 2**30)
        return CPU
    return model
