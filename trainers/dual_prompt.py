"""DualPrompt: a positive and a negative text context, and visual prompts.

Source: Wang, Song and Xia, arXiv 2602.04340, Eqs. 1 to 6. `softmax(s v.t+)` classifies (Eq. 1);
`p_clean(k) = sigmoid(s v.t+_k - s v.t-_k)` (Eq. 3) says whether label k is right. The loss of a sample with label y and a
complement label y' drawn uniformly from the other classes is

    CE(s v.t+, y) + lambda [ -log p_clean(y) - log(1 - p_clean(y')) ].

Differences from the paper: Eq. 5 prints the last term with a plus sign, which would raise p_clean of wrong labels, contrary to
the paper's text; `l2_sign="printed"` keeps it for ablation. Not stated in the paper, with the default chosen here: lambda (1,
as in DeFT), whether the second loss also moves the positive context and the visual prompts (yes; `l2_detach`), the depth of
the visual prompts (all blocks, in DeFT's layout). `n_ctx_vision` 0 leaves the visual prompts out, as an ablation: the learner
then reads frozen features, and works with ResNets too.
"""

from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.prompts import Batch, Classifier, ClassTexts, Prompts
from trainers.core.token_rows import INITIAL_STD, MAX_CONTEXT, token_rows
from trainers.learner import PromptLearner, cross_entropy, weighted_mean
from trainers.registry import LEARNERS, InBlocksOf, TunesImages, checked_depth
from trainers.vpt import Layout, image_tokens


@LEARNERS.register("DualPrompt", absent="pushed", has_negative_texts=True, draws_classes=True)
class DualPrompt(PromptLearner):
    """Shared contexts `positive` and `negative` [n, text width] and image prompts `tokens[j]` [n, image width], if any."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT)] = 16,
        n_ctx_vision: Annotated[int, AtLeast(0), AtMost(1000), TunesImages()] = 20,
        prompt_depth_vision: Annotated[int | str, InBlocksOf(("image",))] = "all",
        layout: Layout = "deft",
        l2_weight: Annotated[float, AtLeast(0), AtMost(1e6)] = 1.0,
        l2_sign: Literal["corrected", "printed"] = "corrected",
        l2_detach: Literal["none", "pos", "pos+visual"] = "none",
    ):
        """`l2_weight` is lambda; `l2_detach` keeps the second loss from the positive context, or from the images too."""
        super().__init__()
        shape = (n_ctx, clip.text_width)
        self.positive, self.negative = (nn.Parameter(torch.from_numpy(rng.normal(0.0, INITIAL_STD, shape)).float())
                                        for _ in range(2))
        self.tunes_images = n_ctx_vision > 0
        if self.tunes_images:
            self.tokens = image_tokens(clip, rng, n_ctx_vision, checked_depth(prompt_depth_vision, clip.image_depth), layout)
        self.rows = token_rows(clip.tokenizer, texts.phrases, n_ctx)
        self.averaging = texts.averaging
        self.layout, self.l2_weight, self.l2_sign, self.l2_detach = layout, l2_weight, l2_sign, l2_detach

    def forward(self) -> Prompts:
        return Prompts(text=(self.positive,), image=tuple(self.tokens) if self.tunes_images else (),
                       negative=(self.negative,), after_ln_pre=self.layout == "deft")

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return the mean of Eq. 6 over a batch; if only one class counts there is no complement."""
        features, targets, scale = batch.features, batch.targets, batch.scale
        logits = self.logits(scale, features, classifier)
        seen = features.detach() if self.l2_detach == "pos+visual" else features
        positive = logits if self.l2_detach == "none" else scale * seen @ classifier.texts.detach().T
        margins = positive - scale * seen @ classifier.negative.T  # m_k = s v.t+_k - s v.t-_k, [B, C]
        clean = F.softplus(-margins.gather(1, targets[:, None]))
        loss = cross_entropy(logits, batch) + self.l2_weight * weighted_mean(clean.flatten(), batch)
        if batch.counted is not None:
            margins, targets = margins[:, batch.counted], (batch.counted.cumsum(0) - 1)[targets]
        if (n_classes := margins.shape[1]) == 1:
            return loss
        shift = torch.from_numpy(batch.rng.integers(1, n_classes, len(targets))).to(targets.device, non_blocking=True)
        wrong = F.softplus(margins.gather(1, ((targets + shift) % n_classes)[:, None]))
        sign = 1 if self.l2_sign == "corrected" else -1
        return loss + sign * self.l2_weight * weighted_mean(wrong.flatten(), batch)
