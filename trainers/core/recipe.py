"""How learners are built and trained, and on what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.inputs import Inputs
from trainers.core.prompts import ClassTexts
from trainers.learner import Learner

BuildLearner = Callable[[FrozenCLIP, ClassTexts, Any], Learner]


@dataclass(frozen=True)
class Recipe:
    """How a learner is built and trained. `n_mined` pseudo-labeled rows stand in a batch beside `batch_size` labeled ones."""

    name: str
    build_learner: BuildLearner
    build_zero_shot: BuildLearner
    build_optimization: Callable[[Sequence[nn.Parameter]], tuple[Optimizer, LRScheduler]]
    n_epochs: int
    batch_size: int
    n_mined: int
    drop_last: bool
    seed: int
    print_freq: int = 0
    keeps_order: bool = False  # whether a batch of all rows of a source comes in their order, see `trainers.learner`
    masked: bool = False  # whether classes without a label are left out of the loss
    calibrated: bool = False  # whether logits are divided by a temperature


@dataclass(frozen=True)
class Setting:
    """What a trainer is built from: CLIP, data set and frozen features (`inputs`), the texts, and how to train."""

    inputs: Inputs
    texts: ClassTexts
    recipe: Recipe
