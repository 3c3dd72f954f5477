"""The only loop over images without gradients."""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from dassl.utils.allocation import freed_memory_kept
from dassl.utils.errors import UserError
from dassl.utils.events import event
from dassl.utils.progress import Progress

logger = logging.getLogger(__name__)


@torch.no_grad()
def predict(
    batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor], *, n_rows: int, description: str = "encoding"
) -> Tensor:
    """Return `encode` of all batches, stacked on the CPU as float32 [n_rows, ...]; row i belongs to image i.

    A batch that finds no room on the GPU is halved, and so are those after it; if even one image does not fit,
    UserError. Raises RuntimeError if the batches do not hold `n_rows` images: a row must never be left unwritten or
    shifted.
    """
    rows, filled = None, 0
    with freed_memory_kept(), Progress(description, n_rows, "img") as progress:
        for encoded in encoded_parts(batches, encode):
            rows = encoded.new_empty(n_rows, *encoded.shape[1:]) if rows is None else rows
            if filled + len(encoded) > n_rows:
                raise RuntimeError(f"more than the {n_rows} images announced came from the loader")
            rows[filled:filled + len(encoded)] = encoded
            filled += len(encoded)
            progress.update(len(encoded))
            event("extract")
    if rows is None or filled != n_rows:
        raise RuntimeError(f"{n_rows} images announced, but {filled} came from the loader")
    return rows


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


def encoded_parts(batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield `encode` of each batch, float32 on the CPU, or of its parts in order if the whole does not fit."""
    most = None  # rows that may fit; None until a batch did not
    for batch in batches:
        done = 0
        while done < len(batch):
            part = batch[done:done + (most or len(batch))]
            try:
                encoded = encode(part).float().cpu()
            except torch.OutOfMemoryError as error:
                if len(part) == 1:
                    raise UserError(f"out of memory with a single image: {str(error).splitlines()[0]}") from error
                most = (len(part) + 1) // 2
                logger.warning("out of memory: going on with batches of %d images", most)
                torch.cuda.empty_cache()
            else:
                done += len(part)
                yield encoded
