"""CLIPLoRA: low-rank changes of the attention matrices of both towers.

Source: Zanella and Ben Ayed, "Low-Rank Few-Shot Adaptation of Vision-Language Models", CVPR Workshops 2024. A matrix W becomes
W + (alpha / sqrt(r)) B A of rank r, with A [r, in] drawn from U(+-1/sqrt(in)) and B [out, r] starting at 0, so that training
starts at zero-shot CLIP. The scale is that of the authors' code. Texts are encoded again in every step. The paper's 500 steps
per shot, of 32 labels each, are 16,000 / C epochs for C classes, whatever the number of shots: `OPTIM.MAX_EPOCH` is set
accordingly.
Differences from the authors' code: texts are encoded without their padding and with their common beginning once, so that its
tokens share one dropout mask in a step, where theirs drop each text's own copy; blocks are chosen by number in towers of any
depth (theirs are listed by name for three ViTs); the data set's template is used in training and evaluation (theirs evaluates
with the first of a list).
"""

import math
import re
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dassl.utils.errors import ConfigError, UserError
from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.low_rank import Changes, LowRank
from trainers.learner import LEARNERS, ClassTexts, Head, Prompts
from trainers.registry import TunesImages

Matrices = Literal["q", "k", "v", "o", "qk", "qv", "qo", "kv", "ko", "vo", "qkv", "qko", "qvo", "kvo", "qkvo"]


@LEARNERS.register("CLIPLoRA", without_draws={"dropout": 0.0})
class CLIPLoRA(Head):
    """Changes, such as `text.3.q`, by tower, block and attention matrix: `down` [r, width] and `up` [width, r]."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        rank: Annotated[int, AtLeast(1), AtMost(1024)] = 2,
        alpha: Annotated[float, AtLeast(0.0), AtMost(1e6)] = 1.0,
        dropout: Annotated[float, AtLeast(0.0), AtMost(0.99)] = 0.25,
        matrices: Matrices = "qkv",
        blocks: str = "all",
        towers: Annotated[Literal["both", "image", "text"], TunesImages(unless="text")] = "both",
        template: str = "dataset",
    ):
        """`matrices` are of queries, keys, values, output; `blocks` of each tower "all", "top N" (the last ones) or "bottom N".

        `dropout` is the share of a change's inputs that are dropped in training; `template` is as for heads.
        """
        super().__init__(clip, texts, template)
        self.tunes_images = towers != "text"
        self.text, self.image = nn.ModuleDict(), nn.ModuleDict()
        if towers != "image":
            self.text = _changes(chosen_blocks(blocks, clip.text_depth), matrices, clip.text_width, rank, rng)
        if towers != "text":
            self.image = _changes(chosen_blocks(blocks, clip.image_depth), matrices, clip.image_width, rank, rng)
        self.alpha, self.scale = alpha, alpha / math.sqrt(rank)
        self.dropout, self._seed = dropout, int(rng.integers(2**63))
        self._generator: torch.Generator | None = None

    def forward(self) -> Prompts:
        return Prompts(text_changes=self._of(self.text), image_changes=self._of(self.image))

    def constants(self) -> dict[str, float]:
        return {"alpha": self.alpha}

    def remember(self) -> Callable[[], object]:
        if (generator := self._generator) is None:
            return lambda: setattr(self, "_generator", None)
        state = generator.get_state()
        return lambda: generator.set_state(state)

    def _of(self, tower: nn.ModuleDict) -> dict[int, Changes]:
        drop = self._drop if self.training else None
        return {int(block): {name: LowRank(own["down"], self.scale * own["up"], drop) for name, own in matrices.items()}
                for block, matrices in tower.items()}

    def _drop(self, x: Tensor) -> Tensor:
        """Return x with a share of its entries set to 0 and the others scaled up, using the learner's own random stream."""
        if not self.dropout:
            return x
        if self._generator is None:
            self._generator = torch.Generator(x.device).manual_seed(self._seed)
        share = 1 - self.dropout
        return x * torch.empty_like(x).bernoulli_(share, generator=self._generator).div_(share)


def chosen_blocks(blocks: str, n_blocks: int) -> range:
    """Return the blocks of a tower that "all", "top N" or "bottom N" stands for.

    Raises ConfigError for other words, UserError for more blocks than there are.
    """
    if blocks == "all":
        return range(n_blocks)
    if not (found := re.fullmatch(r"(top|bottom) ([1-9][0-9]{0,8})", blocks)):
        raise ConfigError(f"TRAINER.CLIPLORA.BLOCKS is {blocks!r}, but must be 'all', 'top N' or 'bottom N', N from 1 on")
    if (number := int(found[2])) > n_blocks:
        raise UserError(f"TRAINER.CLIPLORA.BLOCKS: {blocks} are asked for, but the tower has {n_blocks}; lower it, or take all")
    return range(n_blocks - number, n_blocks) if found[1] == "top" else range(number)


def _changes(blocks: range, matrices: str, width: int, rank: int, rng: np.random.Generator) -> nn.ModuleDict:
    """Return the factors of each change of a tower's matrices [width, width], by block and matrix."""

    def factors() -> nn.ParameterDict:
        bound = 1 / math.sqrt(width)
        down = torch.from_numpy(rng.uniform(-bound, bound, (rank, width))).float()
        return nn.ParameterDict({"down": down, "up": torch.zeros(width, rank)})

    return nn.ModuleDict({str(block): nn.ModuleDict({name: factors() for name in matrices}) for block in blocks})
