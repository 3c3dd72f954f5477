"""Tensors of the cache, in files that say what they hold and have a checksum."""

import contextlib
import hashlib
import json
import logging
import mmap
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dassl.utils.errors import UserError
from dassl.utils.files import atomic_path, reserve
from dassl.utils.paths import check_file, exists, reason

logger = logging.getLogger(__name__)

HINT = "CACHE_DIR names another folder for features and hashes of the images"

Key = Mapping[str, Any]
Types = Mapping[str, torch.dtype]
Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]

CODES = {torch.uint8: "U8", torch.float16: "F16", torch.float32: "F32", torch.int64: "I64"}  # names in safetensors
LARGEST = 2**32 - 1  # of CRC-32


def save_tensors(path: Path, key: Key, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and their key atomically; UserError, with the number of bytes needed, if that fails."""
    with _whole(path, sum(tensor.nbytes for tensor in tensors.values())) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary,
                  metadata={"bank": _stated(key, _checksum(tensors))})


@contextlib.contextmanager
def tensors_to_fill(path: Path, key: Key, shapes: Shapes) -> Iterator[dict[str, Tensor]]:
    """Yield tensors that are mapped to a file; on a clean exit it gets its name, as if `save_tensors` had written it.

    This is how tensors larger than memory are written. Those with wider numbers come first in `shapes`, as their places must be
    multiples of the numbers' bytes. Raises what `save_tensors` raises.
    """
    places, n_bytes = {}, 0
    for name, (dtype, shape) in shapes.items():
        places[name] = n_bytes, n_bytes + dtype.itemsize * torch.Size(shape).numel()
        n_bytes = places[name][1]
    n_head = len(_head(key, shapes, places, LARGEST))
    with _whole(path, n_bytes) as temporary:
        with open(temporary, "r+b") as file:
            reserve(file.fileno(), n_head + n_bytes)
            mapped = mmap.mmap(file.fileno(), n_head + n_bytes)
        buffer = torch.frombuffer(mapped, dtype=torch.uint8)[n_head:]
        tensors = {name: buffer[slice(*places[name])].view(dtype).view(shape) for name, (dtype, shape) in shapes.items()}
        yield tensors
        mapped[:n_head] = _head(key, shapes, places, _checksum(tensors)).ljust(n_head)
        mapped.flush()


@contextlib.contextmanager
def _whole(path: Path, n_bytes: int) -> Iterator[Path]:
    """Yield the path to write a file to; UserError, with the number of bytes that it takes, if that fails."""
    try:
        with atomic_path(path) as temporary:
            yield temporary
    except UserError as error:
        raise UserError(f"{error}; it takes {n_bytes:,} bytes; {HINT}") from error


def _head(key: Key, shapes: Shapes, places: Mapping[str, tuple[int, int]], checksum: int) -> bytes:
    """Return the head of a safetensors file: the length of what follows, then JSON, spaces up to a multiple of 8 bytes."""
    entries = {name: {"dtype": CODES[dtype], "shape": list(shape), "data_offsets": list(places[name])}
               for name, (dtype, shape) in shapes.items()}
    text = json.dumps({"__metadata__": {"bank": _stated(key, checksum)}} | entries).encode()
    longest = len(text) + len(str(LARGEST)) - len(str(checksum))
    n_bytes = -(-longest // 8) * 8
    return n_bytes.to_bytes(8, "little") + text.ljust(n_bytes)


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
    if any(tensor.dtype != types[name] for name, tensor in tensors.items()) or metadata.get("bank") != _stated(
            key, _checksum(tensors)):
        logger.warning("the cache %s does not hold what its name says and is made anew", path)
        return None
    return tensors


def key_of(path: Path) -> dict[str, Any]:
    """Return the key that a file states, {} if it cannot be read."""
    key = stated_in(path).get("key")
    return key if isinstance(key, dict) else {}


def stated_in(path: Path) -> dict[str, Any]:
    """Return what a file says about itself: `key` and `crc32`; {} if it cannot be read."""
    try:
        check_file(path)
        with safe_open(path, "pt") as file:
            stated = json.loads((file.metadata() or {}).get("bank", "{}"))
    except (OSError, SafetensorError, ValueError, TypeError):
        return {}
    return stated if isinstance(stated, dict) else {}


def state_hash(state: Mapping[str, Tensor], said: Callable[[str, Tensor], str], first: bytes = b"") -> str:
    """Return the SHA-256, in hexadecimal, of tensors in the order of their names: the text `said` of each, then its bytes.

    `first` comes before them all.
    """
    digest = hashlib.sha256(first)
    for name, value in sorted(state.items()):
        digest.update(said(name, value).encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _stated(key: Key, checksum: int) -> str:
    """Return a file's description: its key and the CRC-32 of its tensors, as one text, so that equal files are identical."""
    return json.dumps({"key": key, "crc32": checksum}, sort_keys=True)


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    checksum = 0
    for _, tensor in sorted(tensors.items()):
        checksum = zlib.crc32(tensor.contiguous().numpy().data, checksum)
    return checksum
