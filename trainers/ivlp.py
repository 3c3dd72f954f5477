"""IVLP: independent prompts in both towers.

Source: the "independent vision-language prompting" baseline of Khattak et al., "MaPLe: Multi-modal Prompt Learning",
CVPR 2023, Section 4.2; `n_ctx_vision` 0 with 4 text tokens is its language-only form.
Differences from the authors' code: as for MaPLe.
"""

from typing import Annotated

import numpy as np

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import ClassTexts, Prompts
from trainers.core.token_rows import MAX_CONTEXT, deep_context
from trainers.learner import PromptLearner
from trainers.registry import LEARNERS, InBlocksOf, TunesImages, checked_depth
from trainers.vpt import image_tokens


@LEARNERS.register("IVLP", absent="pushed")
class IVLP(PromptLearner):
    """Text prompts `text[j]` [n, text width] and image prompts `image[j]` [n, image width], each with its own depth."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx_text: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT)] = 2,
        n_ctx_vision: Annotated[int, AtLeast(0), AtMost(1000), TunesImages()] = 2,
        prompt_depth_text: Annotated[int | str, InBlocksOf(("text",))] = "all",
        prompt_depth_vision: Annotated[int | str, InBlocksOf(("image",))] = "all",
        ctx_init: str = "a photo of a",
    ):
        super().__init__()
        depth = checked_depth(prompt_depth_text, clip.text_depth)
        self.text, self.rows = deep_context(clip, texts, rng, n_ctx_text, depth, ctx_init)
        self.averaging = texts.averaging
        self.tunes_images = n_ctx_vision > 0
        if self.tunes_images:
            self.image = image_tokens(clip, rng, n_ctx_vision, checked_depth(prompt_depth_vision, clip.image_depth), "maple")

    def forward(self) -> Prompts:
        return Prompts(text=tuple(self.text), image=tuple(self.image) if self.tunes_images else ())
