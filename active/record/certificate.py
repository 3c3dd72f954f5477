"""The certificate of a run: a hash of each thing that its numbers follow from, and nothing of where or when it ran."""

from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from dassl.config.defaults import is_part_of_a_run
from dassl.config.merge import dotted_keys, lookup
from dassl.config.setup import plugin_hash
from dassl.utils.environment import code
from dassl.utils.files import json_hash

CODE = code()  # as imported, whatever becomes of the files


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all keys of a recorded config that change what a run computes, and their values."""
    tree = CfgNode(dict(config))
    return json_hash({key: lookup(tree, key) for key in dotted_keys(tree) if is_part_of_a_run(key)})


def code_hash(plugins: Sequence[str] = ()) -> str:
    """Return the SHA-256 of the code of this process: the project's `.py` files, by relative path, and loaded plug-ins.

    All of it is as it was when it was imported, so that a process that lives for hours names what it runs.
    """
    return json_hash([CODE, [digest for digest in map(plugin_hash, plugins) if digest]])
