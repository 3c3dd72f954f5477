"""Keeps CLIP, data set and features from run to run of a process, so that a sweep loads them once."""

from collections.abc import Callable, Collection
from typing import Any


class Held:
    """A cache of one entry per kind, shared by the runs of a process."""

    def __init__(self):
        self._last: dict[str, tuple[str, Any]] = {}

    def get(self, kind: str, key: object, make: Callable[[], Any], *, holders: Collection[str] = ()) -> Any:
        """Return the entry of this kind if it was made for this key, else make, keep and return a new one.

        The old entry, and entries of the kinds in `holders` that refer to it, are dropped first, so that memory never
        holds two.
        """
        if kind not in self._last or self._last[kind][0] != repr(key):
            for old in (kind, *holders):
                self._last.pop(old, None)
            self._last[kind] = repr(key), make()
        return self._last[kind][1]
