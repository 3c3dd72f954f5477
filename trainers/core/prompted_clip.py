"""A frozen CLIP with what one learner tunes: the model that is trained, evaluated and asked for scores."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.prompts import Averaging, Classifier, Prompts
from trainers.core.token_rows import template_rows
from trainers.learner import Learner


@final
class PromptedCLIP:
    """A classifier of unit-norm image features: logits are `exp(logit_scale)` times the product with the class features.

    `known` holds class features of texts that nothing tunes, by the digest of their rows; models of one trainer share it.
    """

    def __init__(self, clip: FrozenCLIP, learner: Learner, known: dict[str, Tensor] | None = None):
        self.clip = clip
        self._known = {} if known is None else known
        self.learner = learner
        self.losses: list[float] = []  # mean loss of each epoch of its fit
        self.temperature = 1.0  # of predictions, not of the loss
        self._constant: Tensor | None = None
        self._averaging: Averaging | None = None

    @property
    def has_unit_texts(self) -> bool:
        """Whether class features are directions: those of texts are, but under AS, and not rows that a learner makes."""
        averaging, makes_rows = self.learner.averaging, type(self.learner).classifier is not Learner.classifier
        return not makes_rows and (averaging is None or averaging.normalize)

    def classifier(self, prompts: Prompts) -> Classifier:
        """Return the class features; the same for every image, so compute them once a step or once an evaluation."""
        return self.learner.classifier(self.texts(prompts))

    def texts(self, prompts: Prompts) -> Classifier:
        """Return the class features of the texts with these prompts, before the learner makes its classifier of them."""
        if not prompts.tunes_text:
            if self._constant is None:
                self._constant = self._constant_features()
            return self._classifier(self._constant)
        negative = self._class_features(Prompts(text=prompts.negative)) if prompts.negative else None
        return self._classifier(self._class_features(prompts), negative)

    def image_features(self, inputs: Tensor, prompts: Prompts) -> Tensor:
        """Return features [B, D]: of image tokens [B, L, width] if the learner tunes images, else of frozen features [B, D]."""
        return self.learner.features(self._tower_features(inputs, prompts))

    @torch.no_grad()
    def frozen_features(self, inputs: Tensor) -> Tensor:
        """Return the frozen tower's unit-norm features [B, D] of the same inputs."""
        return self._tower_features(inputs, Prompts())

    def logits(self, features: Tensor, classifier: Classifier) -> Tensor:
        """Return [B, C] for features [B, D] and what classes are compared by."""
        return self.learner.logits(self.clip.logit_scale, features, classifier) / self.temperature

    def _tower_features(self, inputs: Tensor, prompts: Prompts) -> Tensor:
        inputs = inputs.to(self.clip.device)
        return normalized(self.clip.encode_image_tokens(inputs, prompts)) if self.learner.tunes_images else inputs

    def _classifier(self, texts: Tensor, negative: Tensor | None = None) -> Classifier:
        averaging = self.learner.averaging  # under AS a class lies at the mean of its texts, as in PCB's paper
        return Classifier(texts, negative, directions=None if averaging is None or averaging.normalize else texts)

    @torch.no_grad()
    def _constant_features(self) -> Tensor:
        if self.learner.averaging is not None:
            return self._class_features(Prompts())
        key = self.learner.rows.digest()
        if key not in self._known:
            self._known[key] = self._class_features(Prompts())
        return self._known[key]

    def _class_features(self, prompts: Prompts) -> Tensor:
        features = self.clip.encode_text(self.learner.rows, prompts)
        if self._averaging is None and self.learner.averaging is not None:
            self._averaging = self.learner.averaging.like(features)  # once a model, not once a step
        return averaged(features, self._averaging)


@torch.no_grad()
def ensemble(clip: FrozenCLIP, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Return unit-norm class features [C, D]: the mean over templates of features as the tower makes them, then scaled."""
    rows = (template_rows(clip.tokenizer, classnames, template) for template in templates)
    return normalized(sum(_precise(clip.encode_text(own)) for own in rows))  # one template in memory at a time


def averaged(features: Tensor, averaging: Averaging | None) -> Tensor:
    """Return class features [C, D] of text features [T, D] as the towers make them: unit norm, except under AS."""
    features = _precise(features)
    if averaging is None:
        return normalized(features)
    matrix = averaging.like(features).matrix
    return normalized(matrix @ features) if averaging.normalize else matrix @ normalized(features)


def _precise(features: Tensor) -> Tensor:
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features

