"""The only loop over images without gradients."""

import logging
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from dassl.utils.errors import UserError
from dassl.utils.events import event

logger = logging.getLogger(__name__)


@torch.no_grad()
def predict(
    batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor], *, n_rows: int, description: str = "encoding"
) -> Tensor:
    """Return `encode` of all batches, stacked on the CPU as float32 [n_rows, ...]; row i belongs to image i.

    A batch that finds no room on the GPU is halved, and so are those after it, until one image finds none: UserError.
    Raises RuntimeError if the batches do not hold `n_rows` images: a row must never be left unwritten or shifted.
    """
    rows, filled = None, 0
    progress = tqdm(total=n_rows, desc=description, unit="img", leave=False, disable=None)
    with progress:
        for encoded in _encoded(batches, encode):
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


def _encoded(batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield `encode` of each batch, or of its parts in their order where the whole does not fit."""
    most = None  # rows that may fit; None: not known to be fewer than a batch has
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
