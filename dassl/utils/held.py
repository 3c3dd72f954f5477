"""Keeps CLIP, data set and features from run to run of a process, so that a sweep loads them once."""

from collections.abc import Callable, Collection
from typing import Any


class Held:
    """A cache of one entry a kind, shared by the runs of a process."""

    def __init__(self):
        self._last: dict[str, tuple[str, Any]] = {}

    def get(self, kind: str, key: object, make: Callable[[], Any], *, holders: Collection[str] = ()) -> Any:
        """Return what `make` made for this key, if that was the last one of its kind, or what it makes now.

        The last one, and entries of the kinds in `holders` that refer to it, are dropped before: memory need not hold two.
        """
        if kind not in self._last or self._last[kind][0] != repr(key):
            for old in (kind, *holders):
                self._last.pop(old, None)
            self._last[kind] = repr(key), make()
        return self._last[kind][1]
