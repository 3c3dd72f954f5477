"""TCP: KgCoOp with class-specific tokens deep in the text tower, made from each class's zero-shot text by a small network.

Source: Yao et al., "TCP: Textual-based Class-aware Prompt tuning for Visual-Language Model", CVPR 2024. With t_k the unit-norm
text of the template, n tokens U q(D t_k) [n, width] (1) replace the context of class k at the entry of one block of the text
tower, the ninth of twelve in the paper; D and U are linear maps with biases, q(x) = x sigmoid(1.702 x). The loss is KgCoOp's.
Classes without a label benefit too, since the same network makes their tokens. Before that block all texts share one context;
from there on each has its own.
Differences from the authors' code: any number of tokens (theirs always makes four); the loss's weight is a key, and the tokens
replace the context completely (theirs has a key for how far they do, but overwrites it with 1); the text is "context, name."
for every data set, and the teacher's is that of the data set's template (theirs has a second list of templates, which differ
from the first); context and network are fp32, so Adam needs no epsilon of 1e-3 against NaN: torch's 1e-8 is used.
"""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.blocks import QUICK
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import ClassTexts, Prompts
from trainers.core.token_rows import MAX_CONTEXT
from trainers.kgcoop import KgCoOp
from trainers.learner import LEARNERS
from trainers.maple import drawn_linear
from trainers.registry import InBlocksOf, checked_depth

REDUCTION = 4
FIRST = 2  # first block that can hold class tokens: in block 1 they would be the context


@LEARNERS.register("TCP")
class TCP(KgCoOp):
    """Context `ctx` [n, width], and the maps `down` D [width of features / 4, ...] and `up` U of (1)."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT)] = 4,
        ctx_init: str = "",
        block: Annotated[int | str, InBlocksOf(("text",), least=FIRST)] = "at most 9",
        weight: Annotated[float, AtLeast(0.0), AtMost(1e6)] = 8.0,
    ):
        """Class tokens enter at the `block`-th block, counted from 1."""
        super().__init__(clip, texts, rng, n_ctx=n_ctx, ctx_init=ctx_init, weight=weight)
        self.block = checked_depth(block, clip.text_depth, FIRST)
        inner = max(1, clip.feature_width // REDUCTION)
        self.down = drawn_linear(clip.feature_width, inner, rng)
        self.up = drawn_linear(inner, self.ctx.numel(), rng)
        self.register_buffer("template_texts", torch.zeros(len(texts.classnames), clip.feature_width))

    def forward(self) -> Prompts:
        untouched = self.ctx.new_empty(0, self.ctx.shape[1])
        return Prompts(text=(self.ctx, *[untouched] * (self.block - 2), self.class_tokens()))

    def class_tokens(self) -> Tensor:
        """Return the tokens [T, n, width] of (1), for each text those of its class."""
        hidden = self.down(self.template_texts)
        tokens = self.up(hidden * torch.sigmoid(QUICK * hidden)).unflatten(1, self.ctx.shape)
        return tokens if self.averaging is None else tokens[self.averaging.matrix.argmax(0)]
