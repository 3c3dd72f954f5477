"""From files and KEY VALUE pairs to one checked, frozen config."""

import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from dassl.config.cli import Pairs
from dassl.config.defaults import SHARED, Circumstance, default_config, is_part_of_a_run
from dassl.config.merge import Parameters, leaves, lookup, merge_pairs, merge_tree
from dassl.config.reading import read_yaml
from dassl.utils.errors import ConfigError
from dassl.utils.files import sha256_of
from dassl.utils.paths import expanded, resolved
from dassl.utils.registry import Registry

ABSENT = "(absent)"  # the value of a key in a config that does not use its component

# The component's name and the default, as in JSON, of each key that this process has configured.
_component_defaults: dict[str, tuple[str, Any]] = {}
_component_circumstances: set[str] = set()  # those of these keys that say where and how fast a run happens
_imported: dict[str, str] = {}  # SHA-256 of the files of plug-ins when they were imported, by the names of their modules


def setup_config(
    files: Iterable[str], pairs: Pairs, registries: Sequence[Registry], *, nodes: Collection[str] = (),
    recorded: Mapping[str, Any] | None = None,
) -> CfgNode:
    """Return the config from files, merged left to right, and then the KEY VALUE pairs. Not frozen yet, see `check_config`.

    `recorded` is the config of a record, merged first; plug-ins that it names are not imported, since they may be anybody's
    code.

    Plug-ins are imported first, so that their components' nodes are known. With `nodes`, only those nodes of the files
    are merged, for commands that do not know the others. Raises ConfigError.
    """
    trees = [(str(path), read_yaml(path)) for path in files]
    plugins = CfgNode({"ACTIVE": CfgNode({"PLUGINS": []})})
    for source, tree in trees:
        if isinstance(tree.get("ACTIVE"), dict) and "PLUGINS" in tree["ACTIVE"]:
            merge_tree(plugins, {"ACTIVE": {"PLUGINS": tree["ACTIVE"]["PLUGINS"]}}, source, SHARED)
    merge_pairs(plugins, [pair for pair in pairs if pair[0] == "ACTIVE.PLUGINS"], SHARED)
    for registry in registries:
        registry.fill()  # first, so that a plug-in that reuses a name gets an error
    for plugin in plugins.ACTIVE.PLUGINS:
        load_plugin(str(plugin))
    _check_names(registries)
    cfg = default_config()
    for registry in registries:
        add_component_nodes(cfg, registry)
    parameters = _parameters(registries)
    if recorded:
        merge_tree(cfg, recorded, "the record", parameters)
    for source, tree in trees:
        merge_tree(cfg, {key: tree[key] for key in tree if not nodes or key in nodes}, source, parameters)
    merge_pairs(cfg, pairs, parameters)
    _take_canonical_names(cfg, parameters, registries)
    return cfg


def _parameters(registries: Iterable[Registry]) -> Parameters:
    """Return the declaration of each key that a config may hold, shared keys first, then those of components."""
    parameters = dict(SHARED)
    for registry in registries:
        parameters |= registry.parameters()
    return parameters


def _take_canonical_names(cfg: CfgNode, parameters: Parameters, registries: Sequence[Registry]) -> None:
    """Replace other names of components by their canonical names, so that their nodes are found and records agree."""
    by_kind = {registry.kind: registry for registry in registries}
    for key, parameter in parameters.items():
        if not parameter.names:
            continue
        for kind in by_kind.keys() & set(parameter.names):
            node, _, name = key.rpartition(".")
            lookup(cfg, node)[name] = by_kind[kind].canonical_value(lookup(cfg, key))


def _check_names(registries: Sequence[Registry]) -> None:
    """Raise ConfigError if components of two registries share a node and a name, so that a config could mean either."""
    seen: dict[tuple[str, str], str] = {}
    for registry in registries:
        for component in registry:
            said = f"{registry.kind} {component.name!r}"
            if (other := seen.setdefault((registry.node, component.key), said)) != said:
                raise ConfigError(f"{other} and {said} have the same name; register yours under another one")


def load_plugin(name: str) -> None:
    """Import a plug-in, a `.py` file or a module's dotted name, once per process; raises ConfigError if that fails."""
    try:
        path, module_name = resolved(expanded(name)), _module_name(name)
        if path.suffix != ".py":
            file = getattr(importlib.import_module(name), "__file__", None)
            _imported.setdefault(name, sha256_of(file) if file else "")
            return
        if module_name in sys.modules:
            return
        digest = sha256_of(path)
        spec = importlib.util.spec_from_file_location(module_name, path)
        sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
        _imported[module_name] = digest
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"ACTIVE.PLUGINS: cannot import {name!r}: {reason}") from error


def plugin_hash(name: str) -> str:
    """Return the SHA-256 of the file of a loaded plug-in as it was imported, "" for a package without one."""
    return _imported[_module_name(name)]


