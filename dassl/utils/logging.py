"""Logging of a run: INFO lines to the terminal and, with the project's DEBUG lines, to `log.txt` in the output folder.

Commands whose standard output is for results show only warnings, on standard error.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from dassl.utils.errors import UserError
from dassl.utils.run_folder import LOG
from dassl.utils.text import harmless

PROJECT = ("dassl", "trainers", "active", "datasets", "__main__", "train")


class _Formatter(logging.Formatter):
    """Formats records so that nothing they quote from files can forge a record or send the terminal an escape."""

    def format(self, record: logging.LogRecord) -> str:
        return harmless(super().format(record))


class _TerminalHandler(logging.Handler):
    """Writes above a progress bar instead of through it, and escapes what the terminal's encoding lacks."""

    stream = property(lambda self: sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        encoding = self.stream.encoding or "utf-8"
        tqdm.write(self.format(record).encode(encoding, "backslashreplace").decode(encoding), file=self.stream)


class _ErrorHandler(_TerminalHandler):
    stream = property(lambda self: sys.stderr)


class _LogFile(logging.FileHandler):
    """The handler of `log.txt`, a class of its own to tell it from others. A line that cannot be written is an error."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise UserError(f"cannot write {self.baseFilename}: {error.strerror}") from error
        super().handleError(record)


def setup_logging(output_dir: Path) -> logging.Handler:
    """Send INFO and above to the terminal and, with the time, to `output_dir/log.txt`; return the file's handler.

    The file also gets the project's DEBUG lines (config, losses); the terminal gets no INFO lines of other packages.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for package in PROJECT:
        logging.getLogger(package).setLevel(logging.DEBUG)
    for handler in [own for own in root.handlers if isinstance(own, (_TerminalHandler, _LogFile)) or _is_basic(own)]:
        root.removeHandler(handler)
        handler.close()
    terminal = _TerminalHandler(logging.INFO)
    terminal.setFormatter(_Formatter("%(message)s"))
    terminal.addFilter(_from_the_project)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        file = _LogFile(output_dir / LOG, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"cannot write {output_dir / LOG}: {error.strerror}") from error
    file.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(terminal)
    root.addHandler(file)
    return file


def _is_basic(handler: logging.Handler) -> bool:
    """Tell whether `logging.basicConfig` made a handler, as a library's first line does: each line would come twice."""
    return type(handler) is logging.StreamHandler and handler.stream is sys.stderr


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Within the block, warnings go to standard error as they are, each once.

    Without a handler, the first library to log would install its own, whose lines begin with levels and module names.
    """
    root, handler, said = logging.getLogger(), _ErrorHandler(logging.WARNING), set()
    handler.setFormatter(_Formatter("%(message)s"))
    handler.addFilter(lambda record: not (record.getMessage() in said or said.add(record.getMessage())))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _from_the_project(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.split(".")[0] in PROJECT
