"""The only loop over images without gradients."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from tqdm import tqdm


@torch.no_grad()
def predict(
    batches: Iterable[Tensor], encode: Callable[[Tensor], Tensor], *, n_rows: int, description: str = "encoding"
) -> Tensor:
    """Return `encode` of all batches, stacked on the CPU as float32 [n_rows, ...]; row i belongs to image i.

    Raises RuntimeError if the batches do not hold `n_rows` images: a row must never be left unwritten or shifted.
    """
    rows, filled = None, 0
    progress = tqdm(total=n_rows, desc=description, unit="img", leave=False, disable=None)
    with progress:
        for batch in batches:
            encoded = encode(batch).float().cpu()
            rows = encoded.new_empty(n_rows, *encoded.shape[1:]) if rows is None else rows
            if filled + len(encoded) > n_rows:
                raise RuntimeError(f"more than the {n_rows} images announced came from the loader")
            rows[filled:filled + len(encoded)] = encoded
            filled += len(encoded)
            progress.update(len(encoded))
    if rows is None or filled != n_rows:
        raise RuntimeError(f"{n_rows} images announced, but {filled} came from the loader")
    return rows
