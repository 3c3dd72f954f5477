"""The certificate of a run: hashes of everything that its numbers depend on, and nothing about where or when it ran."""

from collections.abc import Mapping, Sequence
from typing import Any

from dassl.config.defaults import is_part_of_a_run
from dassl.config.merge import leaves
from dassl.config.setup import plugin_hash
from dassl.utils.environment import code
from dassl.utils.files import json_hash

CODE = code()  # as imported, even if the files change later


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all keys of a recorded config that change what a run computes, and their values."""
    return json_hash({key: value for key, value in leaves(config).items() if is_part_of_a_run(key)})


def code_hash(plugins: Sequence[str] = ()) -> str:
    """Return the SHA-256 of the code of this process: the project's `.py` files, by relative path, and loaded plug-ins.

    It is the code as imported, so a process that lives for hours names the code that it runs.
    """
    return json_hash([CODE, [digest for digest in map(plugin_hash, plugins) if digest]])
