"""Packages that only some need: imported where they are used, and asked for in one line where they are not installed."""

import importlib
from types import ModuleType

from dassl.utils.errors import ConfigError


def required(name: str, purpose: str, requirements: str) -> ModuleType:
    """Return a module; ConfigError, with the command that installs it, if its package is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(f"{purpose} need the package {package}, which is not installed or not whole ({error}): "
                          f"pip install -r {requirements}") from error
