"""The command line: flags, and KEY VALUE pairs that may stand before, between and after them."""

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

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)  # what a full disk and a terminal that has gone answer

Pairs = list[tuple[str, str]]


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one `ConfigError` line and which leaves KEY VALUE pairs aside.

    A word that looks like KEY or KEY.SUBKEY is a key, unless a flag with one value stands right before it.
    """

    def __init__(self, **arguments):
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    def parse(self, argv: Sequence[str]) -> tuple[argparse.Namespace, Pairs]:
        """Return the flags and the KEY VALUE pairs, the latter in their order."""
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
        """Return what argparse does, after a look at every word."""
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
    """Return the number of threads or processes that a flag asks for, from 1 to 1024; to be the `type` of an argument."""
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1024")
    return int(text)


def _check_texts(words: Sequence[str]) -> None:
    for word in words:
        if fault := text_fault(word):
            raise ConfigError(f"the word {printable(word)} {fault}")


def command(name: str, main: Callable[[], int]) -> NoReturn:
    """Exit with the code of a command; whatever becomes of the terminal or of who reads its output, there is no trace.

    A reader that has gone, as in `... | head`, is no error (141, as by SIGPIPE); an output that cannot be written is one line
    and 1; Ctrl-C that `main` did not answer is 130, SIGTERM 143. Where a standard stream is closed, what is written is lost.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to stop
    starting.end()
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        code = 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        if not _is_broken(sys.stdout):
            raise  # another pipe than this one
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
    """Give the standard streams that the caller has closed to /dev/null, before a file gets their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), mode, closefd=False))  # noqa: SIM115


def _is_broken(stream: IO) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _flush_nowhere(stream: IO) -> None:
    """Let what is left in the buffer of a stream that may take no more go to /dev/null: Python flushes once more at its end."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
