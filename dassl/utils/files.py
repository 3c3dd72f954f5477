"""Files that are either complete or absent: every write goes to a temporary name, is flushed to disk and then renamed."""

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from safetensors import SafetensorError

from dassl.utils.errors import DataError, InUseError, UserError
from dassl.utils.events import event
from dassl.utils.paths import exists, is_file, open_file, reason
from dassl.utils.text import printable

logger = logging.getLogger(__name__)

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)  # errors of file systems without flock
NO_RESERVING = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_held: dict[str, tuple[int, int]] = {}  # device and inode of each lock's file, by its absolute path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it takes the place of `path`, otherwise it is removed.

    Raises UserError with the path, and the number of bytes written, if the folder cannot be written, the disk is full, or
    the folder is no longer the one that this process has locked, see `lock`; the old file stays as it was. Only kill -9
    leaves a temporary file behind, see `remove_leftovers`.
    """
    path = Path(path)
    check_not_replaced(path)
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
        check_not_replaced(path)
        event("rename")
        os.replace(temporary, path)
        event("renamed")
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error
        n_bytes = temporary.stat().st_size if temporary and temporary.exists() else 0
        raise UserError(f"cannot write {printable(path)}: {reason(error)}"
                        + (f" after {n_bytes:,} bytes" if n_bytes else "")) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on a clean exit it takes the name of `path`, otherwise it is removed.

    Raises UserError if there is anything but an empty folder at `path`, or if nothing can be written there.
    """
    check_new_folder(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[-40:]}.", suffix=".tmp"))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {printable(path)}: {reason(error)}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Raise UserError if there is anything but an empty folder at `path`."""
    try:
        if exists(path) and any(path.iterdir()):
            raise UserError(f"the folder {printable(path)} holds files already; name a new one")
    except OSError as error:
        raise UserError(f"cannot write into {printable(path)}: {reason(error)}; name a new folder") from error


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files that killed processes left in a folder, those for the file `name` or all of them.

    The caller must hold the lock under which they are written.
    """
    pattern = "*" if name is None else glob.escape(name[-40:])
    for leftover in folder.glob(f".{pattern}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically.

    Bytes of file names that are not UTF-8 survive (surrogateescape); lone surrogates, which JSON may hold, become U+FFFD.
    """
    content = HALVES.sub("\ufffd", text).encode("utf-8", "surrogateescape")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: ASCII only, no NaN."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises DataError with the path if it is missing or not JSON."""
    try:
        with open_file(path) as file:
            content = file.read()
        return json.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read {printable(path)}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(path)} is not a JSON file: {error}") from error


def json_hash(value: Any) -> str:
    """Return the SHA-256, in hexadecimal, of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; raises DataError if it cannot be read."""
    return digest_of(path, "sha256")


def digest_of(path: Path, kind: str) -> str:
    """Return the digest of a file's bytes, such as its "md5", in hexadecimal; raises DataError if it cannot be read."""
    digest = hashlib.new(kind)
    try:
        with open_file(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"cannot read {printable(path)}: {reason(error)}") from error
    return digest.hexdigest()


@contextlib.contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created if absent); the system frees it when the process ends, however it ends.

    Processes that this one forks do not hold it. On a file system without locks, a file beside `path` says who holds it.
    With `wait` this logs a line and waits for its turn; without it, InUseError says that another process is at work, as it
    does if the folder was moved away in the meantime. While the lock is held, `atomic_path` writes nothing to a folder that
    has replaced the locked one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not exists(path):
            path.touch()
        if not is_file(path):
            raise OSError("it is not a file")
        opened = _identity(path)
        held = _acquired(path, wait)
    except OSError as error:
        raise UserError(f"cannot write {printable(path)}: {reason(error)}") from error
    key = os.path.abspath(path)
    try:
        if opened is None or _identity(path) != opened:
            raise InUseError(f"another process is at work in {path.parent}")
        _held[key] = opened
        yield
    finally:
        _held.pop(key, None)
        held.release()


def _acquired(path: Path, wait: bool) -> BaseFileLock:
    """Return a held lock: the system's or, on a file system without locks, one made of a file."""
    try:
        return _turn(FileLock(path, fallback_to_soft=False), path, wait)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return _turn(SoftFileLock(path.with_name(f"{path.name}.held")), path, wait)


def _turn(own: BaseFileLock, path: Path, wait: bool) -> BaseFileLock:
    try:
        own.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InUseError(f"another process is at work in {path.parent}") from None
        logger.info("waiting for another process at work in %s", path.parent)
        own.acquire()
    return own


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from a later one with the same name; None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def check_not_replaced(path: Path) -> None:
    """Raise UserError if a folder above `path` in which this process holds a lock is no longer the locked one."""
    for locked, identity in _held.items():
        folder = os.path.dirname(locked)
        if os.path.abspath(path).startswith(os.path.join(folder, "")) and _identity(Path(locked)) != identity:
            raise UserError(f"{folder} was moved away or replaced while this process was at work in it; {path} is not written")


def reserve(descriptor: int, n_bytes: int) -> None:
    """Give an empty file its size; OSError if the disk has no space, where the system can tell.

    Without this, a process that writes through a memory map to a full disk is killed by SIGBUS.
    """
    try:
        os.posix_fallocate(descriptor, 0, n_bytes)
    except (AttributeError, OSError) as error:  # macOS has no such call
        if isinstance(error, OSError) and error.errno not in NO_RESERVING:
            raise
        os.ftruncate(descriptor, n_bytes)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
