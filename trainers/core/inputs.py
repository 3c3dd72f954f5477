"""What a model reads: features, features before their projection, or image tokens for learners that tune images too.

All are outputs of the frozen part of the image tower, so they are computed once: for fixed views once a run, for augmented
views ahead, many batches at a time, as far as memory allows. A view depends on (seed, round, pass, image) alone, so
views encoded ahead are the same as views encoded in their step. With `INPUT.VIEWS` it is one of that many views of the image,
which are encoded once for all runs.
"""

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dassl.data.dataset import Dataset
from dassl.data.loader import image_batches
from dassl.data.places import Place
from dassl.data.store import ImageStore
from dassl.data.transforms import Transform
from dassl.data.view_bank import ViewBank
from dassl.engine.predict import predict
from dassl.utils.errors import UserError
from dassl.utils.seeding import rng_for, seed_for
from trainers.clip.frozen_clip import FrozenCLIP, normalized

AHEAD_BYTES = 2**28  # of views encoded ahead, held of each source: 131,072 features of 512, or 443 views of ViT-B/16's tokens

Reads = Literal["features", "pre_projection", "tokens"]
Banks = Mapping[str, Mapping[str, Tensor]]  # what is read, all but tokens -> split -> rows
Views = Mapping[Reads, ViewBank]
Encode = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
Step = tuple[Tensor, int]  # positions [B] of a batch and the number of the pass that it belongs to


@dataclass(frozen=True)
class Loading:
    """How images are read: the fixed view, the random one for training (None: the fixed one), and batches."""

    view: Transform
    random_view: Transform | None
    batch_size: int
    n_workers: int
    seed: int

    def encoded(self, places: Sequence[Place], seeds: Sequence[int] | None, sizes: int | Sequence[int], encode: Encode,
                store: ImageStore) -> Tensor:
        """Return what `encode` makes of the training views of images, [N, ...], in batches of a size or of these sizes."""
        batches = image_batches(places, self.random_view or self.view, batch_size=sizes, n_workers=self.n_workers, seeds=seeds,
                                store=store)
        return predict(batches, encode, n_rows=len(places), description="encoding views")


def encoder(clip: FrozenCLIP, reads: Reads) -> Encode:
    """Return what makes of images what learners read: unit-norm features [B, D], fp32 rows before projection, or tokens."""
    return {"features": lambda images: normalized(clip.encode_image(images)),
            "pre_projection": lambda images: clip.encode_before_projection(images).float(),
            "tokens": clip.embed_image}[reads]


