"""CrossModal: a linear probe that is trained on texts too, each a sample of its class.

Source: Lin et al., "Multimodality Helps Unimodality: Cross-Modal Few-Shot Learning with Multimodal Models", CVPR 2023. Rows w_k
start at the zero-shot texts t_k; logits are s x.w_k for both images and texts x, w_k of any length; the loss of a step is

    1/2 CE of images + 1/2 CE of the C texts (1),

as in the authors' batches, half texts and half images. Here a step sees all labels and all texts. The texts are compared with
all classes even where the images' CE leaves out those without a label; the row of such a class is moved by the texts and by
weight decay.
What the authors' code gets wrong: learning rate, decay, batch size and the iteration are chosen on validation labels, up to
four per class (here AdamW at 1e-3, decay 0.01, the last of 1,000 steps); batches as large as the data are dropped, an error
for four labels or fewer; two feature widths are hard-coded.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.clip.frozen_clip import FrozenCLIP
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts, Head, Labels


@LEARNERS.register("CrossModal", keeps_order=True, moves_absent=True)
class CrossModal(Head):
    """`weight` [C, D] are the rows, which decay to 0, not to the texts; `prepare` sets them to the texts."""

    texts: Tensor
    own: Tensor

    def __init__(self, clip: FrozenCLIP, texts: ClassTexts, rng: np.random.Generator, *, template: str = "dataset"):
        super().__init__(clip, texts, template)
        shape = len(texts.classnames), clip.feature_width
        self.weight = nn.Parameter(torch.zeros(shape))
        self.register_buffer("texts", torch.zeros(shape), persistent=False)
        self.register_buffer("own", torch.arange(len(texts.classnames)), persistent=False)  # the class of each text
        self._seen: tuple[Tensor, Tensor, tuple[Tensor, Tensor]] | None = None
        self._known: tuple[int, Tensor | None, Tensor, Tensor] | None = None

    def prepare(self, labels: Labels, texts: Tensor, scale: float) -> None:
        self.weight.copy_(texts)
        self.texts.copy_(texts)
        self._seen = self._known = None

    def classifier(self, texts: Classifier) -> Classifier:
        return Classifier(self.weight)

    def loss(self, classifier: Classifier, batch: Batch) -> Tensor:
        """Return (1), by one product and one cross-entropy, in the shape that is fast even for an odd number of classes."""
        n, (rows, targets) = len(batch.features), self._with_texts(batch)
        left_out, shares = self._constants_of(n, batch.counted)
        logits = torch.addmm(left_out, classifier.texts, rows.T, alpha=batch.scale).T
        losses = F.cross_entropy(logits, targets, reduction="none")
        if batch.weights is not None:
            shares = torch.cat([shares[:n] * batch.weights, shares[n:]])
        return losses @ shares.to(losses)

    def after_epoch(self, epoch: int, n_epochs: int) -> None:
        if epoch + 1 == n_epochs:
            self._seen = self._known = None

    def _with_texts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return images and texts [n + C, D] and their classes; a step on all labels has the same ones as the last."""
        if self._seen is None or self._seen[0] is not batch.features or self._seen[1] is not batch.targets:
            both = torch.cat([batch.features, self.texts]), torch.cat([batch.targets, self.own])
            self._seen = batch.features, batch.targets, both
        return self._seen[2]

    def _constants_of(self, n: int, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what is added to logits [C, n + C] of n images and the texts, and the share [n + C] of each loss in (1)."""
        if self._known is None or self._known[0] != n or self._known[1] is not counted:
            n_classes = len(self.own)
            left_out = self.texts.new_zeros(n_classes, n + n_classes)
            if counted is not None:
                left_out[~counted, :n] = -torch.inf
            shares = torch.cat([self.texts.new_full((size,), 0.5 / size) for size in (n, n_classes)])
            self._known = n, counted, left_out, shares  # the same in most steps
        return self._known[2:]
