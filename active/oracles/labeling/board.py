"""What the page knows: the query that is asked, what was answered, by whom, and what the run is doing.

The run's thread and those of the server share it. An answer is in the journal before it is here, and so before any page hears
that it was taken. A page sends with each answer the one that it replaces; if a newer one has come since, that is a conflict.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from active.oracles.labeling.changes import Changes
from active.oracles.labeling.lines import Line
from active.record.report import audit_in_words
from active.record.results import RunResult
from active.stopping import advice
from dassl.data.answers import SKIP, UNSURE, recorded
from dassl.utils.journal import Journal

ASKING, WORKING, ENDED = "asking", "working", "ended"
EVERY = 0.25  # seconds between two progress notices of one loop
N_EXAMPLES = 24

Guesses = Sequence[tuple[int, float]]  # labels with their probabilities, the largest first


class Refused(Exception):
    """A request that cannot be met, with the HTTP status that says so."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What somebody said of an image; `number` is that of the change that brought it here."""

    code: int
    who: str
    time: str
    number: int


@dataclass(frozen=True)
class Given:
    """An answer sent by a page: `code` None takes one back; `seen` is the number of the answer that it replaces."""

    image: int
    code: int | None
    seen: int


@dataclass(frozen=True)
class Asked:
    """A question: images by path in their order, the guesses for each, and which of them are for the audit alone.

    `part` counts the questions of a round from 0.
    """

    round: int
    paths: Sequence[str]
    guesses: Sequence[Guesses]
    audit: frozenset[str]
    journal: Journal
    scores: Mapping[str, float] = field(default_factory=dict)  # by path, of images that have one
    part: int = 0


@dataclass
class Told:
    """What the run has reported so far."""

    result: RunResult | None = None
    doing: dict[str, Any] = field(default_factory=lambda: {"kind": WORKING, "text": "starting"})
    last_notice: float = 0.0


