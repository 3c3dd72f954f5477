"""Looking at paths and opening files: whatever is there gives an answer or an error, never a wait or a traceback."""

import os
import stat
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO

from dassl.utils.errors import UserError
from dassl.utils.text import printable

AnyPath = str | os.PathLike


def open_file(path: AnyPath) -> BinaryIO:
    """Return an ordinary file, opened for reading its bytes; OSError, at once, for folders, pipes, sockets and devices.

    Opening a pipe would wait for a writer, and a device may have no end. An impossible path, with a NUL byte in it, is an
    OSError too.
    """
    try:
        return open(path, "rb", opener=_ordinary)
    except ValueError as error:
        raise OSError(f"no path: {error}") from error


def check_file(path: AnyPath) -> None:
    """Raise OSError unless a path is an ordinary file that can be opened; for libraries that open files themselves."""
    open_file(path).close()


def _ordinary(path: AnyPath, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # for a folder, `open` gives the error
        os.close(descriptor)
        raise OSError("a pipe, a socket or a device, not a file")
    return descriptor


def status(path: AnyPath) -> os.stat_result | None:
    """Return the system's status of a file, following links; None if there is nothing.

    Raises UserError if the system cannot tell: too long a name, a link to itself, no permission.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot look at {printable(path)}: {reason(error)}") from error


def exists(path: AnyPath) -> bool:
    """Return whether there is anything at a path; raises UserError as `status` does."""
    return status(path) is not None


def is_file(path: AnyPath) -> bool:
    """Return whether a path is an ordinary file; raises UserError as `status` does."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: AnyPath) -> bool:
    """Return whether a path is a folder; raises UserError as `status` does."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def files_below(folder: AnyPath, names: Container[str]) -> tuple[list[Path], list[str]]:
    """Return the files with some names at any depth below a folder, sorted, and what is wrong with unreadable folders.

    Links to folders are not followed. Nothing recurses, however deep the folders are.
    """
    found, faults, folders = [], [], [os.fspath(folder)]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name in names:
                        found.append(Path(entry.path))
        except OSError as error:
            faults.append(f"cannot read the folder {printable(here)}: {reason(error)}")
    return sorted(found), faults


def expanded(path: AnyPath) -> Path:
    """Return a path with ~ replaced by the home folder; an unknown user's ~name stays as it is."""
    return Path(os.path.expanduser(path))


def resolved(path: AnyPath) -> Path:
    """Return an absolute path without links; links that lead to themselves stay."""
    return Path(os.path.realpath(path))


def reason(error: Exception) -> str:
    """Return the reason that an error gives, without the file's name."""
    return getattr(error, "strerror", None) or str(error)


def text_fault(text: str) -> str:
    """Return why a text cannot be a path or a name (a NUL byte, or a lone surrogate), "" if it can."""
    if "\0" in text:
        return "holds a NUL byte"
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!a}, half of a character"
    return ""
