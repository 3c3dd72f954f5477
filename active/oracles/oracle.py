"""What an oracle is: the file to read before writing one.

An oracle is registered as a function of a `Setting` that returns an `Oracle`. Facts: `asks_people`, if labels may be unknown
until they are asked for; `check`, a function without arguments that raises ConfigError where the oracle could not work;
`restore`, a function of output folder, round, part and answers by path, as people write them, that puts the answers where the
oracle looks for them. Answers are integers: labels, or the codes of `dassl.data.answers`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from active.context import Query
from active.oracles.registry import ORACLES
from active.record.recorders import Recorder
from dassl.data.answers import kind_of
from dassl.data.dataset import UNLABELED, Dataset

__all__ = ["ORACLES", "Oracle", "PoolExhausted", "Question", "Setting"]


class PoolExhausted(RuntimeError):
    """More labels were asked for than the budget allows."""


@dataclass(frozen=True)
class Question:
    """What an oracle is asked in a round, and what may help it.

    `query` and `settled` [M], the rows that have a label or another answer already, are rows of the train split. `basis` is
    what the query was selected with, see `active.oracles.asked.stands_on`. `guess(rows)` returns the model's class
    probabilities [n, C]. `audit` are further rows to be labeled, see `active.audit`. `part` counts the questions of a round
    from 0: there are more than one where `ACTIVE.REFILL` replaces skipped images.
    """

    round: int
    query: Query
    basis: tuple[str, str]
    settled: Tensor
    guess: Callable[[Tensor], Tensor]
    audit: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    part: int = 0

    @property
    def scores(self) -> dict[int, float]:
        """The sampler's scores by row, where there are any; none beside an audit, whose images they would reveal."""
        if self.query.scores is None or len(self.audit):
            return {}
        pairs = zip(self.query.rows.tolist(), self.query.scores.tolist(), strict=True)
        return {row: score for row, score in pairs if math.isfinite(score)}


@dataclass(frozen=True)
class Setting:
    """What an oracle is built from: the data set, the labels [N] of its train split, the budget, and the output folder."""

    dataset: Dataset
    labels: Tensor
    budget: int
    output: Path


