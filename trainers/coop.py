"""CoOp: learned context words before, around or after the class name.

Source: Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, Section 3.2.
Differences from the authors' code: prompts are fp32 whatever the precision of the towers; a context given in words
keeps its length in tokens, not in words; class-specific contexts may start from words too (theirs ignores CSC then).
"""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import ClassTexts, Labels, Prompts
from trainers.core.token_rows import INITIAL_STD, MAX_CONTEXT, Position, token_rows, word_ids
from trainers.learner import PromptLearner
from trainers.registry import LEARNERS


@LEARNERS.register("CoOp", absent="pushed")
class CoOp(PromptLearner):
    """Context `ctx`: [n, width] shared by all classes, or class-specific, [C, n, width], with `csc`.

    With several descriptions per class, every description has its own class-specific context: [T, n, width].
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT)] = 16,
        csc: bool = False,
        ctx_init: str = "",
        class_token_position: Position = "end",
    ):
        """`ctx_init` gives the initial context in words, and thus its length; otherwise it is `n_ctx` tokens ~ N(0, 0.02^2)."""
        super().__init__()
        words = word_ids(clip.tokenizer, ctx_init)
        n_tokens = len(words) or n_ctx
        n_contexts = (len(texts.phrases),) if csc else ()
        if len(words):
            context = clip.embed_tokens(words).float().cpu().repeat(*n_contexts, 1, 1).reshape(*n_contexts, n_tokens, -1)
        else:
            context = torch.from_numpy(rng.normal(0.0, INITIAL_STD, (*n_contexts, n_tokens, clip.text_width))).float()
        self.ctx = nn.Parameter(context)
        self.rows = token_rows(clip.tokenizer, texts.phrases, n_tokens, class_token_position)
        self.averaging = texts.averaging

    def forward(self) -> Prompts:
        return Prompts(text=(self.ctx,))


class TaughtCoOp(CoOp):
    """CoOp whose loss uses `template_texts` [C, D], the unit-norm texts of zero-shot CLIP; they are not part of its state."""

    template_texts: Tensor

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        self.template_texts = texts