def _module_name(name: str) -> str:
    path = resolved(expanded(name))
    return f"plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}" if path.suffix == ".py" else name


def add_component_nodes(cfg: CfgNode, registry: Registry) -> None:
    """Add `<node>.<NAME>` with the parameters of every registered component that has any."""
    for component in registry:
        if component.parameters:
            if component.key in cfg[registry.node]:
                raise ConfigError(f"{registry.kind} {component.name!r} wants the node {registry.node}.{component.key}, "
                                  "which is a shared key; register it under another name")
            node = cfg[registry.node][component.key] = CfgNode()
            for parameter in component.parameters:
                node[parameter.key] = copy(parameter.default)
                key = f"{registry.node}.{component.key}.{parameter.key}"
                if Circumstance() in parameter.extras:
                    _component_circumstances.add(key)
                else:
                    _component_defaults[key] = component.name, parameter.recorded_before


def drop_unused(cfg: CfgNode, registries: Iterable[Registry], always: Collection[str] = ()) -> None:
    """Delete the nodes of components that no value of the config names, so that adding a component elsewhere changes no run.

    A component that a used one names (the sampler inside a wrapper) counts as used, as do those in `always`.
    """
    unused = {f"{registry.node}.{component.key}": component.name
              for registry in registries for component in registry if component.parameters}
    named, values = set(always), leaves(cfg)
    while True:
        named |= _names({key: value for key, value in values.items() if key.rpartition(".")[0] not in unused})
        if not (used := {node for node, name in unused.items() if name in named}):
            break
        unused = {node: name for node, name in unused.items() if node not in used}
    for node in unused:
        parent, _, key = node.partition(".")
        del cfg[parent][key]


def check_config(cfg: CfgNode, registries: Iterable[Registry]) -> None:
    """Raise ConfigError for a value outside its choices or beyond its bounds, of shared keys and of components alike."""
    for key, parameter in _parameters(registries).items():
        parameter.check(lookup(cfg, key), key)


def cache_path(cfg: CfgNode) -> Path:
    """Return a whole config's folder for what is cached of a data set: `CACHE_DIR`, or `.cache` in the data root."""
    return expanded(cfg.get("CACHE_DIR") or Path(cfg.DATASET.ROOT) / ".cache")


def as_dict(cfg: CfgNode) -> dict[str, Any]:
    """Return the config as stored in a record: plain nested dictionaries, as in JSON.

    Components' circumstances are left out: a reader of a record may not know the component, or that they change no run.
    """
    tree = json.loads(json.dumps(cfg))
    for key in _component_circumstances:
        _drop(tree, key.split("."))
    return tree


def _drop(tree: dict[str, Any], path: Sequence[str]) -> None:
    """Delete a key, if it is there, and the nodes above it that are empty without it."""
    first, *rest = path
    if rest and first in tree:
        _drop(tree[first], rest)
    if first in tree and not (rest and tree[first]):
        del tree[first]


@dataclass(frozen=True)
class Difference:
    """A key and its values in two configs, as in JSON, or `ABSENT`; as text, a line `KEY: old -> new`."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return each key, sorted, that changes what a run computes and differs between two configs.

    A key that one of them lacks, as in records older than the key, has its default there, or the value of `Before`; keys
    of a component that it does not use are `ABSENT`, unless the other does not use it either.
    """
    old_values, new_values = _values(old), _values(new)
    named = _names(old_values) | _names(new_values)
    unused = {key: default for key, (component, default) in _component_defaults.items() if component not in named}
    keys = [key for key in sorted(old_values.keys() | new_values.keys()) if is_part_of_a_run(key)]
    both = [Difference(key, *(own.get(key, unused.get(key, ABSENT)) for own in (old_values, new_values))) for key in keys]
    return [difference for difference in both if difference.old != difference.new]


def _values(config: dict[str, Any]) -> dict[str, Any]:
    """Return the leaves of a config by dotted key, with the defaults of the keys that it leaves out."""
    shared = {key: parameter.recorded_before for key, parameter in SHARED.items()}
    own = shared | leaves(config)
    if own["ACTIVE.SELECTOR_OPTIM.ABSENT"] == "auto":  # in records from before it was settled
        own["ACTIVE.SELECTOR_OPTIM.ABSENT"] = "pushed"
    nodes, named = {key.rpartition(".")[0] for key in own}, _names(own)
    used = {key: default for key, (component, default) in _component_defaults.items()
            if component in named or key.rpartition(".")[0] in nodes}
    return used | own


def _names(values: Mapping[str, Any]) -> set[str]:
    """Return the strings among values, and in lists, that may name a component: paths and labels do not."""
    lists = (value if isinstance(value, (list, tuple)) else [value] for key, value in values.items()
             if isinstance(value, (str, list, tuple)) and (is_part_of_a_run(key) or key in ("LOG.RECORDERS", "LOG.TRACKERS")))
    return {name for names in lists for name in names if isinstance(name, str)}
