"""Tensors of the cache, in files that say what they hold and have a checksum."""

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dassl.utils.errors import UserError
from dassl.utils.files import atomic_path
from dassl.utils.paths import check_file, exists, reason

logger = logging.getLogger(__name__)

HINT = "CACHE_DIR names another folder for features and hashes of the images"

Key = Mapping[str, Any]
Types = Mapping[str, torch.dtype]


def save_tensors(path: Path, key: Key, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and their key atomically; UserError, with the number of bytes needed, if that fails."""
    try:
        with atomic_path(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary,
                      metadata={"bank": _stated(key, tensors)})
    except UserError as error:
        n_bytes = sum(tensor.nbytes for tensor in tensors.values())
        raise UserError(f"{error}; it takes {n_bytes:,} bytes; {HINT}") from error


def load_tensors(path: Path, key: Key, types: Types) -> dict[str, Tensor] | None:
    """Return the tensors with these names and types; None if there is no file or, after a warning, if it does not fit the key.

    A file that was cut off, altered in a single bit, or written for another key counts as missing.
    """
    if not exists(path):
        return None
    try:
        check_file(path)
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in types}
    except (OSError, SafetensorError) as error:
        logger.warning("the cache %s is damaged (%s) and is made anew", path, reason(error))
        return None
    if any(tensor.dtype != types[name] for name, tensor in tensors.items()) or metadata.get("bank") != _stated(key, tensors):
        logger.warning("the cache %s does not hold what its name says and is made anew", path)
        return None
    return tensors


def key_of(path: Path) -> dict[str, Any]:
    """Return the key that a file states, {} if it cannot be read."""
    try:
        check_file(path)
        with safe_open(path, "pt") as file:
            key = json.loads((file.metadata() or {}).get("bank", "{}"))["key"]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}
    return key if isinstance(key, dict) else {}


def state_hash(state: Mapping[str, Tensor], said: Callable[[str, Tensor], str], first: bytes = b"") -> str:
    """Return the SHA-256, in hexadecimal, of tensors in the order of their names: the text `said` of each, then its bytes.

    `first` comes before them all.
    """
    digest = hashlib.sha256(first)
    for name, value in sorted(state.items()):
        digest.update(said(name, value).encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _stated(key: Key, tensors: Mapping[str, Tensor]) -> str:
    """Return a file's description: its key and the CRC-32 of its tensors, as one text, so that equal files are identical."""
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.contiguous().numpy().data, checksum)
    return json.dumps({"key": key, "crc32": checksum}, sort_keys=True)
