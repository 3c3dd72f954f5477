"""VPT: learned tokens after the image tokens of a ViT; the text classifier is fixed.

Source: Jia et al., "Visual Prompt Tuning", ECCV 2022, Section 3.2 (shallow: depth 1; deep: depth up to the tower's), as
used for CLIP in the MaPLe repository: the classifier is that of the template, not a trained linear head.
`layout="deft"` is the one of DeFT (NeurIPS 2024): the first tokens, too, enter after `ln_pre`, and all are drawn
uniformly.
Differences from the authors' code: prompts stay fp32 in the forward pass.
"""

import math
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import ClassTexts, Prompts
from trainers.core.token_rows import INITIAL_STD, template_rows
from trainers.learner import PromptLearner
from trainers.registry import LEARNERS, InBlocksOf, TunesImages, checked_depth

Layout = Literal["maple", "deft"]


@LEARNERS.register("VPT", absent="pushed")
class VPT(PromptLearner):
    """Tokens `tokens[j]` [n, width] for each prompted block j."""

    tunes_images = True

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx: Annotated[int, AtLeast(1), AtMost(1000), TunesImages()] = 8,
        prompt_depth: Annotated[int | str, InBlocksOf(("image",))] = "all",
        layout: Layout = "maple",
        template: str = "a photo of a {}.",
    ):
        """`n_ctx` tokens in each of the first `prompt_depth` blocks; 1 is VPT-shallow. `template` fixes the classifier."""
        super().__init__()
        self.layout = layout
        self.tokens = image_tokens(clip, rng, n_ctx, checked_depth(prompt_depth, clip.image_depth), layout)
        self.rows = template_rows(clip.tokenizer, texts.classnames, template)

    def forward(self) -> Prompts:
        return Prompts(image=tuple(self.tokens), after_ln_pre=self.layout == "deft")


def image_tokens(clip: FrozenCLIP, rng: np.random.Generator, n: int, depth: int, layout: Layout) -> nn.ParameterList:
    """Return initial image prompts, [n, width] per block: N(0, 0.02^2), or DeFT's uniform +-sqrt(6 / (3 patch^2 + width))."""
    bound = math.sqrt(6 / (3 * math.prod(clip.patch_size) + clip.image_width))

    def drawn() -> Tensor:
        shape = (n, clip.image_width)
        values = rng.uniform(-bound, bound, shape) if layout == "deft" else rng.normal(0.0, INITIAL_STD, shape)
        return torch.from_numpy(values).float()

    return nn.ParameterList(drawn() for _ in range(depth))
