"""The progress of a long loop: a bar on a terminal, elsewhere a line in the log now and then."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

LOG_EVERY = 30.0  # seconds
BAR = {"leave": False, "disable": None, "delay": 1}  # for tqdm's bar: only on a terminal, and only after one second

Item = TypeVar("Item")
Listener = Callable[[str, int, int, str], None]  # takes what a loop does, how much is done, of how much, and the unit
logger = logging.getLogger(__name__)
_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Tell a listener about the progress of every loop of this process from now on; return a function that ends this."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


class Progress:
    """The progress of one loop, used as `with Progress(...) as progress: ... progress.update(n)`."""

    def __init__(self, description: str, total: int, unit: str):
        self.bar = tqdm(total=total, desc=description, unit=unit, leave=False, disable=None)
        self._description, self._total, self._unit, self._done = description, total, unit, 0
        self._start = self._said = time.monotonic()
        self._tell()

    def update(self, n: int = 1, **shown: str) -> None:
        """Say that n more are done; `shown` are names and values to show with it."""
        self._done += n
        if shown:
            self.bar.set_postfix(shown)
        self.bar.update(n)
        self._tell()
        now = time.monotonic()
        if self.bar.disable and now - self._said >= LOG_EVERY:
            self._said = now
            beside = "".join(f", {name} {value}" for name, value in shown.items())
            logger.info("%s: %d of %d %s after %.0f s%s", self._description, self._done, self._total, self._unit,
                        now - self._start, beside)

    def _tell(self) -> None:
        for listener in _listeners:
            listener(self._description, self._done, self._total, self._unit)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


def progress(items: Iterable[Item], description: str, *, total: int, unit: str) -> Iterator[Item]:
    """Yield items, and show how many have been yielded."""
    with Progress(description, total, unit) as shown:
        for item in items:
            yield item
            shown.update()
