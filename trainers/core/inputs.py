"""What a model reads: features, features before their projection, or image tokens for learners that tune images too.

All are outputs of the frozen part of the image tower, so they are computed once: for fixed views once a run, for augmented
views ahead, many batches at a time, as far as memory allows. A view depends on (seed, round, pass, image) alone, so
views encoded ahead are the same as views encoded in their step. With `INPUT.VIEWS` it is one of that many views of the image,
which are encoded once for all runs.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from dassl.data.dataset import Dataset
from dassl.data.loader import View, pixel_batches, view_batches
from dassl.data.places import Place
from dassl.data.store import ImageStore
from dassl.data.transforms import Transform
from dassl.data.view_bank import ViewBank
from dassl.engine.predict import predict
from dassl.utils.cards import free_bytes
from dassl.utils.errors import UserError
from dassl.utils.seeding import rng_for, seed_for
from trainers.clip.frozen_clip import FrozenCLIP, normalized

ENCODING = "encoding views"
AHEAD_BYTES = 2**28  # of views encoded ahead, held of each source: 131,072 features of 512, or 443 views of ViT-B/16's tokens

Reads = Literal["features", "pre_projection", "tokens"]
Banks = Mapping[str, Mapping[str, Tensor]]  # what is read, all but tokens -> split -> rows
Views = Mapping[Reads, ViewBank]
Encode = Callable[[Tensor], Tensor]
Batch = tuple[Tensor, Tensor]
Made = TypeVar("Made")
Step = tuple[Tensor, int]  # positions [B] of a batch and the number of the pass that it belongs to


@dataclass(frozen=True)
class Loading:
    """How images are read: the fixed view, the random one for training (None: the fixed one), and batches."""

    view: Transform
    random_view: Transform | None
    batch_size: int
    n_workers: int
    seed: int

    @property
    def training_view(self) -> Transform:
        return self.random_view or self.view

    def encoded(self, places: Sequence[Place], seeds: Sequence[int] | None, sizes: int | Sequence[int], encode: Encode,
                store: ImageStore) -> Tensor:
        """Return what `encode` makes of the training views of images, [N, ...], in batches of a size or of these sizes."""
        pixels = pixel_batches(places, self.training_view, batch_size=sizes, n_workers=self.n_workers, seeds=seeds, store=store)
        return predict(pixels, encode, n_rows=len(places), description=ENCODING)

    def encoded_chunks(self, chunks: Iterable[Sequence[View]], encode: Encode, store: ImageStore, n_workers: int
                       ) -> Iterator[Tensor]:
        """Yield what `encode` makes of each chunk of training views, where the tower is; one loader serves them all."""
        chunks, again = itertools.tee(chunks)
        batches = (chunk[start:start + self.batch_size] for chunk in chunks for start in range(0, len(chunk), self.batch_size))
        pixels = view_batches(batches, self.training_view, store, n_workers)
        for chunk in again:
            own = itertools.islice(pixels, -(-len(chunk) // self.batch_size))
            yield predict(own, encode, n_rows=len(chunk), description=ENCODING, keep=True)


def encoder(clip: FrozenCLIP, reads: Reads) -> Encode:
    """Return what makes of images what learners read: unit-norm features [B, D], fp32 rows before projection, or tokens."""
    return {"features": lambda images: normalized(clip.encode_image(images)),
            "pre_projection": lambda images: clip.encode_before_projection(images).float(),
            "tokens": clip.embed_image}[reads]


def pixel_encoder(clip: FrozenCLIP, reads: Reads, transform: Transform) -> Encode:
    """Return a function that does the same for 8-bit views [B, height, width, 3], which it normalizes where the tower is."""
    encode = encoder(clip, reads)
    return lambda pixels: encode(transform.normalize_on(pixels, clip.device))


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
            yield from map(self._embed, self._pixels(split))

    def of_steps(self, rows: Tensor, steps: Iterable[Step], round: int, *, reads: Reads) -> Iterator[Tensor]:
        """Yield the inputs [B, ...] of each step's positions in rows [M] of the train split, where the tower is.

        A row's augmented view is another one in each pass. Fixed views are encoded once, if memory allows; all others ahead,
        in the order of the steps, at most `AHEAD_BYTES` (but at least one step's) at once.
        """
        if reads in self.views:
            yield from self._kept_views(self.views[reads], rows, steps, round)
        elif self.loading.random_view is None and (found := self._kept_rows(rows, reads)) is not None:
            (kept, places), device = found, self.clip.device

            def gathered(own: Tensor) -> Tensor:
                own = places.index_select(0, own).to(kept.device, non_blocking=True)
                return kept.index_select(0, own).to(device, non_blocking=True).float()

            yield from by_places(gathered, steps)
        else:
            chunks, again = itertools.tee(_chunks(steps, AHEAD_BYTES // self._row_bytes(reads)))
            encoded = self._encoded_views(rows, chunks, round, reads)
            for chunk in again:
                sizes = [len(own) for own, _ in chunk]  # copies: a view would keep the chunk alive while the next is encoded
                yield from map(torch.clone, next(encoded).split(sizes))

    def _kept_tokens(self, split: str) -> Tensor | None:
        """Return the image tokens of a split, kept after the first use; None if they take more than the memory allowed."""
        if split not in self._tokens:
            n_images = len(self.dataset.split(split))
            tokens = self.store.charge(n_images * self._row_bytes("tokens"), lambda: predict(
                self._pixels(split, keep=False), self._embed, n_rows=n_images, description=f"image tokens of {split}"))
            if tokens is None:
                return None
            self._tokens[split] = tokens
        return self._tokens[split]

    def _row_bytes(self, reads: Reads) -> int:
        """Return the bytes of what is read of one image, in fp32."""
        if reads != "tokens":
            return 4 * self.bank(reads)["train"].shape[1]
        return 4 * self.clip.embed_image(torch.zeros(1, 3, *self.clip.preprocessing.size)).numel()

    def _embed(self, pixels: Tensor) -> Tensor:
        """Return the image tokens [B, L, width] of fixed 8-bit views."""
        return pixel_encoder(self.clip, "tokens", self.loading.view)(pixels)

    def _pixels(self, split: str, *, keep: bool = True) -> Iterator[Tensor]:
        """Yield the fixed views of a split; without `keep` none is put into memory that is not there."""
        files = self.dataset.files(split)
        store = self.store if keep or self.store.holds(files, self.loading.view) else None
        return pixel_batches(files, self.loading.view, batch_size=self.loading.batch_size, n_workers=self.loading.n_workers,
                             store=store)

    def _kept_rows(self, rows: Tensor, reads: Reads) -> tuple[Tensor, Tensor] | None:
        """Return inputs of fixed views, and where among them those of rows [M] are; None if memory has no room for them."""
        if reads != "tokens":
            return self._resident(self.bank(reads)["train"], rows)
        if (kept := self._kept_tokens("train")) is not None:
            return self._resident(kept, rows)
        n_bytes, places = len(rows) * self._row_bytes(reads), torch.arange(len(rows))
        if self.clip.device.type != "cpu" and n_bytes > free_bytes(self.clip.device) // 2:
            return None
        steps = [[(places, 0)]]

        def views() -> Tensor:
            return next(self._encoded_views(rows, steps, 0, reads))

        own = views() if n_bytes <= AHEAD_BYTES else self.store.charge(n_bytes, views)
        return None if own is None else (own, places)

    def _resident(self, kept: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and the places of rows [M] among them; on a card, the inputs of these rows alone, if they fit.

        Each step gathers its own there; from the CPU they would have to be sent in each step.
        """
        if self.clip.device.type == "cpu" or len(rows) * kept[:1].nbytes > free_bytes(self.clip.device) // 2:
            return kept, rows
        return self._sent(kept[rows]), torch.arange(len(rows))

    def _sent(self, inputs: Tensor) -> Tensor:
        """Return inputs on the tower's device."""
        return inputs.to(self.clip.device, non_blocking=True)

    def _kept_views(self, bank: ViewBank, rows: Tensor, steps: Iterable[Step], round: int) -> Iterator[Tensor]:
        """Yield the inputs [B, D] of each step: of each image one of its views, which the seed, round and pass draw."""
        views, paths = self._sent(bank.of(rows.tolist())), [self.dataset.train[row].path for row in rows.tolist()]
        for own, number in steps:
            drawn = [seed_for(self.loading.seed, "view drawn", round, number, paths[place]) for place in own.tolist()]
            yield views[self._sent(own), self._sent(torch.tensor(drawn) % bank.n_views)]

    def _encoded_views(self, rows: Tensor, chunks: Iterable[list[Step]], round: int, reads: Reads) -> Iterator[Tensor]:
        """Yield the encoded views of all steps of each chunk, one after the other: [sum of B, ...]."""
        loading, items = self.loading, [self.dataset.train[row] for row in rows.tolist()]
        places = [self.dataset.place(item.path) for item in items]
        if self.store.max_bytes:
            self.store.fill(places, loading.training_view, n_threads=loading.n_workers)
        # beside a tower on the CPU, workers are useful only for decoding; a card needs them for crops too
        no_workers = self.clip.device.type == "cpu" and self.store.holds(places, loading.training_view)

        def seed(place: int, number: int) -> int | None:
            return None if loading.random_view is None else seed_for(loading.seed, "view", round, number, items[place].path)

        views = ([(places[place], seed(place, number)) for own, number in chunk for place in own.tolist()] for chunk in chunks)
        encode = pixel_encoder(self.clip, reads, loading.training_view)
        return loading.encoded_chunks(views, encode, self.store, 0 if no_workers else loading.n_workers)


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


def by_places(gathered: Callable[[Tensor], Made], steps: Iterable[Step]) -> Iterator[Made]:
    """Yield what is gathered for the positions of each step; the same object if they are the same object as one step before."""
    last: tuple[Tensor, Made] | None = None
    for own, _ in steps:
        if last is None or own is not last[0]:
            last = own, gathered(own)
        yield last[1]


def batch_rows(n_rows: int, batch_size: int, *, drop_last: bool, key: tuple) -> list[Tensor]:
    """Return the batches of one pass as positions in 0..n_rows-1, in the random order of `rng_for(*key)`.

    With `drop_last` a last partial batch is left out, unless it is the only one (as in Dassl).
    """
    n_used = n_rows // batch_size * batch_size if drop_last and n_rows >= batch_size else n_rows
    order = torch.from_numpy(rng_for(*key).permutation(n_rows))
    return [order] if n_rows <= batch_size else list(order[:n_used].split(batch_size))
