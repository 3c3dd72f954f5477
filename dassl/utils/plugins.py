"""Import every module of a package, so that dropping a file into a folder is enough to register its components."""

import importlib
import pkgutil
from collections.abc import Collection, Iterable


def import_all(package: str, path: Iterable[str], *, leave_out: Collection[str] = ()) -> None:
    """Import the modules of a package in the order of their names, except those named or that start with an underscore."""
    for module in sorted(pkgutil.iter_modules(path), key=lambda module: module.name):
        if not module.name.startswith("_") and module.name not in leave_out:
            importlib.import_module(f"{package}.{module.name}")
