"""PromptSRC: IVLP's prompts in both towers, kept near zero-shot CLIP, and averaged over the epochs.

Source: Khattak et al., "Self-regulating Prompts: Foundational Model Adaptation without Forgetting", ICCV 2023. With f the
unit-norm features of images and w those of texts, f0 the frozen tower's for the same views, t the teacher's texts, p and p0
the probabilities from f and w, and from f0 and t, and B images of C classes, the loss is

    CE + 25 mean |w - t| + 10 mean |f - f0| + KL(p0 || p) / (B C),

with means over all entries. After the last step the prompts are replaced by a Gaussian-weighted mean of those of all epochs.
Differences from the authors' code: only prompts are averaged (theirs averages the whole state in half precision, which moves
the frozen towers) and kept (theirs keeps the teacher too); mean and deviation of the Gaussian are shares of the epochs. Theirs
are 30 and 30 of 50 epochs, the default here, or, on some data sets, 45 and 5, which is 0.9 and 0.1; and, from base classes to
new ones, 15 and 1 of 20, which is 0.75 and 0.05. Classes without a label take part in all terms but the first.
"""

from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.utils.registry import AtLeast, AtMost
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.clip.templates import IMAGENET_TEMPLATES
from trainers.core.token_rows import MAX_CONTEXT
from trainers.ivlp import IVLP
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts, Labels, cross_entropy
from trainers.registry import InBlocksOf, TunesImages

N_TEMPLATES = 60  # of OpenAI's 80 for ImageNet, those that the authors use

Weight = Annotated[float, AtLeast(0.0), AtMost(1e6)]


@LEARNERS.register("PromptSRC")
class PromptSRC(IVLP):
    """Prompts `text[j]` and `image[j]` as in IVLP. The teacher's texts `template_texts` [C, D] are not part of the state."""

    reads_frozen = True
    template_texts: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        texts: ClassTexts,
        rng: np.random.Generator,
        *,
        n_ctx_text: Annotated[int, AtLeast(1), AtMost(MAX_CONTEXT)] = 4,
        n_ctx_vision: Annotated[int, AtLeast(0), AtMost(1000), TunesImages()] = 4,
        prompt_depth_text: Annotated[int | str, InBlocksOf(("text",))] = "at most 9",
        prompt_depth_vision: Annotated[int | str, InBlocksOf(("image",))] = "at most 9",
        ctx_init: str = "a photo of a",
        text_loss_weight: Weight = 25.0,
        image_loss_weight: Weight = 10.0,
        logit_loss_weight: Weight = 1.0,
        teacher: Literal["dataset", "imagenet"] = "dataset",
        average_mean: Annotated[float, AtLeast(0.0), AtMost(10.0)] = 0.6,
        average_std: Annotated[float, AtLeast(0.001), AtMost(1e6)] = 0.6,
    ):
        """The teacher's texts are those of the data set's template, or the mean over 60 templates made for ImageNet.

        `average_mean` and `average_std` are those of the Gaussian over the epochs, as shares of `OPTIM.MAX_EPOCH`: a mean of 1
        and a deviation of 0.001 keep the last epoch, a large deviation takes the plain mean.
        """
        super().__init__(clip, texts, rng, n_ctx_text=n_ctx_text, n_ctx_vision=n_ctx_vision, ctx_init=ctx_init,
                         prompt_depth_text=prompt_depth_text, prompt_depth_vision=prompt_depth_vision)
        self.loss_weights = text_loss_weight, image_loss_weight, logit_loss_weight
        self.average_mean, self.average_std = average_mean, average_std
        if teacher == "imagenet":
            self.teacher = IMAGENET_TEMPLATES[:N_TEMPLATES]

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        self.template_texts = texts
        self._average = [torch.zeros_like(prompt) for prompt in self.parameters()]

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return the cross-entropy plus the three terms that keep texts, images and probabilities near zero-shot CLIP's."""
        logits = self.logits(batch.scale, batch.features, classifier)
        known = self.logits(batch.scale, batch.frozen, Classifier(self.template_texts))
        divergence = F.kl_div(logits.log_softmax(1), known.log_softmax(1), reduction="sum", log_target=True) / logits.numel()
        terms = F.l1_loss(classifier.texts, self.template_texts), F.l1_loss(batch.features, batch.frozen), divergence
        return cross_entropy(logits, batch) + sum(weight * term for weight, term in zip(self.loss_weights, terms, strict=True))

    def after_epoch(self, epoch: int, n_epochs: int) -> None:
        """Add an epoch's prompts to their mean, which replaces them after the last epoch."""
        weight = epoch_weights(n_epochs, self.average_mean, self.average_std)[epoch]
        for prompt, mean in zip(self.parameters(), self._average, strict=True):
            mean += weight * prompt
            if epoch + 1 == n_epochs:
                prompt.copy_(mean)


def epoch_weights(n_epochs: int, mean: float, std: float) -> list[float]:
    """Return a weight for each of the epochs 1 to E, which sum to 1: a Gaussian with mean E mean and deviation E std."""
    shares = torch.arange(1, n_epochs + 1, dtype=torch.float64) / n_epochs
    return (-((shares - mean) / std).square() / 2).softmax(0).tolist()
