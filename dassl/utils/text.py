"""Makes text from files (names, paths, labels) safe for a terminal and a log: no escapes, no forged lines."""

import os


def printable(path: str | os.PathLike) -> str:
    """Return a path or a name for a message: in one line, with bytes that are not UTF-8 as escapes."""
    text = os.fsdecode(path)
    return text if text.isprintable() else ascii(text)


def harmless(text: str) -> str:
    """Return a message of one or more lines with escapes for everything that a terminal would not print as it is.

    Lines after the first begin with a space, so that none of them can pass for a separate message.
    """
    first, *others = ("".join(map(_shown, line)) for line in text.split("\n"))
    return "\n".join([first, *(line if line.startswith(" ") or not line else f"  {line}" for line in others)])


def _shown(character: str) -> str:
    return character if character.isprintable() or character == "\t" else ascii(character)[1:-1]
