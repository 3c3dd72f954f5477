"""What one process keeps from run to run, so that a sweep loads CLIP and features once."""

from collections.abc import Callable
from typing import Any


class Held:
    """The last thing made of each kind, for a next run that asks for the same."""

    def __init__(self):
        self._last: dict[str, tuple[str, Any]] = {}

    def get(self, kind: str, key: object, make: Callable[[], Any]) -> Any:
        """Return what `make` made for this key, if that was the last one of its kind, or what it makes now."""
        if kind not in self._last or self._last[kind][0] != repr(key):
            self._last[kind] = repr(key), make()
        return self._last[kind][1]
