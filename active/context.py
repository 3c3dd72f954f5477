"""What a sampler sees, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from active.relations import Relations
from dassl.utils.large import stacked


@dataclass(frozen=True)
class SelectionContext:
    """One selection: N pool rows in the order of their ids, M labeled rows, C classes, D feature dimensions.

    Features are unit norm and belong to the current model (zero-shot CLIP before round 0). All tensors are on one device, that
    of `ACTIVE.DEVICE`: the CPU, or a card. Make others there (`device=ctx.device`, `new_zeros`, `ctx.permutation`), and hand
    NumPy and other libraries what `cpu()` gives; the answer may be on either. Those of a very large pool kept in float16 arrive
    as they are (`active.selection.UPCAST_LIMIT`): convert them to float32 in blocks. Whatever is large may be memory-mapped: a
    tensor of its size is `dassl.utils.large.room`, a float32 copy `single`.
    `text_features` are the rows that images are compared with. Those of texts are unit norm; in AS mode
    (`TRAINER.DESCRIPTIONS.MODE`) they are means of unit vectors, so their norm is below 1; the rows of a linear head may have
    any norm, which carries information. For linear learners, logits are a scale times (features @ text_features.T + bias):
    rebuild them from the unscaled rows. A sampler that does so is registered with the fact `needs_linear`, and learners that
    are not linear are refused. Use `directions` for the position of a class among features. Images that people could not label
    (`!skip`) are not pool rows, but will be classified like them: a sampler that covers the pool covers `unlabeled_features`,
    in which they follow the pool's. The pool's labels, the model and the config are not here, so a sampler cannot look at them.
    """

    ids: Tensor  # [N] int64, ascending: positions in the train split
    features: Tensor  # [N, D] float32
    logits: Tensor  # [N, C] float32
    zero_shot_logits: Tensor  # [N, C] float32
    labeled_ids: Tensor  # [M] int64, ascending
    labeled_features: Tensor  # [M, D] float32
    labeled_logits: Tensor  # [M, C] float32
    labels: Tensor  # [M] int64
    text_features: Tensor  # [C, D] float32, with any norm: see above and `directions`
    n_query: int  # rows to ask for; `select` caps it at N
    round: int  # counted from 0
    n_total: int  # images in the whole train split
    rng: np.random.Generator  # this selection's own stream
    negative_text_features: Tensor | None = None  # [C, D] float32, of the same kind, for models with negative prompts
    bias: Tensor | None = None  # [C] float32, of learners that have one
    class_directions: Tensor | None = None  # [C, D] float32, of learners whose classes do not lie along `text_features`
    find: Callable[[str], int | None] | None = None  # a dataset id's position in the train split, for recorded queries
    skipped_features: Tensor | None = None  # [S, D] float32, of images that people could not label; None for none
    skipped_logits: Tensor | None = None  # [S, C] float32
    part: int = 0  # of the round; later parts replace skipped images, see `ACTIVE.REFILL`
    flagged_features: Tensor | None = None  # [F, D] float32, of images that people said are of no class; None for none
    skipped_ids: Tensor | None = None  # [S] int64, positions in the train split
    flagged_ids: Tensor | None = None  # [F] int64, positions in the train split
    relations: Relations | None = None  # of the features of the whole train split, kept over rounds and runs, on the CPU

    @cached_property
    def probs(self) -> Tensor:
        """Class probabilities [N, C], float32."""
        return self.logits.softmax(1)

    @cached_property
    def directions(self) -> Tensor:
        """The classes' positions among features: given by the learner (under AS mean texts), else unit `text_features`."""
        if self.class_directions is not None:
            return self.class_directions
        norms = self.text_features.norm(dim=1, keepdim=True)
        return self.text_features if bool(((norms - 1).abs() <= 1e-4).all()) else self.text_features / norms.clamp(min=1e-12)

    @cached_property
    def unlabeled_features(self) -> Tensor:
        """The features of all images without a label [N + S, D]: the pool's, then those of skipped images."""
        return self.features if self.skipped_features is None else stacked(self.features, self.skipped_features)

    @cached_property
    def unlabeled_logits(self) -> Tensor:
        """The logits [N + S, C] of the rows of `unlabeled_features`."""
        return self.logits if self.skipped_logits is None else stacked(self.logits, self.skipped_logits)

    @property
    def device(self) -> torch.device:
        return self.features.device

    def permutation(self, n: int) -> Tensor:
        """Return the numbers below n in random order [n], on the context's device. They are drawn on the CPU, so all agree."""
        return torch.from_numpy(self.rng.permutation(n)).to(self.device)

    def to(self, device: torch.device) -> "SelectionContext":
        """Return the context with its tensors on a device, or itself if they are there. A tensor in two fields stays one."""
        if device == self.device:
            return self
        own: dict[str, Any] = {name: value for name, value in vars(self).items()
                               if name in FIELDS and isinstance(value, Tensor)}
        moved = {key: value.to(device) for key, value in {id(value): value for value in own.values()}.items()}
        return replace(self, **{name: moved[id(value)] for name, value in own.items()})

    @property
    def n_pool(self) -> int:
        return len(self.ids)

    @property
    def n_classes(self) -> int:
        return self.logits.shape[1]


