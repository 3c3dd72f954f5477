"""A number that grows with every change, for the run's thread, which waits for answers, and for pages, which wait for news."""

import asyncio
import contextlib
import threading


class Changes:
    """The number, and the condition (a lock) under which everything that changes is read and written."""

    def __init__(self) -> None:
        self.condition = threading.Condition(threading.RLock())
        self.number = 1  # so that 0 can stand for nothing
        self._waiting: set[asyncio.Future] = set()

    def made(self) -> None:
        """Count a change and wake all who wait; the caller holds the condition."""
        self.number += 1
        self.condition.notify_all()
        for future in self._waiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(_resolve, future)
        self._waiting.clear()

    async def after(self, since: int, seconds: float) -> None:
        """Return once the number differs from `since`, or after this many seconds."""
        future = asyncio.get_running_loop().create_future()
        with self.condition:
            if self.number != since:
                return
            self._waiting.add(future)
        await asyncio.wait([future], timeout=seconds)
        with self.condition:
            self._waiting.discard(future)


def _resolve(future: asyncio.Future) -> None:
    if not future.done():
        future.set_result(None)
