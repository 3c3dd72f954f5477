"""Who knows which label: the pool of what is asked, and the oracle that alone holds the pool's labels."""

import torch
from torch import Tensor


class PoolExhausted(RuntimeError):
    """More labels are asked for than the budget allows."""


class Oracle:
    """The true labels of the train split, int64 [N], and the budget: how many may be handed out in the whole run."""

    def __init__(self, labels: Tensor, budget: int):
        self._labels = labels
        self._given = torch.zeros(len(labels), dtype=torch.bool)
        self.budget = budget

    @property
    def n_paid(self) -> int:
        """Labels handed out so far."""
        return int(self._given.sum())

    def label(self, rows: Tensor) -> Tensor:
        """Hand out the labels of rows [n] of the train split, each charged once.

        Raises ValueError if a row is asked a second time, PoolExhausted if the budget does not cover all of them.
        """
        if len(rows.unique()) != len(rows) or self._given[rows].any():
            raise ValueError(f"a label is asked twice: rows {rows[self._given[rows]].tolist() or rows.tolist()}")
        if self.n_paid + len(rows) > self.budget:
            raise PoolExhausted(f"{len(rows)} labels asked, but {self.budget - self.n_paid} of {self.budget} are left")
        self._given[rows] = True
        return self._labels[rows]

    def precision(self, rows: Tensor, labels: Tensor) -> float | None:
        """Return which share of the labels guessed for rows [n] is true, None for no row.

        For the record only: nothing is charged, and nothing may depend on it.
        """
        return float((self._labels[rows] == labels).double().mean()) if len(rows) else None


class LabelPool:
    """Which images of the train split are labeled, since which round, as what, and by whom."""

    def __init__(self, n_images: int):
        self.round_of = torch.full((n_images,), -1)  # [N], -1 while unlabeled
        self._labels = torch.full((n_images,), -1)
        self._pseudo = torch.zeros(n_images, dtype=torch.bool)

    @property
    def unlabeled(self) -> Tensor:
        """Rows without a label, ascending."""
        return (self.round_of < 0).nonzero().flatten()

    @property
    def labeled(self) -> Tensor:
        """Rows with a label, ascending."""
        return (self.round_of >= 0).nonzero().flatten()

    @property
    def labels(self) -> Tensor:
        """The labels of `labeled`, in its order."""
        return self._labels[self.labeled]

    @property
    def pseudo_labeled(self) -> Tensor:
        """Rows labeled by the model's own guess, ascending."""
        return self._pseudo.nonzero().flatten()

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels [n] that rows have here, -1 for none."""
        return self._labels[rows]

    def acquire(self, rows: Tensor, labels: Tensor, round: int, *, pseudo: bool = False) -> None:
        """Move rows [n] out of the pool; raises ValueError if one of them is labeled already."""
        if (self.round_of[rows] >= 0).any():
            raise ValueError(f"rows {rows[self.round_of[rows] >= 0].tolist()} are labeled already")
        self.round_of[rows], self._labels[rows], self._pseudo[rows] = round, labels, pseudo
