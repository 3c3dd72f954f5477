"""RLA: a regularized linear map of the frozen features before they are compared with the zero-shot texts.

Source: the regularized linear adapter of Fahes et al., "Fine-Tuning CLIP's Last Visual Projector: A Few-Shot Cornucopia", 2024.
Logits are s n(A v).t_k, n(.) of length 1 (1); A [D, D], which starts at the identity, is the minimum of

    CE + lambda |A - I|^2, CE the mean over the labeled images, lambda = C / M (2).

The authors' lambda is 1 / shots; with the mean over M labels that is sum CE + C |A - I|^2, one prior for any M, so C / M is
its form for unequal counts. The gradient with respect to A is a sum of products g_i v_i^T, g_i in the span of texts and A v_i.
Hence A = I + U E Q^T, Q [D, r] an orthonormal basis of the labeled features, U [D, d] one of these and the texts; |A - I| =
|E| (3). E is solved for by L-BFGS, exact, without learning rate, epochs or seed. One map for all classes also moves those
without a label, although the loss leaves them out.
What the authors' code gets wrong: A is kept in half precision, where 1 - 1e-4 is 1, so that at small rates its diagonal never
moves. Theirs takes 300 steps of Adam, each on another augmented view; here one fixed view is fitted to the end.
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.solve import Function, minimize, row_basis
from trainers.learner import LEARNERS, ClassTexts, Head, Labels


@LEARNERS.register("RLA")
class RLA(Head):
    """`shift` [D, D] is A - I."""

    shift: Tensor

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
        super().__init__(clip, texts, template)
        self.strength = strength
        self.register_buffer("shift", torch.zeros(clip.feature_width, clip.feature_width))

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        if len(labels.targets):
            begun = self.begun(labels.features)
            self.shift.copy_(map_shift(labels, begun, texts, scale, self.strength))

    def begun(self, features: Tensor) -> Tensor:
        """Return features after the map at its start: unchanged."""
        return features

    def features(self, features: Tensor) -> Tensor:
        return F.normalize(self.begun(features) + features @ self.shift.T, dim=1)


def map_shift(labels: Labels, begun: Tensor, texts: Tensor, scale: float, strength: float) -> Tensor:
    """Return the shift [D, width] of a map of labeled features [M, width]: A - I of (2), by (3).

    `begun` [M, D] are they after the map at its start, unchanged for I. The sums are M times those of (2).
    """
    right, left = row_basis(labels.features), row_basis(torch.cat([begun, texts]))  # Q, U
    factors = begun.double() @ left, labels.features.double() @ right, texts.double() @ left
    absent, targets = ~labels.counted, labels.targets

    def loss_in(dtype: torch.dtype) -> Function:
        features, inside, classes, weights = (own.to(dtype) for own in (*factors, labels.weights))

        def loss_of(shift: Tensor) -> Tensor:
            logits = scale * F.normalize(features + inside @ shift.T, dim=1) @ classes.T
            losses = F.cross_entropy(logits.masked_fill(absent, -torch.inf), targets, reduction="none")
            return (weights * losses).sum() + strength * len(texts) * shift.square().sum()

        return loss_of

    return left @ minimize(loss_in, right.new_zeros(left.shape[1], right.shape[1])) @ right.T