class Inputs:
    """Inputs of one data set and one CLIP. `banks` holds frozen outputs [N, D] of each split, by what is read.

    Images and image tokens are kept as far as `store` has room for both. `views` are the augmented views of the train split,
    where all that an image has are a few.
    """

    def __init__(self, clip: FrozenCLIP, dataset: Dataset, banks: Banks, loading: Loading, store: ImageStore,
                 views: Views | None = None):
        self.clip = clip
        self.dataset = dataset
        self.banks = banks
        self.loading = loading
        self.store = store
        self.views = {} if views is None else views
        self._tokens: dict[str, Tensor] = {}

    def with_seed(self, seed: int) -> "Inputs":
        """Return inputs whose random views are another seed's; all that is kept in memory is shared."""
        other = copy.copy(self)
        other.loading = replace(self.loading, seed=seed)
        return other

    @property
    def features(self) -> Mapping[str, Tensor]:
        """Unit-norm features [N, D] of each split."""
        return self.banks["features"]

    def bank(self, reads: Reads) -> Mapping[str, Tensor]:
        """Return the frozen outputs [N, D] of each split that a learner reads, unit-norm features for one that tunes images.

        They are float32, or float16 where `MODEL.FEATURES` says so, and mapped.
        """
        kind = "features" if reads == "tokens" else reads
        if kind not in self.banks:
            raise UserError(f"a learner reads {kind} of {self.dataset.name}, which are not at hand; the images give them")
        return self.banks[kind]

    def of_split(self, split: str, *, reads: Reads) -> Iterator[Tensor]:
        """Yield the inputs of a whole split in its order, in batches: rows [B, D], or image tokens [B, L, width]."""
        if reads != "tokens":
            yield from (rows.float() for rows in self.bank(reads)[split].split(65536))
        elif (kept := self._kept_tokens(split)) is not None:
            yield from kept.split(self.loading.batch_size)
        else:
            yield from (self.clip.embed_image(images) for images in self._images(split))

    def of_steps(self, rows: Tensor, steps: Iterable[Step], round: int, *, reads: Reads) -> Iterator[Tensor]:
        """Yield the inputs [B, ...] of each step's positions in rows [M] of the train split.

        A row's augmented view is another one in each pass. Fixed views are encoded once, if memory allows; all others ahead,
        in the order of the steps, at most `AHEAD_BYTES` (but at least one step's) at once.
        """
        if reads in self.views:
            yield from self._kept_views(self.views[reads], rows, steps, round)
            return
        encode = encoder(self.clip, reads)
        if self.loading.random_view is None and (found := self._kept_rows(rows, encode, reads)) is not None:
            kept, places = found
            yield from (kept.index_select(0, places[own]).float() for own, _ in steps)
            return
        for chunk in _chunks(steps, AHEAD_BYTES // self._row_bytes(reads)):
            sizes = [len(own) for own, _ in chunk]  # copies, since a part would hold the chunk while the next is encoded
            yield from map(torch.clone, self._views(rows, chunk, round, encode).split(sizes))

    def _kept_tokens(self, split: str) -> Tensor | None:
        """Return the image tokens of a split, kept after the first use; None if they take more than the memory allowed."""
        if split not in self._tokens:
            n_images = len(self.dataset.split(split))
            tokens = self.store.charge(n_images * self._row_bytes("tokens"), lambda: predict(
                self._images(split, keep=False), self.clip.embed_image, n_rows=n_images,
                description=f"image tokens of {split}"))
            if tokens is None:
                return None
            self._tokens[split] = tokens
        return self._tokens[split]

    def _row_bytes(self, reads: Reads) -> int:
        """Return the bytes of what is read of one image, in fp32."""
        if reads != "tokens":
            return 4 * self.bank(reads)["train"].shape[1]
        return 4 * self.clip.embed_image(torch.zeros(1, 3, *self.clip.preprocessing.size)).numel()

    def _images(self, split: str, *, keep: bool = True) -> Iterator[Tensor]:
        """Yield the fixed views of a split; without `keep` none is put into memory that is not there."""
        files = self.dataset.files(split)
        store = self.store if keep or self.store.holds(files, self.loading.view) else None
        return image_batches(files, self.loading.view, batch_size=self.loading.batch_size, n_workers=self.loading.n_workers,
                             store=store)

    def _kept_rows(self, rows: Tensor, encode: Encode, reads: Reads) -> tuple[Tensor, Tensor] | None:
        """Return inputs of fixed views, and where among them those of rows [M] are; None if memory has no room for them."""
        if reads != "tokens":
            return self.bank(reads)["train"], rows
        if (kept := self._kept_tokens("train")) is not None:
            return kept, rows
        n_bytes, places = len(rows) * self._row_bytes(reads), torch.arange(len(rows))
        views = functools.partial(self._views, rows, [(places, 0)], 0, encode)
        kept = views() if n_bytes <= AHEAD_BYTES else self.store.charge(n_bytes, views)
        return None if kept is None else (kept, places)

    def _kept_views(self, bank: ViewBank, rows: Tensor, steps: Iterable[Step], round: int) -> Iterator[Tensor]:
        """Yield the inputs [B, D] of each step: of each image one of its views, which the seed, round and pass draw."""
        views, paths = bank.of(rows.tolist()), [self.dataset.train[row].path for row in rows.tolist()]
        for own, number in steps:
            drawn = [seed_for(self.loading.seed, "view drawn", round, number, paths[place]) for place in own.tolist()]
            yield views[own, torch.tensor(drawn) % bank.n_views]

    def _views(self, rows: Tensor, steps: list[Step], round: int, encode: Encode) -> Tensor:
        """Return what `encode` makes of the views of all steps, one after the other: [sum of B, ...]."""
        items = [(self.dataset.train[row], number) for own, number in steps for row in rows[own].tolist()]
        seeds = None
        if self.loading.random_view is not None:
            seeds = [seed_for(self.loading.seed, "view", round, number, item.path) for item, number in items]
        places = [self.dataset.place(item.path) for item, _ in items]
        return self.loading.encoded(places, seeds, self.loading.batch_size, encode, self.store)


def _chunks(steps: Iterable[Step], n_rows: int) -> Iterator[list[Step]]:
    """Yield consecutive steps of at most n_rows rows together, at least one step at once."""
    chunk, n_left = [], n_rows
    for step in steps:
        if chunk and len(step[0]) > n_left:
            yield chunk
            chunk, n_left = [], n_rows
        chunk.append(step)
        n_left -= len(step[0])
    if chunk:
        yield chunk


def batch_rows(n_rows: int, batch_size: int, *, drop_last: bool, key: tuple) -> list[Tensor]:
    """Return the batches of one pass as positions in 0..n_rows-1, in the random order of `rng_for(*key)`.

    With `drop_last` a last partial batch is left out, unless it is the only one (as in Dassl).
    """
    n_used = n_rows // batch_size * batch_size if drop_last and n_rows >= batch_size else n_rows
    return list(torch.from_numpy(rng_for(*key).permutation(n_rows))[:n_used].split(batch_size))
