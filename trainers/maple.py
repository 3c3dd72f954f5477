"""MaPLe: text prompts in several blocks, which linear maps turn into the image prompts.

Source: Khattak et al., "MaPLe: Multi-modal Prompt Learning", CVPR 2023, Eqs. 1 to 7. `deep_maps: cloned` starts the maps of
all blocks but the first from the same numbers, as the authors' code does; they are trained separately from then on.
`drawn`, the default, draws each separately.
Differences from the authors' code: any widths of the towers; all maps in fp32; the context may be given in any number of
words, whose first `n_ctx` tokens are learned while the others stay ordinary tokens; only prompts and maps are given to the
optimizer.
"""

import math
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import ClassTexts, Prompts
from trainers.core.token_rows import MAX_CONTEXT, deep_context
from trainers.learner import PromptLearner
from trainers.registry import LEARNERS, InBlocksOf, TunesImages, checked_depth


@LEARNERS.register("MaPLe", absent="pushed")
class MaPLe(PromptLearner):
    """Text prompts `tokens[j]` [n, text width] and maps `maps[j]` to image prompts [n, image width] for each block j."""

    tunes_images = True

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT), TunesImages()] = 2,
        prompt_depth: Annotated[int | str, InBlocksOf(("text", "image"))] = "at most 9",
        ctx_init: str = "a photo of a",
        deep_maps: Literal["drawn", "cloned"] = "drawn",
    ):
        """`n_ctx` tokens in each of the first `prompt_depth` blocks of both towers."""
        super().__init__()
        depth = checked_depth(prompt_depth, min(clip.text_depth, clip.image_depth))
        self.tokens, self.rows = deep_context(clip, texts, rng, n_ctx, depth, ctx_init)
        self.averaging = texts.averaging
        self.maps = nn.ModuleList(drawn_linear(clip.text_width, clip.image_width, rng) for _ in range(depth))
        if deep_maps == "cloned":
            for later in self.maps[2:]:
                later.load_state_dict(self.maps[1].state_dict())

    def forward(self) -> Prompts:
        tokens = tuple(self.tokens)
        return Prompts(text=tokens, image=tuple(linear(own) for linear, own in zip(self.maps, tokens, strict=True)))


def drawn_linear(n_in: int, n_out: int, rng: np.random.Generator) -> nn.Linear:
    """Return a linear map with torch's default initialization, uniform +-1/sqrt(n_in), drawn from `rng`."""
    linear = nn.utils.skip_init(nn.Linear, n_in, n_out)
    bound = 1 / math.sqrt(n_in)

    def drawn(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-bound, bound, shape)).float()

    linear.weight.data.copy_(drawn(n_out, n_in))
    linear.bias.data.copy_(drawn(n_out))
    return linear
