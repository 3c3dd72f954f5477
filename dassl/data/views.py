"""Images in batches, where one that cannot be had does not stop the others."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from torch import Tensor

from dassl.utils.errors import DataError

AHEAD = 2  # batches that are decoded while another one is used

Item = TypeVar("Item")


def readable(
    items: Iterable[Item], view: Callable[[Item], Tensor], *, batch_size: int, n_threads: int
) -> Iterator[list[Tensor | DataError]]:
    """Yield, batch after batch, the view of each item, or the DataError that it raised.

    Threads work ahead, since decoding and resizing run outside Python's lock; no more than a few batches are in memory.
    """

    def had(item: Item) -> Tensor | DataError:
        try:
            return view(item)
        except DataError as error:
            return error

    items, ahead = iter(items), deque()
    with ThreadPoolExecutor(max(1, n_threads)) as threads:
        while own := list(islice(items, batch_size)):
            ahead.append(threads.map(had, own))
            if len(ahead) > AHEAD:
                yield list(ahead.popleft())
        yield from map(list, ahead)
