"""GDA: Gaussian discriminant analysis of frozen features beside the zero-shot texts; nothing is trained.

Classes are Gaussians with means mu_k and one covariance, whose inverse is the precision P; logits
are s v.t_k + alpha q_k, q_k = v.P mu_k - 1/2 mu_k.P mu_k (1).

- `pool` (default; ours, semi-supervised): the pool has no labels, but its features cost nothing. With zero-shot posteriors p_ik
  of pool images, m_k = sum_i p_ik v_i / sum_i p_ik and mu_k = (kappa m_k + sum_{i in k} v_i) / (kappa + n_k) (2); P = inverse
  of (1 - 0.1) S + 0.1 tr(S)/D I (3), S the covariance of v_i - sum_k p_ik m_k over the pool; alpha 1, kappa 3. It is defined
  even without a label, and then differs from zero-shot CLIP. kappa was chosen by accuracy on DTD, Flowers102 and Caltech101, so
  results there are optimistic. When you compare it with learners that read only labeled images, say that it reads the pool.
- `labels`: Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024. mu_k are means of labeled
  images, P = D [(M - 1) S + tr(S) I]^-1 (4), S their covariance within classes. With fewer than two labels per class it is
  poor: (4) is estimated from the few classes that have two; if none has, this is zero-shot CLIP. What the authors' code gets
  wrong: the mean of a class without a label is NaN, which then is the answer for every image; alpha is chosen on the whole
  validation split, or, for ImageNet, on the test split. Here q is centered over the classes with a label and 0 for the others,
  alpha is 0.3, and P comes from Cholesky's decomposition, not from a pseudo-inverse.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, Classifier, ClassTexts, Head, Labels

KAPPA, SHRINKAGE = 3.0, 0.1
ALPHA = {"pool": 1.0, "labels": 0.3}
BLOCK = 65536  # pool rows at once
NO_SPREAD = 1e-10  # trace below which a covariance is only rounding


@LEARNERS.register("GDA", begins_as_zero_shot=False, moves_absent=True)
class GDA(Head):
    """`rows_added` [C, D] and `bias` [C] are alpha / s times what q adds to texts; `means` [C, D] are mu, the class means."""

    rows_added: Tensor
    bias: Tensor
    means: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        form: Literal["pool", "labels"] = "pool",
        template: str = "dataset",
    ):
        super().__init__(clip, texts, template)
        self.form = form
        self.register_buffer("rows_added", torch.zeros(len(texts.classnames), clip.feature_width))
        self.register_buffer("bias", torch.zeros(len(texts.classnames)))
        self.register_buffer("means", torch.zeros(len(texts.classnames), clip.feature_width))

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        rows, bias, means = pool_rows(labels, texts, scale) if self.form == "pool" else label_rows(labels, texts)
        self.rows_added.copy_(ALPHA[self.form] / scale * rows)
        self.bias.copy_(ALPHA[self.form] / scale * bias)
        self.means.copy_(means)

    def classifier(self, texts: Classifier) -> Classifier:
        return Classifier(texts.texts + self.rows_added, bias=self.bias, directions=F.normalize(self.means, dim=1))


def pool_rows(labels: Labels, texts: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return P mu [C, D], -1/2 mu.P mu [C] and mu [C, D] of (2) and (3)."""
    n_classes, width = texts.shape
    squares, sums, joint = (texts.new_zeros(*shape, dtype=torch.float64) for shape in (
        (width, width), (n_classes, width), (n_classes, n_classes)))
    for block in labels.pool.split(BLOCK):
        features = block.double()
        probs = (scale * features @ texts.double().T).softmax(1)  # [block, C]
        squares, sums, joint = squares + features.T @ features, sums + probs.T @ features, joint + probs.T @ probs
    means = sums / joint.sum(1, keepdim=True)  # m, since each row's probabilities sum to 1
    crossed = means.T @ sums
    spread = (squares - crossed - crossed.T + means.T @ joint @ means) / len(labels.pool)
    trace = spread.trace()
    spread = (1 - SHRINKAGE) * spread + SHRINKAGE * trace / width * torch.eye(width, dtype=spread.dtype, device=spread.device)
    counts, labeled = _counts_and_sums(labels, n_classes)
    means = (KAPPA * means + labeled) / (KAPPA + counts)
    return *_discriminants(means, spread, trace), means


def label_rows(labels: Labels, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return P mu [C, D] and -1/2 mu.P mu [C] of (4), both centered over the classes with a label, 0 for the others, and mu.

    Without a label mu is the text.
    """
    width = texts.shape[1]
    counts, sums = _counts_and_sums(labels, len(texts))
    means = sums / counts.clamp(min=torch.finfo(counts.dtype).tiny)
    centered = labels.weights.double().sqrt()[:, None] * (labels.features.double() - means[labels.targets])
    trace = centered.square().sum() / (counts.sum() - 1).clamp(min=1)
    spread = (centered.T @ centered + trace * torch.eye(width, dtype=means.dtype, device=means.device)) / width
    rows, bias = _discriminants(means, spread, trace)
    has_label = (counts > 0).double()  # [C, 1]
    share = has_label / has_label.sum().clamp(min=1)
    rows, bias = rows - (share * rows).sum(0), bias - share[:, 0] @ bias
    return rows * has_label, bias * has_label[:, 0], means.where(counts > 0, texts.double())


def _counts_and_sums(labels: Labels, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return the sum of the weights of each class's labels, [C, 1], and of their features, [C, D], in float64."""
    members = F.one_hot(labels.targets, n_classes).double() * labels.weights.double()[:, None]  # [M, C]
    return members.sum(0)[:, None], members.T @ labels.features.double()


def _discriminants(means: Tensor, spread: Tensor, trace: Tensor) -> tuple[Tensor, Tensor]:
    """Return P mu [C, D] and -1/2 mu.P mu [C]; zeros if every feature equals its class's mean, so that P is undefined."""
    if trace <= NO_SPREAD:
        return torch.zeros_like(means), torch.zeros_like(means[:, 0])
    rows = torch.cholesky_solve(means.T, torch.linalg.cholesky(spread)).T
    return rows, -(rows * means).sum(1) / 2