class Board:
    """The state behind all pages of a run. Every method may be called from any thread."""

    def __init__(self, classnames: Sequence[str], grace: float):
        self.changes, self._classnames, self._grace = Changes(), classnames, grace
        self._lock: threading.Condition = self.changes.condition
        self._asked: Asked | None = None
        self._answers: dict[str, Answer] = {}
        self._changed: dict[str, int] = {}  # the number of the last change of each image of the question
        self._paths: list[str] = []  # an image's number is its index here
        self._numbers: dict[str, int] = {}
        self._is_sent = False
        self._unrecorded: list[str] = []  # images asked since the last record, except those of the audit
        self._told = Told()

    def ask(self, asked: Asked, lines: Sequence[Line], earlier: Mapping[str, int]) -> None:
        """Open a question; `lines` are what its journal holds, `earlier` the answers to images of rounds before."""
        with self._lock:
            for path, code in earlier.items():
                if (known := self._answers.get(path)) is None or known.code != code:
                    self._put(Line("", "", path, code))
            for path in asked.paths:
                self._answers.pop(path, None)
                self._number(path)
            for place, line in enumerate(lines):
                self.changes.number += not place or (line.time, line.who) != (lines[place - 1].time, lines[place - 1].who)
                self._put(line)  # lines with the same time were given together, and are taken back together
            self._changed, self._is_sent = {}, False
            self._asked = asked
            self._unrecorded += [path for path in asked.paths if path not in asked.audit]
            self._say(ASKING, f"waiting for the labels of round {asked.round}")

    @property
    def is_complete(self) -> bool:
        """Whether every image of the question has an answer."""
        with self._lock:
            return self._asked is not None and all(path in self._answers for path in self._asked.paths)

    def wait(self) -> dict[str, int]:
        """Return the answers by path once every image of the question has one, and close it.

        The last answer can be taken back for some seconds, unless somebody has sent the answers off. Answers of earlier
        rounds are included, since they may have been corrected.
        """
        with self._lock:
            while not self._is_sent:
                self._lock.wait_for(lambda: self.is_complete)
                if not self._lock.wait_for(lambda: self._is_sent or not self.is_complete, self._grace):
                    break
            return self.close()

    def close(self) -> dict[str, int]:
        """Take no further answers, and return those given so far, by path."""
        with self._lock:
            self._asked, self._is_sent = None, False
            self._say(WORKING, "training")
            return {path: answer.code for path, answer in self._answers.items()}

    def answer(self, who: str, round: int, given: Sequence[Given]) -> tuple[int, list[dict[str, Any]]]:
        """Take answers, each unless it conflicts with one that its page has not seen.

        Return the number of the change, and the present answers where there are conflicts. Answers that were taken
        are on the disk by then. Raises Refused if the round is not open, or an image does not belong to the run.
        """
        with self._lock:
            asked = self._open(round)
            pairs = [(self.path(own.image), own) for own in given]
            for path, own in pairs:
                if own.code is None and path not in asked.paths:
                    raise Refused(400, "an answer of an earlier round can be replaced, but not taken back")
            conflicting = [path for path, own in pairs if self._conflicts(path, own)]
            now = datetime.now().astimezone().isoformat(timespec="milliseconds")  # one for all: they are taken back together
            lines = [Line(now, who, path, own.code)
                     for path, own in pairs if path not in conflicting and own.code != self._code(path)]
            if lines:
                asked.journal.append([line.written(self._classnames) for line in lines])
                self.changes.made()
            for line in lines:
                self._put(line)
            return self.changes.number, [self._shown(path) for path in conflicting]

    def send(self, round: int) -> None:
        """Go on without waiting for somebody to take the last answer back."""
        with self._lock:
            self._open(round)
            if not self.is_complete:
                raise Refused(409, "not every image has an answer yet")
            self._is_sent = True
            self.changes.made()

    def path(self, number: int) -> str:
        """Return the path of an image by its number; raises Refused if there is none with this number."""
        with self._lock:
            if not 0 <= number < len(self._paths):
                raise Refused(404, f"there is no image {number}")
            return self._paths[number]

    def question(self) -> dict[str, Any]:
        """Return the images of the open question, with their guesses; none between two questions."""
        with self._lock:
            asked = self._asked
            images = [{"number": self._numbers[path], "name": path, "guesses": guesses}
                      | ({"score": asked.scores[path]} if path in asked.scores else {})
                      for path, guesses in zip(asked.paths, asked.guesses, strict=True)] if asked else []
            return {"round": asked.round if asked else None, "part": asked.part if asked else 0, "images": images}

    def state(self, since: int) -> dict[str, Any]:
        """Return what pages show, with the answers to the question that have changed since this change."""
        with self._lock:
            paths = self._asked.paths if self._asked else ()
            fresh = paths if since > self.changes.number else [p for p in paths if self._changed.get(p, 0) > since]
            return {"number": self.changes.number, "round": self._asked.round if self._asked else None,
                    "part": self._asked.part if self._asked else 0, "doing": self._told.doing,
                    "answers": [self._shown(path) for path in fresh],
                    "n_images": len(paths), "n_answered": sum(path in self._answers for path in paths),
                    "grace": self._grace} | self._numbers_of_run()

    def labeled(self, code: int) -> list[dict[str, Any]]:
        """Return the newest images with an answer; UNSURE includes unsure answers that name a class."""
        with self._lock:
            paths = [path for path, own in self._answers.items() if own.code == code or (code == UNSURE and own.code < code)]
            return [self._shown(path) for path in paths[: -N_EXAMPLES - 1: -1]]

    def tell(self, result: RunResult, kind: str, text: str) -> None:
        """Take the present record, and what the run does next."""
        with self._lock:
            self._told.result, self._unrecorded = result, []
            self._say(kind, text)

    def end(self, text: str) -> None:
        """Say that the run has ended, unless this has been said already."""
        with self._lock:
            if self._told.doing["kind"] != ENDED:
                self._say(ENDED, text)

    def progress(self, description: str, done: int, total: int, unit: str) -> None:
        """Report how far a loop of the run is, at most every so often."""
        with self._lock:
            if self._told.doing["kind"] != WORKING:
                return
            self._told.doing = {"kind": WORKING, "text": description, "done": done, "total": total, "unit": unit}
            if time.monotonic() - self._told.last_notice >= EVERY or done == total:
                self._told.last_notice = time.monotonic()
                self.changes.made()

    def _say(self, kind: str, text: str) -> None:
        self._told.doing = {"kind": kind, "text": text}
        self.changes.made()

    def _open(self, round: int) -> Asked:
        if self._asked is None or self._asked.round != round or self._is_sent:
            raise Refused(409, f"the labels of round {round} are closed")
        return self._asked

    def _number(self, path: str) -> int:
        if path not in self._numbers:
            self._numbers[path] = len(self._paths)
            self._paths.append(path)
        return self._numbers[path]

    def _put(self, line: Line) -> None:
        """Set the answer of an image, as the newest one, or remove it."""
        self._number(line.path)
        self._changed[line.path] = self.changes.number
        self._answers.pop(line.path, None)
        if line.code is not None:
            self._answers[line.path] = Answer(line.code, line.who, line.time, self.changes.number)

    def _code(self, path: str) -> int | None:
        return self._answers[path].code if path in self._answers else None

    def _conflicts(self, path: str, own: Given) -> bool:
        there = self._answers.get(path)
        return there is not None and there.number != own.seen and there.code != own.code

    def _shown(self, path: str) -> dict[str, Any]:
        shown = {"image": self._number(path), "name": path, "answer": None, "who": "", "time": "",
                 "number": self._changed.get(path, 0)}
        if answer := self._answers.get(path):
            shown |= {"answer": recorded(answer.code), "who": answer.who, "time": answer.time, "number": answer.number}
        return shown

    def _numbers_of_run(self) -> dict[str, Any]:
        """Return counts and curve, from the record and from the round's answers that it does not hold yet."""
        result = self._told.result
        rounds = result.rounds if result else []
        last = rounds[-1] if rounds else None
        codes = [self._answers[path].code for path in self._unrecorded if path in self._answers]
        counts = list(last.class_counts) if last else [0] * len(self._classnames)
        for code in codes:
            if code >= 0:
                counts[code] += 1
        return {"counts": counts, "n_paid": (last.n_paid if last else 0) + sum(code != SKIP for code in codes),
                "n_rounds": result.config["ACTIVE"]["ROUNDS"] if result else 0,
                "zero_shot": result.zero_shot.get("accuracy") if result else None,
                "curve": [{"n_paid": own.n_paid, "accuracy": own.accuracy, "audit": own.audit or None} for own in rounds],
                "audit": audit_in_words(last.audit) if last and last.audit else "",
                "advice": advice(last.kappa, len(self._classnames)) if last else ""}
