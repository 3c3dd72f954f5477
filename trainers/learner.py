"""What a learner is: the file to read before writing one.

A learner is a class in its own file, in this folder or anywhere (`ACTIVE.PLUGINS`). Its keyword-only parameters are its YAML
node. This is a complete linear probe on frozen features, starting at the texts of zero-shot CLIP:

    @LEARNERS.register("Probe")
    class Probe(Learner):
        def __init__(self, clip, texts, rng, *, template: str = "a photo of a {}."):
            super().__init__()
            self.rows = template_rows(clip.tokenizer, texts.classnames, template)
            self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))

        def classifier(self, texts):
            return Classifier(texts.texts + self.shift)

`TRAINER.NAME Probe` then trains it, evaluates it and selects with it. Whatever a learner leaves out has a default below.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.inputs import Reads
from trainers.core.prompts import Averaging, Batch, Classifier, ClassTexts, Labels, Prompts, TokenRows
from trainers.core.token_rows import template_rows
from trainers.registry import LEARNERS

__all__ = ["LEARNERS", "Batch", "ClassTexts", "Classifier", "Head", "Labels", "Learner", "PromptLearner", "Prompts",
           "cross_entropy", "template_rows", "weighted_mean"]


class Learner(nn.Module):
    """What is tuned for one list of classes. Holds parameters and the texts of the classes, never CLIP.

    A learner is built as `Learner(clip, texts, rng, *, yaml parameters)` from a FrozenCLIP, ClassTexts and a NumPy generator,
    from which all of its randomness comes. A fresh one is built in every round. `rows` are the texts. `tunes_images` says
    whether its prompts enter the image tower, so that features no longer come from the cache. `reads` says what its
    `features` are made from: "tokens" in that case, else "features", or "pre_projection" for the class token's rows [B,
    width] before the linear projection of a ViT. `reads_frozen` says whether its loss also reads the frozen tower's features;
    `teacher` are the templates of the texts that `prepare` is given, if more than one. It is in torch's training mode during
    the steps of a fit, and otherwise in evaluation mode.

    A batch of all labels is shuffled as any other. For a learner registered with `keeps_order=True` it comes in their order,
    and with fixed views its features and targets are the same tensors in every step: a learner may keep what it makes of
    them, and must not change them in place. To gather and join 282 rows anew took a fifth of a step of `CrossModal`.
    """

    rows: TokenRows
    averaging: Averaging | None = None
    tunes_images = False
    reads_frozen = False
    teacher: tuple[str, ...] = ()

    @property
    def reads(self) -> Reads:
        return "tokens" if self.tunes_images else "features"

    def forward(self) -> Prompts:
        """Return the current prompts: none, unless overridden."""
        return Prompts()

    def features(self, features: Tensor) -> Tensor:
        """Return the features [B, D] to classify, from what is read or a tuned tower gives: unchanged, unless overridden."""
        return features

    @property
    def keeps_features(self) -> bool:
        """Whether `features` returns its argument unchanged."""
        return type(self).features is Learner.features

    def classifier(self, texts: Classifier) -> Classifier:
        """Return the classifier, given the unit-norm text features [C, D] of classes: unchanged, unless overridden."""
        return texts

    def logits(self, scale: float, features: Tensor, classifier: Classifier) -> Tensor:
        """Return [B, C]: scale * (features @ texts.T + bias), unless overridden by a learner registered `is_linear=False`."""
        logits = scale * features @ classifier.texts.T
        return logits if classifier.bias is None else logits + scale * classifier.bias

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return the training loss of a batch: cross-entropy over the classes that count, unless overridden.

        Where images are tuned, it must be a mean over the batch's images, plus terms without them: a batch that does not fit
        on a card is taken in parts.
        """
        return cross_entropy(self.logits(batch.scale, batch.features, classifier), batch)

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        """Compute from all labels, once, before the first step, what steps cannot learn: counts, a start, or the solution.

        `texts` [C, D] are the unit-norm texts of the learner's own template, or of the data set's if it learns text
        prompts, or the means over the templates of `teacher`. Steps follow if a parameter requires a gradient.
        """

    def remember(self) -> Callable[[], object]:
        """Return what puts a random stream of the learner's own back to where it is now: for a step that is taken again.

        The generator that `loss` is given in its batch is put back by the trainer.
        """
        return lambda: None

    def after_epoch(self, epoch: int, n_epochs: int) -> None:
        """Is called after the last step of an epoch, counted from 0: does nothing, unless overridden."""

    def constants(self) -> dict[str, Any]:
        """Return numbers and words that give the state its meaning and are not in it: none, unless overridden.

        A model is read only if they are the same. What matters only in training is not among them.
        """
        return {}

    def adopt(self, state: Mapping[str, Tensor]) -> None:
        """Load a stored state; raises ValueError for other shapes. A learner whose shapes depend on the labels overrides it."""
        own, stored = ({name: tuple(value.shape) for name, value in own.items()} for own in (self.state_dict(), state))
        if own != stored:
            raise ValueError(f"another shape: {stored}, not {own}")
        self.load_state_dict(state)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the weighted mean of the cross-entropy of logits [B, C] over the classes that count.

    A class that does not count has no gradient: its logits, if finite, are left out of the softmax here, not in predictions.
    """
    if batch.counted is not None:
        logits = logits + torch.where(batch.counted, 0.0, -torch.inf)
    if batch.weights is None:
        return F.cross_entropy(logits, batch.targets)
    return weighted_mean(F.cross_entropy(logits, batch.targets, reduction="none"), batch)


def weighted_mean(losses: Tensor, batch: Batch) -> Tensor:
    """Return the mean of w_i l_i over the images of a batch, for losses l [B]: a weight says how much an image counts."""
    return (losses if batch.weights is None else losses * batch.weights).mean()


class Head(Learner):
    """A learner that adds to the texts of a template, usually on frozen features."""

    def __init__(self, clip: FrozenCLIP, texts: ClassTexts, template: str = "dataset"):
        """`template` holds one `{}` for the class name; "dataset" is the data set's template."""
        super().__init__()
        template = texts.template if template == "dataset" else template
        self.rows = template_rows(clip.tokenizer, texts.classnames, template)


class PromptLearner(Learner):
    """A learner of prompts: tokens that enter one tower or both."""

    @abstractmethod
    def forward(self) -> Prompts:
        """Return the prompts as they are now."""
