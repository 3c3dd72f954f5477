"""YAML text as a tree, read strictly: anything surprising, or that could exhaust memory, is one `ConfigError` line.

A key may occur only once. 1:2:3 and 010 are words, while YAML 1.1 would read 3723 and 8. Aliases are read, but no more than
`MAX_NODES` values in all, counting what each alias repeats; an alias within itself is refused.
"""

import functools
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from dassl.utils.errors import ConfigError
from dassl.utils.paths import open_file, reason, text_fault
from dassl.utils.text import printable

MAX_BYTES = 250_000
MAX_NODES = 100_000
MAX_DEPTH = 100


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader with the rules of this module."""

    def compose_document(self) -> yaml.Node:
        node = super().compose_document()
        if (n_nodes := _size(node, {})) > MAX_NODES:
            raise ValueError(f"its aliases stand for {n_nodes:,} values, but at most {MAX_NODES:,} are read")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise ValueError(f"key {shown(key)} occurs twice, in lines {seen[key]} and {line}")
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.Node) -> Any:
        value = super().construct_scalar(node)
        if fault := text_fault(value):
            raise ValueError(f"line {node.start_mark.line + 1}: a text {fault}")
        return value

    def construct_number(self, node: yaml.Node) -> int | float | str:
        text = self.construct_scalar(node)
        if ":" in text or (text.lstrip("+-").isdecimal() and text.lstrip("+-")[:1] == "0" != text.lstrip("+-")):
            return text
        is_integer = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_integer else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _StrictLoader.construct_number)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the tree of one YAML file; raises ConfigError in one line for anything that is not a YAML mapping."""
    name = printable(path)
    if Path(path).suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{name}: a config file ends in .yaml or .yml; nothing else is read")
    try:
        with open_file(path) as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{name}: {reason(error)}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: more than {MAX_BYTES:,} bytes, which no config has")
    tree = parse_yaml(text, name)
    if tree is None:
        raise ConfigError(f"{name}: the file is empty")
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}: the top level must be KEY: value lines, not {type_name(tree)}")
    return tree


def parse_yaml(text: str, source: str) -> Any:
    """Return the content of a YAML text; raises ConfigError, in one line that begins with `source`, if it breaks a rule."""
    try:
        return deepcopy(_parsed(text))
    except RecursionError:
        raise ConfigError(f"{source}: nested more than {MAX_DEPTH} levels deep") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: {_one_line(error)}") from None
    except Exception as error:  # PyYAML may raise anything, for example for !!bool x
        raise ConfigError(f"{source}: a value does not fit its tag ({type(error).__name__}: {_one_line(error)})") from None


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    """Return the content of a YAML text, read once: the cells of a sweep share their files and many values."""
    return _StrictLoader(text).get_single_data()


def shown(value: Any) -> str:
    """Return a value as shown in a message, in one line of moderate length."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def type_name(value: Any) -> str:
    """Return the type of a value in words."""
    return NAMES.get(type(value), type(value).__name__)


NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string", list: "a list", tuple: "a list",
         dict: "a mapping", type(None): "nothing"}


def _size(node: yaml.Node, sizes: dict[yaml.Node, int], depth: int = 0) -> int:
    """Return how many values a node stands for, counting those of an alias each time it occurs."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if node not in sizes:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        sizes[node] = MAX_NODES  # in case it occurs within itself
        sizes[node] = 1 + sum(_size(child, sizes, depth + 1) for child in children)
    return sizes[node]


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(str(getattr(error, "problem", None) or error).split())[:300]
