"""ProLIP: CLIP's own last projection of image features, regularized towards where it was.

Source: Fahes et al., "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", 2024. Logits are s n(P^T x).t_k, x
[width] what the image tower's last norm makes of the class token, n(.) of length 1, P [width, D] begun at CLIP's P0, at the
minimum of

    CE + lambda |P - P0|^2, CE the mean over the labeled images, lambda = C / M.

This is RLA with x in place of features: (P - P0)^T = U E Q^T, Q an orthonormal basis of the labeled x, U one of P0^T x and
the texts, so that E is solved for exactly, see `trainers.rla`. The x have a cache of their own; zero-shot CLIP reads the
unit-norm features still. Towers without a linear projection are refused: ResNets project within an attention pool, and towers
of timm in ways of their own. A ViT's projection has no bias.
What the authors' code gets wrong: P is kept in half precision, so that small steps are lost; learning rate and lambda are
searched on labels of a validation set, unless fixed; of ResNets CLIP's own tensor is trained in place. Theirs takes 300 steps
of Adam, each on another augmented view; here one fixed view is fitted to the end.
"""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, ClassTexts
from trainers.rla import RLA


@LEARNERS.register("ProLIP")
class ProLIP(RLA):
    """`shift` [D, width] is (P - P0)^T. P0 is no part of the state: it belongs to the backbone."""

    reads = "pre_projection"
    projection: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        strength: Annotated[float, AtLeast(1e-6), AtMost(1e9)] = 1.0,
        template: str = "dataset",
    ):
        """`strength` is a factor of lambda."""
        super().__init__(clip, texts, rng, strength=strength, template=template)
        self.register_buffer("projection", clip.image_projection.detach().float(), persistent=False)
        self.shift = torch.zeros_like(self.projection.T)

    def begun(self, features: Tensor) -> Tensor:
        """Return P0^T x."""
        return features @ self.projection
