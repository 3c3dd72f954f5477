"""A file that only grows: JSON values, one per line, on the disk before anybody is told that they are saved.

A process that is killed in the middle of a line leaves a torn one, which is dropped: nobody was told of it. `dassl.utils.files`
is for files that are replaced as a whole.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dassl.utils.errors import DataError, UserError
from dassl.utils.events import event
from dassl.utils.files import check_not_replaced, sync_folder
from dassl.utils.paths import exists, open_file, reason
from dassl.utils.text import printable

logger = logging.getLogger(__name__)


class Journal:
    """The lines of a file, which need not exist yet. Only one process at a time may append."""

    def __init__(self, path: Path):
        self.path = path

    def read(self, *, mends: bool = True) -> list[Any]:
        """Return the values of all lines, the first one first.

        A torn last line is left out and, with `mends`, removed from the file, with a line in the log. Raises DataError, naming
        file and line, for any other line that is not JSON.
        """
        if not exists(self.path):
            return []
        try:
            with open_file(self.path) as file:
                content = file.read()
        except OSError as error:
            raise DataError(f"cannot read {printable(self.path)}: {reason(error)}") from error
        *lines, torn = content.split(b"\n")
        if torn and mends:
            logger.warning("%s: the last line is torn and dropped: %s", printable(self.path), torn[:200])
            self._cut(len(content) - len(torn))
        return [self._value(number, line) for number, line in enumerate(lines, start=1)]

    def append(self, values: Sequence[Any]) -> None:
        """Add a line for each value; they are on the disk when this returns.

        Raises UserError, with the file as it was, if the disk is full or cannot be written.
        """
        check_not_replaced(self.path)
        text = "".join(f"{json.dumps(value, allow_nan=False)}\n" for value in values).encode("ascii")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not exists(self.path)
            with open(self.path, "ab", buffering=0) as file:
                before = file.tell()
                event("write")
                try:
                    _write_whole(file.fileno(), text)
                except OSError:
                    os.ftruncate(file.fileno(), before)
                    raise
            if is_new:
                sync_folder(self.path.parent)
        except OSError as error:
            raise UserError(f"cannot write {printable(self.path)}: {reason(error)}") from error

    def _value(self, number: int, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{printable(self.path)} line {number} is damaged: {error}") from error

    def _cut(self, n_bytes: int) -> None:
        try:
            with open(self.path, "r+b") as file:
                file.truncate(n_bytes)
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {printable(self.path)}: {reason(error)}") from error


def _write_whole(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content):]
    os.fsync(descriptor)
