"""ProLIP: CLIP's last projection of image features, regularized towards its start.

Source: Fahes et al., "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", 2024. Logits are s n(P^T x).t_k, x
[width] the class token after the image tower's last norm, n(.) of length 1, and P [width, D], which starts at CLIP's P0, is
the minimum of

    CE + lambda |P - P0|^2, CE the mean over the labeled images, lambda = C / M.

This is RLA with x in place of features: (P - P0)^T = U E Q^T, Q an orthonormal basis of the labeled x, U one of P0^T x and
the texts, so that E is solved for exactly, see `trainers.rla`. The x have their own cache; zero-shot CLIP still reads the
unit-norm features. Towers without a linear projection are refused: ResNets project within an attention pool, and timm's
towers each in their own way. A ViT's projection has no bias.
What the authors' code gets wrong: P is kept in half precision, so that small steps are lost; learning rate and lambda are
searched on labels of a validation set, unless fixed; for ResNets, CLIP's tensor itself is trained in place. Theirs takes 300
steps of Adam, each on another augmented view; here one fixed view is fitted to the end.
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
    """`shift` [D, width] is (P - P0)^T. P0 is not part of the state: it belongs to the backbone."""

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
