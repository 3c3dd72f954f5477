"""KgCoOp: CoOp kept near the texts of zero-shot CLIP, including those of classes without a label.

Source: Yao et al., "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023, Eqs. 4 and 5. The
penalty is W times the mean over classes of 1 - cos(w_k, t_k), which is W/2 times the mean squared distance of unit vectors; t_k
is the text feature of the data set's template.
Differences from the authors' code: a context given in words is taken as it is (theirs reads any `CTX_INIT` as "a photo of a");
the checkpoint holds only the context (theirs carries unused bias vectors, a meta-net and an adapter).
"""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.coop import TaughtCoOp
from trainers.core.token_rows import MAX_CONTEXT, Position
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts


@LEARNERS.register("KgCoOp")
class KgCoOp(TaughtCoOp):
    """Context `ctx` like CoOp's, kept near the template's texts."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT)] = 4,
        csc: bool = False,
        ctx_init: str = "a photo of a",
        class_token_position: Position = "end",
        weight: Annotated[float, AtLeast(0.0), AtMost(1e6)] = 8.0,
    ):
        """`weight` is W, the paper's lambda."""
        super().__init__(clip, texts, rng, n_ctx=n_ctx, csc=csc, ctx_init=ctx_init, class_token_position=class_token_position)
        self.weight = weight

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return cross-entropy + W * mean_k (1 - cos(w_k, t_k)), the mean over all classes."""
        cosines = torch.cosine_similarity(classifier.texts, self.template_texts, dim=1)
        return super().loss(classifier, batch) + self.weight * (1 - cosines).mean()
