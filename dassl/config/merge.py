"""A strict merge of YAML files and KEY VALUE pairs into a yacs tree.

yacs alone executes a `.py` config, lets a duplicate key win silently, refuses `LR: 1` for a float and reports an unknown
key without similar ones. Here every fault is one `ConfigError` line: file, key, what was given, what would be right.
"""

import ast
import math
from collections.abc import Iterable, Mapping
from typing import Any

from yacs.config import CfgNode

from dassl.config.cli import Pairs
from dassl.config.reading import NAMES, parse_yaml, shown, type_name
from dassl.utils.errors import ConfigError, did_you_mean
from dassl.utils.paths import text_fault
from dassl.utils.registry import Parameter

Parameters = Mapping[str, Parameter]  # by dotted name


def merge_tree(cfg: CfgNode, tree: Mapping[str, Any], source: str, parameters: Parameters, prefix: str = "") -> None:
    """Merge a nested mapping into `cfg`; `source` (a file name) begins every message.

    `parameters` declare all keys of `cfg`: they say which types a key may hold.
    """
    for key, value in tree.items():
        full_key = f"{prefix}{key}"
        if key not in cfg:
            known = list(leaves(cfg, prefix)) if prefix else _all_keys(cfg)
            raise ConfigError(f"{source}: unknown key {shown(full_key)[1:-1]}; {_hint(full_key, known, parameters)}")
        if isinstance(cfg[key], CfgNode):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {full_key} holds keys of its own, but was given {shown(value)}")
            merge_tree(cfg[key], value, source, parameters, f"{full_key}.")
        else:
            cfg[key] = _converted(value, parameters[full_key].types, full_key, source)


def merge_pairs(cfg: CfgNode, pairs: Pairs, parameters: Parameters) -> None:
    """Merge KEY VALUE pairs of the command line, such as `("OPTIM.LR", "1e-3")`; `parameters` as for `merge_tree`."""
    for key, value in pairs:
        tree: Any = value
        for part in reversed(key.split(".")):
            tree = {part: tree}
        merge_tree(cfg, tree, "command line", parameters)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def lookup(cfg: CfgNode, dotted: str) -> Any:
    """Return the value at a dotted name."""
    for part in dotted.split("."):
        cfg = cfg[part]
    return cfg


def _hint(key: str, known: list[str], all_leaves: Iterable[str]) -> str:
    """Return what may be meant: the only key with the same last part (for TRAINER.COOP.PREC), or the nearest in its node."""
    if key in known:
        return "a file holds it as nested keys"
    same = [leaf for leaf in all_leaves if leaf.rpartition(".")[2] == key.rpartition(".")[2]]
    return did_you_mean(key, known) if len(same) != 1 else f"did you mean {same[0]!r}?"


def _all_keys(cfg: CfgNode) -> list[str]:
    return [*leaves(cfg), *(key for key in cfg if isinstance(cfg[key], CfgNode))]


def _converted(value: Any, wanted: tuple[type, ...], key: str, source: str) -> Any:
    """Return `value` in one of the wanted types; strings are read as Python literals unless a string is wanted."""
    if isinstance(value, str) and str not in wanted:
        value = _literal(value)
    if isinstance(value, str) and int in wanted and _is_int(value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in wanted:
        value = float(value) if abs(value) < 1e300 else math.inf
    if isinstance(value, (list, tuple)) and issubclass(wanted[0], (list, tuple)):
        value = wanted[0](_finite(_literal(item), key, source) for item in value)
    if type(value) not in wanted:
        names = " or ".join(NAMES[kind] for kind in wanted)
        raise ConfigError(f"{source}: {key} must be {names}, not {type_name(value)} {shown(value)}")
    if isinstance(value, str) and (fault := text_fault(value)):
        raise ConfigError(f"{source}: {key} {fault}: {shown(value)}")
    return _finite(value, key, source)


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    text = value.strip()
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # TypeError: a list in a set
        return _flow_list(text) if text.startswith("[") else value


def _flow_list(text: str) -> Any:
    """Return a list whose words are not quoted, such as [random_flip, normalize]; other text is returned as it is."""
    try:
        return parse_yaml(text, "")
    except ConfigError:
        return text


def _finite(value: Any, key: str, source: str) -> Any:
    if isinstance(value, (int, float)) and not abs(value) < 2**63:  # NaN is not below anything
        raise ConfigError(f"{source}: {key} must be a finite number below 2^63, not {shown(value)}")
    return value


def _is_int(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 20
