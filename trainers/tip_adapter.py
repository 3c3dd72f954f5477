"""TipAdapter and TipAdapterF: labeled features as keys of a cache, whose hits are added to zero-shot logits.

Source: Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022. With keys K_i, the
labeled features, logits are s v.t_k + alpha a_k, a_k = sum_{i in k} exp(-beta (1 - v.K_i)) (1). TipAdapter learns nothing;
TipAdapterF trains the keys by the node `OPTIM`, on (1), starting at the labeled features.
What the authors' code gets wrong: alpha and beta are searched on the whole validation split, or, for ImageNet, on the test
split; the trained form keeps the epoch with the best test accuracy; the width of the one-hot labels is the highest label + 1,
an error if the last classes have none; every class with a label gains from every image, and gains more the more labels it has.
Here alpha is 1 and beta 5.5, the first defaults of the paper, and a_k is centered (`centered`): its mean over the classes with
a label is subtracted from them, and a class without one has 0 (2). Their keys are means of ten augmented views, here features
of one fixed view; their AdamW has an epsilon of 1e-4, here it is torch's. Logits are not a product of features and class
features, so samplers that need this refuse both. A stored model of either holds features of the labeled images.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, Classifier, ClassTexts, Head, Labels


class _Cache(Head):
    """`keys` [M, D], with the class of each, `targets` [M], and its `weights` [M]."""

    learns_keys = False

    targets: Tensor
    weights: Tensor
    present: Tensor  # classes with a label, ascending; looked up once, since each look would wait for the card

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        alpha: Annotated[float, AtLeast(0), AtMost(1e6)] = 1.0,
        beta: Annotated[float, AtLeast(0), AtMost(1e6)] = 5.5,
        centered: bool = True,
        count: Literal["sum", "mean"] = "sum",
        template: str = "dataset",
    ):
        """`centered` is (2), and `count` "mean" divides a_k by the number of labels of k; the paper has neither."""
        super().__init__(clip, texts, template)
        self.alpha, self.beta, self.centered, self.count = alpha, beta, centered, count
        self._keep(torch.zeros(0, clip.feature_width), torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        self._keep(labels.features.clone(), labels.targets.clone(), labels.weights.clone())

    def logits(self, scale: float, features: Tensor, classifier: Classifier) -> Tensor:
        """Return [B, C] of (1) and (2)."""
        zero_shot = super().logits(scale, features, classifier)
        hits = self.weights * (self.beta * (features @ self.keys.T - 1)).exp()  # [B, M]
        added = torch.zeros_like(zero_shot).index_add(1, self.targets, hits)
        counts = added.new_zeros(added.shape[1]).index_add(0, self.targets, self.weights)
        if self.count == "mean":
            added = added / counts.where(counts > 0, 1)
        if self.centered and len(self.targets):
            added = (added - added.index_select(1, self.present).mean(1, keepdim=True)) * (counts > 0)
        return zero_shot + self.alpha * added

    def constants(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta, "centered": self.centered, "count": self.count}

    def adopt(self, state: Mapping[str, Tensor]) -> None:
        """Load a stored state with any number of keys; raises ValueError for other shapes."""
        keys, targets, weights = (state.get(name, torch.zeros(0)) for name in ("keys", "targets", "weights"))
        n_keys, width = len(keys), self.keys.shape[1]
        if len(state) != 3 or keys.shape != (n_keys, width) or not targets.shape == weights.shape == (n_keys,):
            raise ValueError(f"another shape: {({name: tuple(value.shape) for name, value in state.items()})}, "
                             f"not keys (M, {width}), targets (M,) and weights (M,)")
        device = self.keys.device
        self._keep(keys.to(device), targets.to(device), weights.to(device))

    def _keep(self, keys: Tensor, targets: Tensor, weights: Tensor) -> None:
        self.keys = nn.Parameter(keys, requires_grad=self.learns_keys)
        self.register_buffer("targets", targets)
        self.register_buffer("weights", weights)
        self.register_buffer("present", targets[weights > 0].unique(), persistent=False)


@LEARNERS.register("TipAdapter", is_linear=False)
class TipAdapter(_Cache):
    """The cache as it is: nothing is trained."""


@LEARNERS.register("TipAdapterF", is_linear=False)
class TipAdapterF(_Cache):
    """The cache with its keys trained."""

    learns_keys = True
