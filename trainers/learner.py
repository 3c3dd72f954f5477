"""What a learner is: the file to open by who wants to write one."""

from abc import ABC, abstractmethod

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.core.prompts import Averaging, Classifier, Prompts, TokenRows


class PromptLearner(nn.Module, ABC):
    """Learns prompts for one list of classes. Holds parameters and the texts they stand in, never CLIP.

    A learner is built as `Learner(clip, texts, rng, *, yaml parameters)` from a FrozenCLIP, ClassTexts and a NumPy
    generator, from which all of its randomness comes. `tunes_images` says whether its prompts enter the image tower.
    """

    rows: TokenRows
    averaging: Averaging | None = None
    tunes_images = False

    @abstractmethod
    def forward(self) -> Prompts:
        """Return the prompts as they are now."""

    def loss(
        self, scale: float, features: Tensor, classifier: Classifier, targets: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Return the training loss of unit-norm image features [B, D] with labels [B]: cross-entropy, unless overridden."""
        return F.cross_entropy(scale * features @ classifier.texts.T, targets)
