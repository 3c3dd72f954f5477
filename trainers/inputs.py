"""What a model reads: features for learners of the text tower, image tokens for those that tune images too.

Both are what the frozen part of the image tower makes of an image, so they are computed once: for fixed views a run, for
augmented views ahead, many epochs in one pass. A view depends on (seed, round, epoch, image) alone, so views encoded
ahead are the same as views encoded in their step.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dassl.data.dataset import Dataset
from dassl.data.loader import image_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import Transform
from dassl.engine.predict import predict
from dassl.utils.seeding import rng_for, seed_for
from trainers.frozen_clip import FrozenCLIP, normalized

AHEAD_BYTES = 2**28  # of augmented views held at once: 131,072 features of 512, or 443 views of ViT-B/16's tokens

Encode = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Loading:
    """How images are read: the fixed view, the random one for training (None: the fixed one), batches and memory."""

    view: Transform
    random_view: Transform | None
    batch_size: int
    n_workers: int
    seed: int
    max_bytes: int = 0  # of image tokens kept for each split


class Inputs:
    """Inputs of one data set and one CLIP. `features` maps splits to frozen features [N, D]."""

    def __init__(self, clip: FrozenCLIP, dataset: Dataset, features: Mapping[str, Tensor], loading: Loading, store: ImageStore):
        self.clip = clip
        self.dataset = dataset
        self.features = features
        self.loading = loading
        self.store = store
        self._tokens: dict[str, Tensor] = {}

    def with_seed(self, seed: int) -> "Inputs":
        """Return inputs whose random views are another seed's; all that is kept in memory is shared."""
        other = copy.copy(self)
        other.loading = replace(self.loading, seed=seed)
        return other

    def of_split(self, split: str, *, tokens: bool) -> Iterator[Tensor]:
        """Yield the inputs of a whole split in its order, in batches: features, or image tokens [B, L, width]."""
        if not tokens:
            yield from self.features[split].split(65536)
        elif (kept := self._kept_tokens(split)) is not None:
            yield from kept.split(self.loading.batch_size)
        else:
            yield from (self.clip.embed_image(images) for images in self._images(split))

    def of_epochs(self, rows: Tensor, round: int, n_epochs: int, *, tokens: bool) -> Iterator[Tensor]:
        """Yield what each epoch trains on: the inputs [M, ...] of rows [M] of the train split, in their order."""
        encode = self.clip.embed_image if tokens else self._encode
        if self.loading.random_view is None:
            fixed = self._fixed(rows, encode) if tokens else self.features["train"][rows]
            yield from (fixed for _ in range(n_epochs))
            return
        ahead = max(1, AHEAD_BYTES // (len(rows) * self._row_bytes(tokens)))
        for first in range(0, n_epochs, ahead):
            views = self._random(rows, round, range(first, min(first + ahead, n_epochs)), encode)
            yield from views.split(len(rows))

    def _encode(self, images: Tensor) -> Tensor:
        return normalized(self.clip.encode_image(images))

    def _kept_tokens(self, split: str) -> Tensor | None:
        """Return the image tokens of a split, kept after the first use; None if they take more than the memory allowed."""
        if split not in self._tokens:
            n_images = len(self.dataset.split(split))
            if n_images * self._row_bytes(tokens=True) > self.loading.max_bytes:
                return None
            self._tokens[split] = predict(self._images(split), self.clip.embed_image, n_rows=n_images,
                                          description=f"image tokens of {split}")
        return self._tokens[split]

    def _row_bytes(self, tokens: bool) -> int:
        """Return the bytes of one image's fp32 features or tokens."""
        blank = torch.zeros(1, 3, *self.clip.preprocessing.size)
        return 4 * self.clip.embed_image(blank).numel() if tokens else 4 * self.features["train"].shape[1]

    def _images(self, split: str) -> Iterator[Tensor]:
        return image_batches(self.dataset.files(split), self.loading.view, batch_size=self.loading.batch_size,
                             n_workers=self.loading.n_workers, store=self.store)

    def _fixed(self, rows: Tensor, encode: Encode) -> Tensor:
        paths = [self.dataset.root / self.dataset.train[row].path for row in rows.tolist()]
        batches = image_batches(paths, self.loading.view, batch_size=self.loading.batch_size,
                                n_workers=self.loading.n_workers, store=self.store)
        return predict(batches, encode, n_rows=len(paths), description="image tokens of the labeled set")

    def _random(self, rows: Tensor, round: int, epochs: range, encode: Encode) -> Tensor:
        """Return what `encode` makes of one augmented view a row and epoch, [len(epochs) M, ...]."""
        items = [self.dataset.train[row] for row in rows.tolist()]
        seeds = [seed_for(self.loading.seed, "view", round, epoch, item.path) for epoch in epochs for item in items]
        paths = [self.dataset.root / item.path for item in items] * len(epochs)
        batches = image_batches(paths, self.loading.random_view, batch_size=self.loading.batch_size,
                                n_workers=self.loading.n_workers, seeds=seeds, store=self.store)
        return predict(batches, encode, n_rows=len(paths), description=f"round {round}: encoding views")


def batch_rows(n_rows: int, batch_size: int, *, drop_last: bool, key: tuple) -> list[Tensor]:
    """Return the batches of one epoch as positions in 0..n_rows-1, in the random order of `rng_for(*key)`.

    With `drop_last` a last partial batch is left out, unless it is the only one (as in Dassl).
    """
    n_used = n_rows // batch_size * batch_size if drop_last and n_rows >= batch_size else n_rows
    return list(torch.from_numpy(rng_for(*key).permutation(n_rows))[:n_used].split(batch_size))
