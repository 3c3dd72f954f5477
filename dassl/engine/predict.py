"""The only loop over images without gradients."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from dassl.utils.allocation import freed_memory_kept
from dassl.utils.errors import UserError
from dassl.utils.events import event
from dassl.utils.progress import Progress

Result = TypeVar("Result", Tensor, tuple[Tensor, Tensor])
logger = logging.getLogger(__name__)


@torch.no_grad()
def predict(
    batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor], *, n_rows: int, description: str = "encoding",
    keep: bool = False
) -> Tensor:
    """Return `encode` of all batches, stacked as float32 [n_rows, ...]; row i belongs to image i.

    They come to the CPU; with `keep`, they stay where the tower is. A batch that does not fit on the GPU is halved,
    and so are those after it; if even one image does not fit, UserError. Raises RuntimeError if the batches do not hold
    `n_rows` images: a row must never be left unwritten or shifted.
    """
    stacked = Stacked(n_rows)
    with freed_memory_kept(), Progress(description, n_rows, "img") as progress:
        for encoded in encoded_parts(batches, encode, keep=keep):
            stacked.add(encoded)
            progress.update(len(encoded))
            event("extract")
    return stacked.whole()


class Stacked:
    """Parts that come in order, as rows of one tensor [n_rows, ...]; each is written to its place, so none is held twice."""

    def __init__(self, n_rows: int, make: Callable[..., Tensor] | None = None):
        """`make` returns a tensor of a shape, to be filled; by default it is like the first part."""
        self._n_rows, self._filled, self._make = n_rows, 0, make
        self._rows: Tensor | None = None

    def add(self, part: Tensor) -> None:
        if self._rows is None:
            self._rows = (self._make or part.new_empty)(self._n_rows, *part.shape[1:])
        if self._filled + len(part) > self._n_rows:
            raise RuntimeError(f"more than the {self._n_rows} images announced came from the loader")
        self._rows[self._filled:self._filled + len(part)] = part
        self._filled += len(part)

    def whole(self) -> Tensor:
        """Return all rows; RuntimeError if one is missing."""
        if self._rows is None or self._filled != self._n_rows:
            raise RuntimeError(f"{self._n_rows} images announced, but {self._filled} came from the loader")
        return self._rows


def in_batches(rows: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return ascending rows, split where a pass over all rows in batches of this size begins a new batch."""
    return [list(own) for _, own in itertools.groupby(rows, lambda row: row // batch_size)]


def predict_some(
    batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor], rows: Sequence[Sequence[int]], *, batch_size: int,
    n_rows: int, description: str
) -> Iterator[Tensor]:
    """Yield `encode` of some of `n_rows` images, float32 on the CPU, as a pass over all in batches would compute it.

    `batches` holds the images of `in_batches(...)`, which is `rows`. The last digits of a matrix product depend on the
    shapes, so each image keeps its place in a batch of the full size, with zeros in place of the others.
    """
    places = [[row % batch_size for row in own] for own in rows]
    sizes = [min(batch_size, n_rows - own[0] // batch_size * batch_size) for own in rows]
    placed = (_placed(images, own, size) for images, own, size in zip(batches, places, sizes, strict=True))
    with torch.no_grad(), freed_memory_kept(), Progress(description, sum(map(len, rows)), "img") as progress:
        parts = encoded_parts(placed, encode)
        for own, size in zip(places, sizes, strict=True):
            encoded = next(parts)
            while len(encoded) < size:  # a GPU without room for a whole batch yields it in parts
                encoded = torch.cat([encoded, next(parts)])
            yield encoded[own] if len(own) < size else encoded
            progress.update(len(own))
            event("extract")


def _placed(images: Tensor, places: list[int], size: int) -> Tensor:
    """Return a batch of `size` images with these in their places, and zeros in all others."""
    if len(images) != len(places):
        raise RuntimeError(f"{len(places)} images were asked for, but {len(images)} came from the loader")
    if len(places) == size:
        return images
    whole = images.new_zeros(size, *images.shape[1:])
    whole[places] = images
    return whole


def encoded_parts(batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor], *, keep: bool = False) -> Iterator[Tensor]:
    """Yield `encode` of each batch, float32 on the CPU, or of its parts in order if the whole does not fit.

    With `keep` they stay where they are.
    """
    parts = in_parts(batches, encode)
    yield from (part.float() for part in parts) if keep else (part.float().cpu() for part in behind(parts))


def behind(parts: Iterable[Result]) -> Iterator[Result]:
    """Yield tensors or pairs of them; those on a card come one step late.

    So the card computes the next one while one is read from it.
    """
    waiting: list[Result] = []
    for part in parts:
        waiting.append(part)
        if len(waiting) > (part if isinstance(part, Tensor) else part[0]).is_cuda:
            yield waiting.pop(0)
    yield from waiting


def in_parts(batches: Iterable[Tensor], function: Callable[[Tensor], Result]) -> Iterator[Result]:
    """Yield `function` of each batch, or of its parts in order if the whole does not fit on the card; later batches alike.

    Raises UserError if even one row does not fit.
    """
    most = None  # rows that may fit; None until a batch did not
    for batch in batches:
        done = 0
        while done < len(batch):
            part = batch[done:done + (most or len(batch))]
            try:
                found = function(part)
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise UserError(f"out of memory with a single image: {str(error).splitlines()[0]}") from error
                most = (len(part) + 1) // 2
                logger.warning("out of memory: going on with batches of %d images", most)
                torch.cuda.empty_cache()
            else:
                done += len(part)
                yield found
