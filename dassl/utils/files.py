"""Files that are either whole or absent: every write goes to a temporary name, is flushed to disk and then renamed."""

import contextlib
import fcntl
import glob
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from dassl.utils.errors import DataError, InUseError, UserError
from dassl.utils.events import event

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it takes the place of `path`, otherwise it is removed.

    Raises UserError with the path, and the bytes that found room, if the folder cannot be written or the disk is full; the
    old file stays as it was. Only kill -9 leaves a temporary file behind, see `remove_leftovers`.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[-40:]}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        event("write")
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        event("rename")
        os.replace(temporary, path)
        event("renamed")
        _sync_folder(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error
        n_bytes = temporary.stat().st_size if temporary and temporary.exists() else 0
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}"
                        + (f" after {n_bytes:,} bytes" if n_bytes else "")) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder, those for the file `name` or all of them.

    Only for who holds the lock under which they are written.
    """
    pattern = "*" if name is None else glob.escape(name[-40:])
    for leftover in folder.glob(f".{pattern}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Bytes of file names that are not UTF-8 survive (surrogateescape)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: ASCII only, no NaN."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raises DataError with the path if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON file: {error}") from error


def json_hash(value: Any) -> str:
    """Return the SHA-256, in hexadecimal, of what JSON can hold; the order of keys is none of it."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock on `path` (made if absent); the system frees it when the process ends, however it ends.

    With `wait` the caller says so and waits for its turn, without it InUseError says that another process is at work; so does
    a folder that was moved away in the meantime.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with file:
        try:
            _flock(file, path, wait)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileNotFoundError
        except FileNotFoundError:
            raise InUseError(f"another process is at work in {path.parent}") from None
        except OSError as error:
            raise UserError(f"cannot lock {path}: {error.strerror}") from error
        yield


def _flock(file: IO, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise InUseError(f"another process is at work in {path.parent}") from None
        logger.info("waiting for another process at work in %s", path.parent)
        fcntl.flock(file, fcntl.LOCK_EX)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
