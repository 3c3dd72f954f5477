"""What an oracle is: the file to open by who wants to write one.

An oracle is registered as a function of a `Setting` that returns an `Oracle`. Facts: `answers`, what it can say of an image, a
class so far; `asks_people`, if labels may be unknown before they are asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from active.context import Query
from active.oracles.registry import ORACLES
from dassl.data.dataset import UNLABELED, Dataset

__all__ = ["ORACLES", "Oracle", "PoolExhausted", "Question", "Setting"]


class PoolExhausted(RuntimeError):
    """More labels are asked for than the budget allows."""


@dataclass(frozen=True)
class Question:
    """What an oracle is asked in a round, and what may help it.

    `query` and `labeled` [M], the rows that have a label already, are rows of the train split. `basis` is what the query was
    selected with, see `active.oracles.asked.stands_on`. `guess(rows)` returns the model's class probabilities [n, C].
    """

    round: int
    query: Query
    basis: tuple[str, str]
    labeled: Tensor
    guess: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """What an oracle is built from: the data set, the labels [N] of its train split, the budget, and the output folder."""

    dataset: Dataset
    labels: Tensor
    budget: int
    output: Path


class Oracle:
    """Who labels: the labels of the train split, int64 [N], and the budget: how many may be handed out in the whole run.

    A label that nobody knows yet is UNLABELED until somebody gives it. This class hands out what is known; an oracle that asks
    somebody overrides `ask`, and `asked` if answers may come after the process has ended.
    """

    def __init__(self, labels: Tensor, budget: int):
        self._labels = labels.clone()
        self._given = torch.zeros(len(labels), dtype=torch.bool)
        self.budget = budget

    @property
    def n_paid(self) -> int:
        """Labels handed out so far."""
        return int(self._given.sum())

    def unknown(self, rows: Tensor) -> Tensor:
        """Return those of rows [n] whose label nobody has given yet."""
        return rows[self._labels[rows] == UNLABELED]

    def learn(self, rows: Tensor, labels: Tensor) -> None:
        """Take the labels [n] that people gave to rows [n]; raises ValueError if one of them was known."""
        if len(self.unknown(rows)) != len(rows):
            raise ValueError(f"the labels of rows {rows[self._labels[rows] != UNLABELED].tolist()} are known already")
        self._labels[rows] = labels

    def label(self, rows: Tensor) -> Tensor:
        """Hand out the labels of rows [n] of the train split, each charged once.

        Raises ValueError if a row is asked a second time or its label is unknown, PoolExhausted if the budget does not
        cover all of them.
        """
        if len(self.unknown(rows)):
            raise ValueError(f"nobody has labeled rows {self.unknown(rows).tolist()}")
        if len(rows.unique()) != len(rows) or self._given[rows].any():
            raise ValueError(f"a label is asked twice: rows {rows[self._given[rows]].tolist() or rows.tolist()}")
        if self.n_paid + len(rows) > self.budget:
            raise PoolExhausted(f"{len(rows)} labels asked, but {self.budget - self.n_paid} of {self.budget} are left")
        self._given[rows] = True
        return self._labels[rows]

    def precision(self, rows: Tensor, labels: Tensor) -> float | None:
        """Return which share of the labels guessed for rows [n] is true, of those that are known, None for no row.

        For the record only: nothing is charged, and nothing may depend on it.
        """
        known = self._labels[rows] != UNLABELED
        return float((self._labels[rows] == labels)[known].double().mean()) if known.any() else None

    def asked(self, round: int, basis: tuple[str, str]) -> Query | None:
        """Return the query of a round that was asked already and stands on the same basis, in rows of the train split."""
        return None

    def ask(self, question: Question, rows: Tensor) -> list[int]:
        """Return the labels of those rows [n] of a query whose label nobody knows."""
        raise ValueError(f"nobody has labeled rows {rows.tolist()}")

    def answers(self, question: Question) -> dict[int, int]:
        """Return the labels, by row, that somebody gave to those images of a query whose label nobody knew, and learn them."""
        rows = self.unknown(question.query.rows)
        labels = self.ask(question, rows) if len(rows) else []
        self.learn(rows, torch.tensor(labels, dtype=torch.int64))
        return dict(zip(rows.tolist(), labels, strict=True))
