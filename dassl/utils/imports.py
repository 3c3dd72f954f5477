"""Special imports: with a library hidden from another one, and of this project's packages under a safe name."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

from dassl.utils.environment import PROJECT
from dassl.utils.paths import resolved

OWN = "of_this_project_"  # prefix for a package of this project, if another package has its name


@contextlib.contextmanager
def hidden(name: str) -> Iterator[None]:
    """Make a module look as if it were not installed, for imports in the block; one that is imported already stays visible."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # Python's mark for a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]


def own_name(name: str) -> str:
    """Return the name by which a package of this project, or what is in it, can be imported in this process.

    That is its own name, unless this leads to a foreign package: Hugging Face's `datasets`, if that is imported already or
    found first. Then both live side by side, and this project's has the prefix `OWN`.
    """
    package, _, rest = name.partition(".")
    file = PROJECT / package / "__init__.py"
    if not file.is_file():
        return name
    with contextlib.suppress(ValueError):  # for a module that was created by hand
        spec = importlib.util.find_spec(package)  # of the module that is imported, or would be
        if spec is not None and spec.origin is not None and resolved(spec.origin) == resolved(file):
            return name
    if (own := f"{OWN}{package}") not in sys.modules:
        spec = importlib.util.spec_from_file_location(own, file, submodule_search_locations=[str(file.parent)])
        sys.modules[own] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[own])
    return f"{own}.{rest}" if rest else own