FIELDS = {own.name for own in fields(SelectionContext)}  # without the values that are derived from them and cached


@dataclass(frozen=True)
class Query:
    """A sampler's answer, in pool rows: which to ask, in order, and which to label with the model's own guess.

    Pseudo-labeled rows leave the pool for good, as if they had been asked, but are not paid for. Mined rows stay in the
    pool: they are trained on in this round only.
    Scores are the sampler's acquisition scores, higher asked first: they explain picks and change nothing.
    """

    rows: Tensor  # [n] int64
    pseudo_rows: Tensor = field(default_factory=torch.LongTensor)  # [m] int64, none of them in `rows`
    pseudo_labels: Tensor = field(default_factory=torch.LongTensor)  # [m] int64
    pseudo_confidence: Tensor = field(default_factory=torch.FloatTensor)  # [m] in [0, 1]
    mined_rows: Tensor = field(default_factory=torch.LongTensor)  # [k] int64, none of them in the others
    mined_labels: Tensor = field(default_factory=torch.LongTensor)  # [k] int64
    scores: Tensor | None = None  # [n], of `rows`; None for samplers without scores, NaN where a pick has none
    pool_scores: Tensor | None = None  # [N], of all pool rows before the first pick
    approximation: dict[str, int | float | str] = field(default_factory=dict)  # what was done instead of comparing all pairs

    def to(self, device: torch.device) -> "Query":
        """Return the query with its tensors on a device."""
        moved: dict[str, Any] = {name: own.to(device) for name, own in vars(self).items() if isinstance(own, Tensor)}
        return replace(self, **moved)

    def renumbered(self, numbers: Tensor) -> "Query":
        """Return the query with numbers[i] in place of row i; scores stay as they are."""
        rows, pseudo_rows, mined_rows = (numbers[own.long()] for own in (self.rows, self.pseudo_rows, self.mined_rows))
        return replace(self, rows=rows, pseudo_rows=pseudo_rows, mined_rows=mined_rows)


def scored(rows: Tensor, pool_scores: Tensor) -> Query:
    """Return a query for rows [n] whose scores are among those of all pool rows [N]."""
    return Query(rows, scores=pool_scores[rows], pool_scores=pool_scores)


def joined(queries: Sequence[Query]) -> Query:
    """Return the queries of a round as one; mined rows are those of the last, which knew all labels."""
    if len(queries) == 1:
        return queries[0]
    together = ("rows", "pseudo_rows", "pseudo_labels", "pseudo_confidence")
    return replace(queries[-1], **{name: torch.cat([getattr(query, name) for query in queries]) for name in together},
                   scores=None, pool_scores=None, approximation=queries[0].approximation)
