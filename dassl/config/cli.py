"""The command line: flags, and KEY VALUE pairs that may come before, between and after them."""

import argparse
import errno
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import IO, NoReturn

from dassl.utils import starting
from dassl.utils.errors import ConfigError, did_you_mean
from dassl.utils.events import Terminated
from dassl.utils.paths import printable, text_fault

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # the errors of a full disk and of a closed terminal

Pairs = list[tuple[str, str]]


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one `ConfigError` line and which leaves KEY VALUE pairs aside.

    A word that looks like KEY or KEY.SUBKEY is a key, unless it directly follows a flag with one value.
    """

    def __init__(self, **arguments):
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    def parse(self, argv: Sequence[str]) -> tuple[argparse.Namespace, Pairs]:
        """Return the flags, and the KEY VALUE pairs in their order."""
        _check_texts(argv)
        words, pairs = self._split(list(argv))
        known, unknown = self.parse_known_args(words)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            if unknown[0].startswith("-"):
                raise ConfigError(f"unknown flag {printable(unknown[0])}; {did_you_mean(unknown[0].split('=')[0], flags)}")
            raise ConfigError(f"{unknown[0]!r} is neither a flag nor a KEY VALUE pair (keys are upper case)")
        return known, pairs

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> tuple:
        """Return what argparse returns, after a check of every word."""
        _check_texts(args := sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def _split(self, argv: list[str]) -> tuple[list[str], Pairs]:
        one_value = {flag for action in self._actions for flag in action.option_strings
                     if action.nargs in (None, "?")}
        words, pairs = [], []
        while argv:
            word = argv.pop(0)
            if KEY.fullmatch(word):
                if not argv or argv[0].startswith("--"):
                    raise ConfigError(f"{word} has no value")
                pairs.append((word, argv.pop(0)))
            else:
                words.append(word)
                if word in one_value and argv and not argv[0].startswith("--"):
                    words.append(argv.pop(0))
        return words, pairs


def count(text: str) -> int:
    """Return the number of threads or processes that a flag asks for, from 1 to 1024; use it as an argument's `type`."""
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1024")
    return int(text)


def _check_texts(words: Sequence[str]) -> None:
    for word in words:
        if fault := text_fault(word):
            raise ConfigError(f"the word {printable(word)} {fault}")


def command(name: str, main: Callable[[], int]) -> NoReturn:
    """Exit with the code of a command, without a traceback whatever happens to the terminal or the reader of its output.

    A reader that has gone, as in `... | head`, is not an error (141, as by SIGPIPE); an output that cannot be written gives
    one line and 1; Ctrl-C that `main` did not handle gives 130, SIGTERM 143. What is written to a closed standard stream is
    lost.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show must not stop the command
    starting.end()
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        code = 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        if not _is_broken(sys.stdout):
            raise  # a pipe other than this one
        code = 141
    except OSError as error:
        if error.filename is not None or error.errno not in NO_ROOM:
            raise
        sys.stderr.write(f"{name}: cannot write the output: {error.strerror}\n")
        code = 1
    if code in (1, 141):
        _flush_nowhere(sys.stdout)
    sys.exit(code)


def _open_closed_streams() -> None:
    """Connect standard streams that the caller has closed to /dev/null, before a file gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, closefd=False))  # noqa: SIM115


def _is_broken(stream: IO) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _flush_nowhere(stream: IO) -> None:
    """Send the rest of a broken stream's buffer to /dev/null, since Python flushes once more at its end."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
