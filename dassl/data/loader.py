"""Files to batches of tensors, in the order given, with one random stream an image."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dassl.data.images import printable
from dassl.data.store import ImageStore, undecodable
from dassl.data.transforms import Transform
from dassl.utils.errors import DataError


class _Views(TorchDataset):
    """Row i is the 8-bit view of image i, with torch's generator set to `seeds[i]` for the time of the call.

    A file that cannot be decoded gives its error as the row: raised in a worker it would arrive as a stack trace.
    """

    def __init__(self, paths: Sequence[str], transform: Transform, seeds: Sequence[int] | None, store: ImageStore):
        self.paths, self.transform, self.seeds, self.store = paths, transform, seeds, store

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> np.ndarray | DataError:
        try:
            if self.seeds is None:
                return self.store.pixels(self.paths[row], self.transform)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seeds[row])
                return self.store.pixels(self.paths[row], self.transform)
        except DataError as error:
            return error


def image_batches(
    paths: Sequence[Path], transform: Transform, *, batch_size: int, n_workers: int = 0, seeds: Sequence[int] | None = None,
    store: ImageStore | None = None,
) -> Iterator[Tensor]:
    """Yield float32 batches [B, 3, height, width] in the order of `paths`; the last one may be smaller.

    With `seeds` a random transform of image i depends on `seeds[i]` alone, not on workers, batches or order; without
    them the transform must not be random. The global random state is left as it was. What `store` has room for is
    decoded first, by threads, and kept there. Raises one DataError for all images that cannot be decoded, and one if a
    worker process dies.
    """
    names = [str(path) for path in paths]
    store = ImageStore(0) if store is None else store
    if store.max_bytes:
        store.fill(names, transform, n_threads=n_workers)
    if len(names) <= batch_size or (seeds is None and store.holds(names, transform)):
        n_workers = 0
    loader = DataLoader(_Views(names, transform, seeds, store), batch_size, num_workers=n_workers, collate_fn=list,
                        generator=torch.Generator().manual_seed(0))
    errors = []
    for rows in _named_deaths(loader, names, batch_size):
        errors += [row for row in rows if isinstance(row, DataError)]
        if not errors:  # after a first error the pass only goes on to find the others
            yield transform.normalize(torch.from_numpy(np.stack(rows)))
    if errors:
        raise undecodable(errors)


def _named_deaths(loader: DataLoader, names: Sequence[str], batch_size: int) -> Iterator[list]:
    """Yield what the loader yields; a worker that died (out of memory, a crash in a decoder) is a DataError with its name."""
    n_batches = 0
    try:
        for rows in loader:
            yield rows
            n_batches += 1
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        place = printable(names[min(n_batches * batch_size, len(names) - 1)])
        raise DataError(f"{str(error).splitlines()[0].rstrip('. ')}, at or soon after {place}; it may have run out of memory "
                        "or met a file that crashes the decoder: DATALOADER.NUM_WORKERS 0 shows which") from error
