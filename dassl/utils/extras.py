"""Optional packages: imported where they are used; if one is missing, one line says how to install it."""

import importlib
from types import ModuleType

from dassl.utils.errors import ConfigError


def required(name: str, purpose: str, requirements: str) -> ModuleType:
    """Return a module; ConfigError, with the command that installs it, if its package is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigError(f"{purpose} need the package {package}, which is missing or incomplete ({error}): "
                          f"pip install -r {requirements}") from error
