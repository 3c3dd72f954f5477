"""What a learner is: the file to open by who wants to write one.

A learner is a class in a file of its own, in this folder or anywhere (`ACTIVE.PLUGINS`). Its keyword-only parameters are its
YAML node. A linear probe on frozen features, begun at the texts of zero-shot CLIP, is all of this:

    @LEARNERS.register("Probe")
    class Probe(Learner):
        def __init__(self, clip, texts, rng, *, template: str = "a photo of a {}."):
            super().__init__()
            self.rows = template_rows(clip.tokenizer, texts.classnames, template)
            self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))

        def classifier(self, texts):
            return Classifier(texts.texts + self.shift)

`TRAINER.NAME Probe` then trains, evaluates and asks by it. What a learner need not say has a default below.
"""

from abc import abstractmethod

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.core.prompts import Averaging, Classifier, ClassTexts, Prompts, TokenRows
from trainers.core.token_rows import template_rows
from trainers.registry import LEARNERS

__all__ = ["LEARNERS", "ClassTexts", "Classifier", "Learner", "PromptLearner", "Prompts", "template_rows"]


class Learner(nn.Module):
    """What is tuned for one list of classes. Holds parameters and the texts of the classes, never CLIP.

    A learner is built as `Learner(clip, texts, rng, *, yaml parameters)` from a FrozenCLIP, ClassTexts and a NumPy
    generator, from which all of its randomness comes. A fresh one is built in every round. `rows` are the texts;
    `tunes_images` says whether its prompts enter the image tower, so that features are no longer those of the cache.
    """

    rows: TokenRows
    averaging: Averaging | None = None
    tunes_images = False

    def forward(self) -> Prompts:
        """Return the prompts as they are now: none, unless overridden."""
        return Prompts()

    def features(self, features: Tensor) -> Tensor:
        """Return the features [B, D] that are classified, of the image tower's unit-norm ones: the same, unless overridden."""
        return features

    def classifier(self, texts: Classifier) -> Classifier:
        """Return what classes are compared by, of their unit-norm text features [C, D]: the same, unless overridden."""
        return texts

    def loss(
        self, scale: float, features: Tensor, classifier: Classifier, targets: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Return the training loss of features [B, D] with labels [B]: cross-entropy, unless overridden."""
        return F.cross_entropy(scale * features @ classifier.texts.T, targets)


class PromptLearner(Learner):
    """Learns prompts: tokens that enter one tower or both."""

    @abstractmethod
    def forward(self) -> Prompts:
        """Return the prompts as they are now."""
