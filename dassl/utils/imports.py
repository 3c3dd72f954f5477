"""Importing a library without another one that it would take along."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Let a module look as if it were not installed, for imports in the block; nothing is hidden that is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # which is how Python marks a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]
