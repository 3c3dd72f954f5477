"""LinearProbe: a row of weights for each class on frozen features, starting at the zero-shot texts.

It has four forms, all of which learn x [C, D] added to the texts t_k.

- `map` (default): logits s v.w_k, w_k = t_k + x_k, at the unique minimum of sum_i CE_i + kappa/2 sum_k |x_k|^2 (1). The minimum
  lies at x_k = s/kappa sum_i (1[y_i = k] - p_ik) v_i (2), in the span of the labeled features, and is solved for there;
  learning rate, epochs and seed do not matter. Not published; kappa 100 was chosen by accuracy on DTD, so results there are
  optimistic.
- `zs_lp`: logits s v.n(t_k + x_k), n(.) of length 1, mean CE (3). Lin et al. start linear probes at the texts; the setting is
  that of the repository of Silva-Rodriguez et al. (4), whose grid search keeps the epoch with the best test accuracy, a leak.
- `clap`: (3) plus rho^2/C sum_k lambda_k |x_k|^2 (4), lambda_k the mean zero-shot probability of class k on its own images.
  Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", CVPR 2024. Their lambda of
  a class without a label is 0/0, so that after two steps every row is NaN; here it is the mean of the others, as in their later
  code.
- `taskres`: logits s v.n(t_k + alpha/rho x_k) (5): (3) under Adam with another rate and decay. Yu et al., "Task Residual for
  Tuning Vision-Language Models", CVPR 2023. They use another alpha for Flowers102, which cannot be known beforehand.

The authors' rows are texts of length rho, about 10, under a cosine classifier. Rows of length 1, as here, take the same path
under SGD with the learning rate divided by rho^2 (0.1 is 0.001 here). They train on many views, here on a fixed one.
"""

from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.solve import Map, minimize_convex, row_basis
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts, Head, Labels

TEXT_NORM = 10.0  # rho
TASKRES_ALPHA = 0.5


@LEARNERS.register("LinearProbe")
class LinearProbe(Head):
    """`shift` [C, D] is x; `strengths` [C] are CLAP's lambda."""

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        form: Literal["map", "zs_lp", "clap", "taskres"] = "map",
        kappa: Annotated[float, AtLeast(1e-3), AtMost(1e9)] = 100.0,
        template: str = "dataset",
    ):
        """`kappa` belongs to the form `map` alone, which takes no steps; the others are trained by the node `OPTIM`."""
        super().__init__(clip, texts, template)
        shape = len(texts.classnames), clip.feature_width
        self.form, self.kappa = form, kappa
        self.shift = nn.Parameter(torch.zeros(shape), requires_grad=form != "map")
        self.register_buffer("strengths", torch.zeros(shape[0]), persistent=False)

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        if self.form == "map" and len(labels.targets):
            self.shift.copy_(map_shift(labels, texts, scale, self.kappa))
        if self.form == "clap":
            self.strengths = class_strengths(labels, texts, scale)

    def classifier(self, texts: Classifier) -> Classifier:
        if self.form == "map":
            return Classifier(texts.texts + self.shift)
        return Classifier(F.normalize(texts.texts + (TASKRES_ALPHA / TEXT_NORM if self.form == "taskres" else 1) * self.shift))

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return the loss of (3), and for CLAP that of (4)."""
        loss = super().loss(classifier, batch)
        if self.form != "clap":
            return loss
        return loss + TEXT_NORM**2 * (self.strengths * self.shift.square().sum(1)).mean()

    def constants(self) -> dict[str, Any]:
        return {"form": self.form}


def map_shift(labels: Labels, texts: Tensor, scale: float, kappa: float) -> Tensor:
    """Return x [C, D] of (1), exact in the span of the labeled features."""
    basis = row_basis(labels.features)  # [D, r]
    scaled = scale * labels.features.double()
    start, features, weights, counted, targets = (own.cpu().numpy() for own in (
        scaled @ texts.double().T, scaled @ basis, labels.weights.double(), labels.counted, labels.targets))
    rows, truth, weighted = np.arange(len(targets)), np.eye(len(texts))[targets], weights[:, None] * features

    def log_probs(shift: np.ndarray) -> np.ndarray:
        logits = np.where(counted, start + features @ shift.T, -np.inf)
        logits -= logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def loss_of(shift: np.ndarray) -> float:
        return float(kappa / 2 * (shift * shift).sum() - (weights * log_probs(shift)[rows, targets]).sum())

    def derivatives_of(shift: np.ndarray) -> tuple[np.ndarray, Map]:
        probs = np.exp(log_probs(shift))

        def product(change: np.ndarray) -> np.ndarray:
            moved = probs * (features @ change.T)
            return (moved - probs * moved.sum(1, keepdims=True)).T @ weighted + kappa * change

        return (probs - truth).T @ weighted + kappa * shift, product

    shift = minimize_convex(loss_of, derivatives_of, np.zeros((len(texts), basis.shape[1])))
    return torch.from_numpy(shift).to(basis.device) @ basis.T


def class_strengths(labels: Labels, texts: Tensor, scale: float) -> Tensor:
    """Return lambda [C]: each class's mean zero-shot probability on its images; without any, the mean of the others."""
    probs = (scale * labels.features @ texts.T).softmax(1).gather(1, labels.targets[:, None])[:, 0]
    counts, sums = (texts.new_zeros(len(texts)).index_add_(0, labels.targets, own)
                    for own in (labels.weights, labels.weights * probs))
    if not len(labels.targets):
        return torch.ones_like(sums)
    means = sums / counts
    return means.where(counts > 0, means[counts > 0].mean())
