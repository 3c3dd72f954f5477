"""Turns files into batches of views, in the order given, with one random stream for each image.

Views stay 8-bit until they reach the tower's device: that is a quarter of the bytes, and no work for the CPU beside a card.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.util import Finalize

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dassl.data.places import Place
from dassl.data.store import ImageStore, undecodable
from dassl.data.transforms import Transform
from dassl.utils.errors import DataError
from dassl.utils.paths import reason
from dassl.utils.text import printable

View = tuple[Place, int | None]  # a file, and the seed of its random view; None for a view that is not random


class _Views(TorchDataset):
    """Views, uint8 [height, width, 3]; each is made with torch's CPU generator set to its seed for the time of the call.

    For a file that cannot be decoded, its error is returned: raised in a worker, it would arrive as a stack trace.
    """

    def __init__(self, transform: Transform, store: ImageStore):
        self.transform, self.store = transform, store

    def __getitem__(self, view: View) -> np.ndarray | DataError:
        path, seed = view
        try:
            if seed is None:
                return self.store.pixels(path, self.transform)
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would set a card's generator too, for good
                return self.store.pixels(path, self.transform)
        except DataError as error:
            return error


def image_batches(
    paths: Sequence[Place], transform: Transform, *, batch_size: int | Sequence[int], n_workers: int = 0,
    seeds: Sequence[int] | None = None, store: ImageStore | None = None,
) -> Iterator[Tensor]:
    """Yield the batches of `pixel_batches` as the tower takes them, float32 [B, 3, height, width]."""
    pixels = pixel_batches(paths, transform, batch_size=batch_size, n_workers=n_workers, seeds=seeds, store=store)
    return map(transform.normalize, pixels)


def pixel_batches(
    paths: Sequence[Place], transform: Transform, *, batch_size: int | Sequence[int], n_workers: int = 0,
    seeds: Sequence[int] | None = None, store: ImageStore | None = None,
) -> Iterator[Tensor]:
    """Yield uint8 batches [B, height, width, 3] in the order of `paths`; the last one may be smaller.

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
    views = ([(paths[row], None if seeds is None else seeds[row]) for row in own] for own in rows)
    errors: list[DataError] = []
    for found in _loaded(views, transform, store, n_workers):
        if isinstance(found, list):
            errors += found
        elif not errors:  # after an error, the pass goes on only to find the others
            yield found
    if errors:
        raise undecodable(errors)


def view_batches(
    batches: Iterable[Sequence[View]], transform: Transform, store: ImageStore, n_workers: int
) -> Iterator[Tensor]:
    """Yield uint8 [B, height, width, 3] for batches of views, of any number of passes; workers draw each when they get to it.

    Raises a DataError at the first batch that cannot be decoded, and one if a worker process dies.
    """
    for found in _loaded(batches, transform, store, n_workers):
        if isinstance(found, list):
            raise undecodable(found)
        yield found


def _loaded(
    batches: Iterable[Sequence[View]], transform: Transform, store: ImageStore, n_workers: int
) -> Iterator[Tensor | list[DataError]]:
    """Yield the pixels of each batch, or the errors of those of its files that cannot be decoded."""
    begun: list[Place] = []

    def drawn() -> Iterator[Sequence[View]]:
        for views in batches:
            begun.append(views[0][0])
            yield views

    loader = DataLoader(_Views(transform, store), batch_sampler=drawn(), num_workers=n_workers, collate_fn=_stacked,
                        generator=torch.Generator().manual_seed(0), worker_init_fn=_end_at_once)
    for found in _named_deaths(loader, begun):
        yield found if isinstance(found, list) else torch.from_numpy(found)


def _stacked(views: list[np.ndarray | DataError]) -> np.ndarray | list[DataError]:
    """Return one array, not a tensor: workers send tensors through shared memory, of which a container has little."""
    return [view for view in views if isinstance(view, DataError)] or np.stack(views)


def _end_at_once(_: int) -> None:
    """Let this worker process end without waiting until its last batches are read.

    After Ctrl-C, or when the main process was killed, nobody reads them, and the worker would hang until it is killed too.
    """
    Finalize(None, os._exit, args=(0,), exitpriority=0)  # runs before the queue's finalizer, which waits


def _rows_of_batches(n_rows: int, sizes: int | Sequence[int]) -> list[range]:
    """Return the rows of each batch."""
    if isinstance(sizes, int):
        return [range(start, min(start + sizes, n_rows)) for start in range(0, n_rows, sizes)]
    stops = list(itertools.accumulate(sizes, initial=0))
    return [range(start, stop) for start, stop in itertools.pairwise(stops)]


def _named_deaths(loader: DataLoader, begun: Sequence[Place]) -> Iterator[np.ndarray | list[DataError]]:
    """Yield what the loader yields; a worker that died (out of memory, a crash in a decoder) is a DataError with its name.

    `begun` is the first file of each batch that workers were told of.
    """
    n_batches = 0
    with worker_deaths_named(lambda: f", at or soon after {printable(begun[min(n_batches, len(begun) - 1)])}"):
        for found in _started(loader):
            yield found
            n_batches += 1


def _started(loader: DataLoader) -> Iterator[np.ndarray | list[DataError]]:
    """Return what iterates over a loader; its worker processes are there then."""
    try:
        return iter(loader)
    except OSError as error:
        raise DataError(f"cannot start {loader.num_workers} worker processes: {reason(error)}; DATALOADER.NUM_WORKERS takes "
                        "fewer, 0 none") from error


@contextlib.contextmanager
def worker_deaths_named(where: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Raise a DataError for a worker process that died; it says what the cause may be.

    Torch raises its own error from a signal handler, so in the middle of whatever runs then, such as a step of training.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(f"{str(error).splitlines()[0].rstrip('. ')}{where()}; it may have run out of memory or met a file that "
                        "crashes the decoder: DATALOADER.NUM_WORKERS 0 shows which") from error
