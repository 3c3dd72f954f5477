"""Imports that do not go by names alone: without a library that another one takes along, and of this project's own packages."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

from dassl.utils.environment import PROJECT
from dassl.utils.paths import resolved

OWN = "of_this_project_"  # before the name of a package of this project, if another one has that name


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


def own_name(name: str) -> str:
    """Return the name by which a package of this project, or what is in it, can be imported in this process.

    That is its own, unless it leads to a package of others: Hugging Face's `datasets`, where that is imported already or found
    first. Then both live side by side, and that of this project has `OWN` before its name.
    """
    package, _, rest = name.partition(".")
    file = PROJECT / package / "__init__.py"
    if not file.is_file():
        return name
    with contextlib.suppress(ValueError):  # of a module that somebody has made by hand
        spec = importlib.util.find_spec(package)  # of what is imported, or would be
        if spec is not None and spec.origin is not None and resolved(spec.origin) == resolved(file):
            return name
    if (own := f"{OWN}{package}") not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, file, submodule_search_locations=[str(file.parent)])
        sys.modules[own] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[own])
    return f"{own}.{rest}" if rest else own
