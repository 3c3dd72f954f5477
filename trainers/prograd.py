"""ProGrad: CoOp whose steps never oppose zero-shot CLIP.

Source: Zhu et al., "Prompt-aligned Gradient for Prompt Tuning", ICCV 2023, Eqs. 3 to 5. With g the gradient of the
cross-entropy and h that of KL(zero-shot || model), at temperature 1: where g.h < 0, g loses `strength` times its part along h.
Differences from the authors' code: a context given in words has its length in tokens, and none of them is zero (theirs counts
words, loses the last one to a comma, and starts the other slots at zero); h = 0 leaves g unchanged by an explicit test, not
because a comparison with NaN is false; zero-shot probabilities of absent classes take part in h, as in every prediction.
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.coop import TaughtCoOp
from trainers.core.token_rows import MAX_CONTEXT, Position
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts


@LEARNERS.register("ProGrad")
class ProGrad(TaughtCoOp):
    """Context `ctx` like CoOp's, trained by aligned gradients."""

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
        strength: Annotated[float, AtLeast(0.0), AtMost(1.0)] = 1.0,
    ):
        """`strength` is the paper's lambda: 1 removes the whole component of a gradient that opposes zero-shot CLIP."""
        super().__init__(clip, texts, rng, n_ctx=n_ctx, csc=csc, ctx_init=ctx_init, class_token_position=class_token_position)
        self.strength = strength

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return the cross-entropy, as a value whose gradient with respect to `ctx` is the aligned one."""
        entropy = super().loss(classifier, batch)
        known = self.logits(batch.scale, batch.features, Classifier(self.template_texts)).softmax(1)
        divergence = F.kl_div(self.logits(batch.scale, batch.features, classifier).log_softmax(1), known, reduction="batchmean")
        own, general = (torch.autograd.grad(value, self.ctx, retain_graph=True)[0] for value in (entropy, divergence))
        gradient = aligned(own, general, self.strength)
        return entropy.detach() + (gradient * (self.ctx - self.ctx.detach())).sum()


def aligned(own: Tensor, general: Tensor, strength: float) -> Tensor:
    """Return a gradient without `strength` of its part along another of the same shape, if the two are opposed."""
    product, square = (own * general).sum(), general.square().sum()
    share = torch.where((product < 0) & (square > 0), product / square.clamp(min=torch.finfo(square.dtype).tiny), 0.0)
    return own - strength * share * general
