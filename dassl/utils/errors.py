"""Errors that a person can act on. `train.py` prints their one line and exits with `exit_code`, without a traceback."""

import difflib
from collections.abc import Iterable, Sequence

from dassl.utils.text import harmless


class UserError(Exception):
    """Something outside the program is wrong: a file, a folder, a label. The message says what would be right."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message with whatever it quotes from files made harmless, see `dassl.utils.text.harmless`."""
        return harmless(super().__str__())


class ConfigError(UserError):
    """The command line or a YAML file is wrong; raised before anything is loaded."""

    exit_code = 2


class DataError(UserError):
    """A data set, an image or a stored file is missing or damaged."""


class InUseError(UserError):
    """Another process is working in the folder."""


class WaitingForLabels(UserError):
    """The run cannot go on before people have labeled a query; nothing is wrong."""

    exit_code = 3


class TrainingError(UserError):
    """Training diverged: a loss or a prediction is NaN or Inf."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def listed(title: str, lines: Sequence[str]) -> str:
    """Return a message with its first twenty lines below the title."""
    return f"{title}:\n  " + "\n  ".join(lines[:20]) + ("\n  ..." if len(lines) > 20 else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint that ends an "unknown name" message: the nearest known name, or all of them if none is near."""
    known = sorted(known)
    folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    return f"known: {', '.join(known)}" if known else "none are known"
