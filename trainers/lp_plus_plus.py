"""LPpp (LP++): a linear probe beside scaled texts, whose steps follow from the labeled features.

Source: Huang et al., "LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP", CVPR 2024. Logits are v.(w_k + alpha_k t_k)
+ b_k (1), without CLIP's scale. On the mean CE, 300 steps of all labels with momentum 0.9 in w and b. With V [M, D] the
labeled features, (1) is smooth in w by lambda_max(V^T V) / (2 M) (2), which gives the learning rate.

- `repaired` (default): rate 2 M / lambda_max, one over (2); w starts at class means minus their mean over the classes with
  a label, 0 for the others; no bias; alpha stays at CLIP's scale, or, with `alpha` "data", at the authors' start, 250 times
  the mean over classes of the mean v_i.t_k of their images.
- `reference`: rate 4 M / lambda_max; w starts at the sums of class features, b at U(-1, 1) / sqrt(D); alpha starts as under
  "data" and at every 10th step moves by M / (4 max_k sum_i (v_i.t_k)^2) times its gradient, as in the authors' code.

What the authors' code gets wrong: the gradient of alpha is never set to 0, so that each of its steps adds up all gradients
since the first (kept in `reference`); the number of classes is taken from the labels, an error if a class has none (here its
row starts at 0); weights are in half precision; the epoch is chosen on as many validation labels as there are labels (here
the last step is taken).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, Classifier, ClassTexts, Head, Labels

MOMENTUM, ALPHA_EVERY, ALPHA_FACTOR = 0.9, 10, 250.0


@LEARNERS.register("LPpp")
class LPpp(Head):
    """`shift` [C, D], `multiplier` [C] and `bias` [C] are w, alpha and b over CLIP's scale."""

    shift: Tensor
    multiplier: Tensor
    bias: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        form: Literal["repaired", "reference"] = "repaired",
        alpha: Literal["scale", "data"] = "scale",
        steps: Annotated[int, AtLeast(0), AtMost(100000)] = 300,
        template: str = "dataset",
    ):
        """`alpha` belongs to the repaired form; "scale" is safer with few labels, "data" better where texts are poor."""
        super().__init__(clip, texts, template)
        n_classes, width = len(texts.classnames), clip.feature_width
        self.is_repaired, self.alpha, self.steps = form == "repaired", alpha, steps
        self.first_bias = torch.from_numpy(rng.uniform(-1, 1, n_classes) / width**0.5) * (not self.is_repaired)
        self.register_buffer("shift", torch.zeros(n_classes, width))
        self.register_buffer("multiplier", torch.ones(n_classes))
        self.register_buffer("bias", torch.zeros(n_classes))

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        if not len(labels.targets):
            return
        data = _Data.of(labels, texts)
        from_data = self.alpha == "data" or not self.is_repaired
        alpha = data.alpha() if from_data else data.counts.new_full((len(texts),), scale)
        start = data.centered_means() if self.is_repaired else data.sums
        found = descend(data, (start, alpha, self.first_bias.to(start.device)), self.steps, is_repaired=self.is_repaired)
        for own, value in zip((self.shift, self.multiplier, self.bias), found, strict=True):
            own.copy_(value / scale)

    def classifier(self, texts: Classifier) -> Classifier:
        return Classifier(self.multiplier[:, None] * texts.texts + self.shift, bias=self.bias)


@dataclass(frozen=True)
class _Data:
    """Labels in float64: features, v_i.t_k, weighted membership [M, C], and the classes that count in the loss."""

    features: Tensor
    cosines: Tensor
    members: Tensor
    counted: Tensor

    @classmethod
    def of(cls, labels: Labels, texts: Tensor) -> "_Data":
        features, members = labels.features.double(), F.one_hot(labels.targets, len(texts)) * labels.weights.double()[:, None]
        return cls(features, features @ texts.double().T, members, labels.counted)

    @property
    def counts(self) -> Tensor:
        return self.members.sum(0)

    @property
    def sums(self) -> Tensor:
        return self.members.T @ self.features

    def centered_means(self) -> Tensor:
        """Return the class means [C, D] minus their mean over classes with a label, 0 for the others."""
        has_label = self.counts > 0
        means = self.sums / self.counts.where(has_label, 1)[:, None]
        return (means - means[has_label].mean(0)) * has_label[:, None]

    def alpha(self) -> Tensor:
        """Return, for each class, 250 times the mean over classes of the mean cosine of their own images."""
        own = (self.members * self.cosines).sum(0)[self.counts > 0] / self.counts[self.counts > 0]
        return (ALPHA_FACTOR * own.mean()).expand(len(self.counts))

    def errors(self, shift: Tensor, alpha: Tensor, bias: Tensor) -> Tensor:
        """Return the gradient [M, C] of the mean CE with respect to the logits of (1)."""
        logits = (self.features @ shift.T + alpha * self.cosines + bias).masked_fill(~self.counted, -torch.inf)
        weights = self.members.sum(1, keepdim=True)
        return (weights * logits.softmax(1) - self.members) / weights.sum()

    def rates(self) -> tuple[Tensor, Tensor]:
        """Return M / lambda_max(V^T V) and M / max_k sum_i (v_i.t_k)^2."""
        weights = self.members.sum(1, keepdim=True)
        rows = weights.sqrt() * self.features
        gram = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
        return weights.sum() / torch.linalg.eigvalsh(gram)[-1], weights.sum() / (weights * self.cosines.square()).sum(0).max()


def descend(data: _Data, start: tuple[Tensor, Tensor, Tensor], n_steps: int, *, is_repaired: bool) -> tuple[Tensor, ...]:
    """Return w, alpha and b after steps from their start; the repaired form moves w alone."""
    shift, alpha, bias = start
    by_features, by_cosines = data.rates()
    rate, bias_rate, alpha_rate = (2 * by_features, 0, 0) if is_repaired else (4 * by_features, 4 * by_features, by_cosines / 4)
    speed, bias_speed, alpha_sum = torch.zeros_like(shift), torch.zeros_like(bias), torch.zeros_like(alpha)
    for step in range(1, n_steps + 1):
        errors = data.errors(shift, alpha, bias)
        speed, bias_speed = MOMENTUM * speed + errors.T @ data.features, MOMENTUM * bias_speed + errors.sum(0)
        alpha_sum = alpha_sum + (errors * data.cosines).sum(0)
        shift, bias = shift - rate * speed, bias - bias_rate * bias_speed
        if step % ALPHA_EVERY == 0:
            alpha = alpha - alpha_rate * alpha_sum
    return shift, alpha, bias
