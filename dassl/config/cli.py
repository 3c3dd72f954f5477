"""The command line: flags, and KEY VALUE pairs that may stand before, between and after them."""

import argparse
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from dassl.utils.errors import ConfigError, did_you_mean

KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*")

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
        words, pairs = self._split(list(argv))
        known, unknown = self.parse_known_args(words)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            if unknown[0].startswith("-"):
                raise ConfigError(f"unknown flag {unknown[0]}; {did_you_mean(unknown[0].split('=')[0], flags)}")
            raise ConfigError(f"{unknown[0]!r} is neither a flag nor a KEY VALUE pair (keys are upper case)")
        return known, pairs

    def _split(self, argv: list[str]) -> tuple[list[str], Pairs]:
        one_value = {flag for action in self._actions for flag in action.option_strings
                     if action.nargs is None}
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


def command(main: Callable[[], int]) -> NoReturn:
    """Exit with the code of a command; one whose reader has gone, as in `... | head`, ends quietly with 141, as by SIGPIPE."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        poll = select.poll()
        poll.register(sys.stdout, select.POLLOUT)
        if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            raise  # another pipe than this one
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        code = 141
    sys.exit(code)
