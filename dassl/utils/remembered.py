"""What was learned by importing a package, remembered for the next start.

Listing components and checking the keys of a config needs only their names and parameters, but importing them loads the
libraries that they compute with, seconds for torch. So names and parameters are kept in `__pycache__`, as JSON bound to the
content of all of the project's code; an entry that is missing, damaged or of other code is made again.
"""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from dassl.utils.environment import CODE, code
from dassl.utils.errors import UserError
from dassl.utils.files import json_hash, read_json, write_json


@dataclass(frozen=True)
class Reference:
    """A function or class by name; its module is imported when it is first called."""

    module: str
    name: str

    @staticmethod
    def of(value: Callable) -> "Reference":
        """Return a reference to a function or class; raises ValueError if it cannot be found by name, such as a lambda."""
        if "<" in value.__qualname__:
            raise ValueError(f"{value} cannot be found by name")
        return Reference(value.__module__, value.__qualname__)

    def resolve(self) -> Callable:
        """Return the function or class itself."""
        return reduce(getattr, self.name.split("."), importlib.import_module(self.module))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.resolve()(*arguments, **named)


def recall(home: str) -> Any | None:
    """Return what is remembered of a package or module for the present code; None if there is nothing."""
    with suppress(UserError, AttributeError, KeyError, TypeError, ValueError):  # a damaged file may hold anything
        kept = read_json(_file(home))
        if kept["code"] == json_hash(code()) and kept["checksum"] == json_hash(kept["value"]):
            return _read(kept["value"])
    return None


def remember(home: str, value: Any) -> None:
    """Store a value made of plain values, tuples, dataclasses, classes of the project and references, nested at any depth.

    If nothing can be written, the next start imports again. Raises ValueError for any other value.
    """
    written = _written(value)
    with suppress(UserError):
        write_json(_file(home), {"code": json_hash(code()), "value": written, "checksum": json_hash(written)})


def _file(home: str) -> Path:
    beside = Path(importlib.util.find_spec(home).origin).with_name(f"{home.rpartition('.')[2]}.py")
    return Path(importlib.util.cache_from_source(beside)).with_suffix(".json")


def _written(value: Any) -> Any:
    """Return a value in JSON form: a list begins with its kind, "list", "tuple", "class" or the class of a dataclass."""
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_written, value)]
    if isinstance(value, dict):
        return {key: _written(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return [_name(type(value)), *(_written(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, type):
        return ["class", _name(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{value!r} cannot be remembered")


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kind, *items = value
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(map(_read, items))
    return _class(*items) if kind == "class" else _class(kind)(*map(_read, items))


def _name(of: type) -> str:
    return f"{of.__module__}:{of.__qualname__}"


def _class(name: str) -> type:
    """Return a class by its name; raises ValueError unless it is one of this project's or a built-in one."""
    module, _, qualname = name.partition(":")
    if module.partition(".")[0] not in ("builtins", *CODE):
        raise ValueError(f"{name} is not part of this project")
    return Reference(module, qualname).resolve()