class Oracle:
    """The labels of the train split, int64 [N], and the budget: how many images may be asked in the whole run.

    A label that nobody knows yet is UNLABELED until somebody gives it; an image that people could not label has a code
    instead. This class hands out known labels; an oracle that asks somebody overrides `ask`, and `asked` if answers may come
    after the process has ended.
    """

    def __init__(self, labels: Tensor, budget: int):
        self._labels = labels.clone()
        self._given, self._audited, self._known = (torch.zeros(len(labels), dtype=torch.bool) for _ in range(3))
        self.n_further = 0  # second and later opinions on an image so far, each of which is paid for
        self.budget = budget

    @property
    def counts(self) -> dict[str, int]:
        """How many images so far were asked, were skipped, are of no class, and left people unsure."""
        kinds = [kind_of(code) for code in self._labels[self._given].tolist()]
        return {"asked": len(kinds)} | {kind: kinds.count(kind) for kind in ("skip", "none", "unsure")}

    @property
    def n_paid(self) -> int:
        """Answers paid for so far: all except skips and those of the audit, with each of several opinions on an image."""
        return self.counts["asked"] - self.counts["skip"] + self.n_further

    def unknown(self, rows: Tensor) -> Tensor:
        """Return those of rows [n] whose label nobody has given yet."""
        return rows[self._labels[rows] == UNLABELED]

    def learn(self, rows: Tensor, labels: Tensor) -> None:
        """Store the answers [n] that people gave to rows [n]; raises ValueError if one was already known."""
        if len(self.unknown(rows)) != len(rows):
            raise ValueError(f"the labels of rows {rows[self._labels[rows] != UNLABELED].tolist()} are known already")
        self._labels[rows] = labels

    def know(self, rows: Tensor, labels: Tensor) -> None:
        """Store answers [n] to rows [n] known before the run: never asked or paid for, but they may be corrected."""
        self._known[rows], self._labels[rows] = True, labels

    def correct(self, rows: Tensor, labels: Tensor) -> None:
        """Store new answers [n] to rows [n] that were answered before; raises ValueError if one of them was not."""
        if not self.answered_before[rows].all():
            raise ValueError(f"rows {rows[~self.answered_before[rows]].tolist()} were not asked before")
        self._labels[rows] = labels

    @property
    def answered_before(self) -> Tensor:
        """Which rows [N] were asked, or known before the run began: those whose answer can be corrected."""
        return self.asked_before | self._known

    @property
    def asked_before(self) -> Tensor:
        """Which rows [N] were asked, for the query of a round or for the audit."""
        return self._given | self._audited

    def audit(self, rows: Tensor) -> None:
        """Take rows [n] into the audit; raises ValueError if nobody has labeled one of them, or it was given as a label."""
        if len(self.unknown(rows)) or self._given[rows].any():
            raise ValueError(f"rows {rows.tolist()} cannot be audited: nobody has labeled them, or they are trained on")
        self._audited[rows] = True

    def audited(self, rows: Tensor) -> list[int]:
        """Return the answers to those rows [n] that are audited, up to the first one that is not."""
        known = self._audited[rows].tolist()
        return self._labels[rows].tolist()[: known.index(False) if False in known else None]

    def label(self, rows: Tensor) -> Tensor:
        """Return the labels or other answers of rows [n] of the train split, each charged once, except skips.

        Raises ValueError if a row is asked a second time or its label is unknown, PoolExhausted if the budget does not
        cover all of them.
        """
        if len(self.unknown(rows)):
            raise ValueError(f"nobody has labeled rows {self.unknown(rows).tolist()}")
        if len(rows.unique()) != len(rows) or self.asked_before[rows].any():
            raise ValueError(f"a label is asked twice: rows {rows[self.asked_before[rows]].tolist() or rows.tolist()}")
        if (left := self.budget - self.counts["asked"]) < len(rows):
            raise PoolExhausted(f"{len(rows)} labels asked, but {left} of {self.budget} are left")
        self._given[rows] = True
        return self._labels[rows]

    def precision(self, rows: Tensor, labels: Tensor) -> float | None:
        """Return the share of labels guessed for rows [n] that are right, among rows with a known label; None if none has.

        For the record only: nothing is charged, and nothing may depend on it.
        """
        known = self._labels[rows] >= 0
        return float((self._labels[rows] == labels)[known].double().mean()) if known.any() else None

    def asked(self, round: int, part: int, basis: tuple[str, str]) -> Query | None:
        """Return the query of a part of a round if it was asked before on the same basis, in rows of the train split."""
        return None

    def said(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return rows with the answers to them."""
        return list(zip(rows, self._labels[list(rows)].tolist(), strict=True))

    @property
    def recorders(self) -> Sequence[Recorder]:
        """The recorders of this oracle, which are told of the rounds."""
        return ()

    def close(self) -> None:
        """Release what is held open: the run has ended, in whatever way."""

    def ask(self, question: Question, rows: Tensor) -> dict[int, int]:
        """Return the answers, by row, to those rows [n] of a query whose label nobody knows.

        Rows beyond these are from earlier rounds, with corrected answers.
        """
        raise ValueError(f"nobody has labeled rows {rows.tolist()}")

    def answers(self, question: Question) -> tuple[dict[int, int], dict[int, int]]:
        """Return, by row, the new answers to those images of a query whose label nobody knew, and store them.

        The second dictionary holds corrections, in the order of their rows: changed answers to images of earlier rounds.
        """
        rows = self.unknown(torch.cat([question.query.rows, question.audit]))
        rows = rows.sort().values if len(question.audit) else rows  # so that nobody can tell query and audit apart
        said = self.ask(question, rows) if len(rows) else {}
        given = {row: said.pop(row) for row in rows.tolist()}
        corrected = {row: said[row] for row in sorted(said) if said[row] != self._labels[row]}
        for learn, answers in ((self.learn, given), (self.correct, corrected)):
            learn(*as_tensors(answers))
        return given, corrected


def largest(probs: Tensor, n: int) -> list[list[tuple[int, float]]]:
    """Return the n largest probabilities of each row [N, C] with their labels, ties in the order of the classes."""
    order = torch.argsort(probs, dim=1, descending=True, stable=True)[:, :n]
    return [list(zip(*own, strict=True)) for own in zip(order.tolist(), probs.gather(1, order).tolist(), strict=True)]


def as_tensors(answers: Mapping[int, int]) -> tuple[Tensor, Tensor]:
    """Return the rows [n] and the codes [n] of answers by row."""
    rows, codes = (torch.tensor(list(own), dtype=torch.int64) for own in (answers.keys(), answers.values()))
    return rows, codes
