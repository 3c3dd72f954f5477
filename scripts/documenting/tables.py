"""Rows and sections of the pages under `docs/`, by the name of their subject, and plain text as Markdown."""

import re
from collections.abc import Iterable, Sequence

from dassl.utils.errors import DataError

CODE = re.compile(r"(`[^`]*`)")


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """Return, by name, the cells by column of each table row of a page whose first cell holds names in backticks."""
    found: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        header = (header or cells) if cells else []
        for name in re.findall(r"`([^`]+)`", cells[0]) if cells and cells is not header else ():
            found.setdefault(name, {}).update(zip(header[1:], cells[1:], strict=False))
    return found


def sections_of(text: str) -> dict[str, str]:
    """Return the text below each heading of level 2 or 3 of a page, up to the next heading, by heading."""
    parts = re.split(r"^###? (.+)$", text, flags=re.M)
    return {name.strip(): body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def one(found: dict, name: str, page: str):
    """Return what a page says about a name; DataError if it says nothing."""
    if name not in found:
        raise DataError(f"{page} says nothing about {name!r}; add it there")
    return found[name]


def as_markdown(docstring: str) -> str:
    """Return a docstring as Markdown that reads the same: indented lines stay code, symbols outside backticks stay symbols."""
    lines: list[str] = []
    in_list = False
    for line in docstring.splitlines():
        was_in_list, in_list = in_list, line.startswith("- ") or (in_list and line.startswith("  "))
        if in_list != was_in_list and lines and lines[-1]:
            lines.append("")  # a list begins and ends at a blank line
        lines.append(line if line.startswith("    ") and not in_list else _escaped(line))
    return "\n".join(lines)


def _escaped(line: str) -> str:
    parts = CODE.split(line)
    parts[::2] = [re.sub(r"(?<!^)\*|<(?=[\w/])|(?<!\w)_", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)
