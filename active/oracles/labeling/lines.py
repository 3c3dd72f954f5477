"""The lines of a round's journal: when, who, which image, and the answer, as people write it in a sheet."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dassl.data.answers import written
from dassl.utils.errors import DataError
from dassl.utils.journal import Journal
from dassl.utils.text import printable

KEYS = {"time", "who", "path", "answer"}


@dataclass(frozen=True)
class Line:
    """An answer: a label or a code of `dassl.data.answers`; None takes the previous one back."""

    time: str
    who: str
    path: str
    code: int | None

    def written(self, classnames: Sequence[str]) -> dict[str, str]:
        """Return the line as written in the journal; an answer that is taken back is empty, as in a sheet."""
        return {"time": self.time, "who": self.who, "path": self.path,
                "answer": "" if self.code is None else written(self.code, classnames)}


def read_lines(journal: Journal, codes: Mapping[str, int], asked: Collection[str], before: Collection[str]) -> list[Line]:
    """Return the lines of a round whose query is `asked`; `before` are the images of earlier rounds.

    `codes` are what answers mean. Raises DataError, naming file and line, for any that does not fit.
    """
    asked, before = frozenset(asked), frozenset(before)
    lines = []
    for number, value in enumerate(journal.read(), start=1):
        if fault := _fault(value, codes, asked, before):
            raise DataError(f"{printable(journal.path)} line {number} {fault}")
        code = codes[value["answer"]] if value["answer"] else None
        lines.append(Line(value["time"], value["who"], value["path"], code))
    return lines


def _fault(value: Any, codes: Mapping[str, int], asked: frozenset[str], before: frozenset[str]) -> str:
    if not isinstance(value, dict) or value.keys() != KEYS or not all(isinstance(own, str) for own in value.values()):
        return f"is damaged: it is not an answer with {', '.join(sorted(KEYS))}"
    if value["path"] not in asked and (value["path"] not in before or not value["answer"]):
        return f"answers an image that was not asked: {printable(value['path'])}"
    if value["answer"] and value["answer"] not in codes:
        return f"has the unknown answer {value['answer']!r}"
    return ""
