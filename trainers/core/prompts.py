"""Prompts as values, the texts that they stand in, and what classes are compared by."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from trainers.core.low_rank import Changes


@dataclass(frozen=True)
class Prompts:
    """Learned tokens of both towers; index = depth, `()` = tower untouched.

    `text[0]` is the context that fills the slots, [n, width] for all texts or [T, n, width]; a deeper `text[j]` of either shape
    replaces it at the entry of block j, and an empty one leaves what stands there. `image[0]` [n, width] is appended before
    `ln_pre`, a deeper `image[j]` replaces those tokens at the entry of block j. With `after_ln_pre` the first image prompts,
    too, enter behind `ln_pre` (DeFT). `negative` is a second context for the same texts, of which a class is told apart from
    its absence (DualPrompt). `text_changes` and `image_changes` hold changes of the towers' own matrices, by block (CLIPLoRA).
    """

    text: tuple[Tensor, ...] = ()
    image: tuple[Tensor, ...] = ()
    negative: tuple[Tensor, ...] = ()
    after_ln_pre: bool = False
    text_changes: Mapping[int, Changes] = field(default_factory=dict)
    image_changes: Mapping[int, Changes] = field(default_factory=dict)

    @property
    def tunes_text(self) -> bool:
        """Whether texts are other ones than the frozen tower's."""
        return bool(self.text or self.text_changes)


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Token ids of the texts, [T, L], the positions of the context in each, [T, n], and of its end token, [T]."""

    ids: Tensor
    slots: Tensor
    ends: Tensor

    def digest(self) -> str:
        """Return the SHA-256 of the rows, which tells layouts and texts apart."""
        return hashlib.sha256(repr((self.ids.tolist(), self.slots.tolist())).encode()).hexdigest()


@dataclass(frozen=True)
class Classifier:
    """What images are compared with: class features `texts` [C, D], and those of "not this class" where the learner has them.

    With a `bias` [C], logits are scale * (features @ texts.T + bias). `directions` [C, D] say where classes lie among features,
    if that is not `texts` at length 1.
    """

    texts: Tensor
    negative: Tensor | None = None
    bias: Tensor | None = None
    directions: Tensor | None = None


@dataclass(frozen=True)
class Labels:
    """All that a fit is given: M labeled images and the whole pool, by one fixed view each.

    They are the frozen unit-norm features, or what else a learner `reads`.

    `weights` [M] are 1, but for labels that people were unsure of (`ACTIVE.UNSURE`). `counted` [C] says which classes the loss
    compares: those with a label under `TRAINER.ABSENT: masked`, all under `pushed`. The labels of `pool` [N, D] are not here.
    """

    features: Tensor  # [M, D]
    targets: Tensor  # [M] int64
    weights: Tensor  # [M]
    counted: Tensor  # [C] bool
    pool: Tensor  # [N, D]


@dataclass(frozen=True)
class Batch:
    """What one step is trained on: features [B, D] as the learner makes them, and their labels [B].

    `counted` [C] as in `Labels`, None for all classes; `scale` is CLIP's logit scale; `rng` is the loss's own stream. `frozen`
    [B, D] are the frozen tower's unit-norm features of the same views, for a learner that `reads_frozen`. `weights` [B] are
    those of `Labels`, None if all are 1.
    """

    features: Tensor
    targets: Tensor
    scale: float
    counted: Tensor | None
    rng: np.random.Generator
    frozen: Tensor | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class Averaging:
    """How the features of T texts become those of C classes: one matrix [C, T] whose rows sum to 1.

    With `normalize` (AE, average embedding) raw features are averaged and then scaled to unit length; without it (AS,
    average score) unit-length features are averaged and left as they are, which is the mean of the texts' scores.
    Source: Bang et al., "Active Prompt Learning in Vision Language Models", CVPR 2024, Section 3.3.
    """

    matrix: Tensor
    normalize: bool

    def like(self, features: Tensor) -> "Averaging":
        """Return the same with the matrix where the features are and in their precision, float32 at least."""
        return replace(self, matrix=self.matrix.to(features.device, torch.promote_types(features.dtype, torch.float32)))


@dataclass(frozen=True)
class ClassTexts:
    """What the texts are made of: the class names, in the order of the labels, and the data set's zero-shot template.

    `phrases` are what follows the context, one a class (its name) or several, which `averaging` then brings together.
    """

    classnames: tuple[str, ...]
    template: str
    phrases: tuple[str, ...] = ()
    averaging: Averaging | None = None

    def __post_init__(self) -> None:
        if not self.phrases:
            object.__setattr__(self, "phrases", self.classnames)
