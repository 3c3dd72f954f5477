"""Files to batches of tensors, in the order given, with one random stream an image."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dassl.data.places import Place
from dassl.data.store import ImageStore, undecodable
from dassl.data.transforms import Transform
from dassl.utils.errors import DataError
from dassl.utils.text import printable


class _Views(TorchDataset):
    """Row i is the 8-bit view of image i, with torch's generator set to `seeds[i]` for the time of the call.

    A file that cannot be decoded gives its error as the row: raised in a worker it would arrive as a stack trace.
    """

    def __init__(self, paths: Sequence[Place], transform: Transform, seeds: Sequence[int] | None, store: ImageStore):
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
    paths: Sequence[Place], transform: Transform, *, batch_size: int | Sequence[int], n_workers: int = 0,
    seeds: Sequence[int] | None = None, store: ImageStore | None = None,
) -> Iterator[Tensor]:
    """Yield float32 batches [B, 3, height, width] in the order of `paths`; the last one may be smaller.

    `batch_size` is that of all batches, or the sizes of them. With `seeds` a random transform of image i depends on `seeds[i]`
    alone, not on workers, batches or order; without them the transform must not be random. The global random state is left as
    it was. What `store` has room for is decoded first, by threads, and kept there. Raises one DataError for all images that
    cannot be decoded, and one if a worker process dies.
    """
    store = ImageStore(0) if store is None else store
    if store.max_bytes:
        store.fill(paths, transform, n_threads=n_workers)
    rows = _rows_of_batches(len(paths), batch_size)
    if len(rows) <= 1 or (seeds is None and store.holds(paths, transform)):
        n_workers = 0
    loader = DataLoader(_Views(paths, transform, seeds, store), batch_sampler=rows, num_workers=n_workers, collate_fn=list,
                        generator=torch.Generator().manual_seed(0))
    errors = []
    for views in _named_deaths(loader, paths, rows):
        errors += [view for view in views if isinstance(view, DataError)]
        if not errors:  # after a first error the pass only goes on to find the others
            yield transform.normalize(torch.from_numpy(np.stack(views)))
    if errors:
        raise undecodable(errors)


def _rows_of_batches(n_rows: int, sizes: int | Sequence[int]) -> list[range]:
    """Return the rows of each batch."""
    if isinstance(sizes, int):
        return [range(start, min(start + sizes, n_rows)) for start in range(0, n_rows, sizes)]
    stops = list(itertools.accumulate(sizes, initial=0))
    return [range(start, stop) for start, stop in itertools.pairwise(stops)]


def _named_deaths(loader: DataLoader, paths: Sequence[Place], batches: Sequence[range]) -> Iterator[list]:
    """Yield what the loader yields; a worker that died (out of memory, a crash in a decoder) is a DataError with its name."""
    n_batches = 0
    try:
        for views in loader:
            yield views
            n_batches += 1
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        place = printable(paths[batches[min(n_batches, len(batches) - 1)].start])
        raise DataError(f"{str(error).splitlines()[0].rstrip('. ')}, at or soon after {place}; it may have run out of memory "
                        "or met a file that crashes the decoder: DATALOADER.NUM_WORKERS 0 shows which") from error
