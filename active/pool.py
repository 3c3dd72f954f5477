"""Who knows which label: the pool of what is asked, the oracle that alone holds the pool's labels, and the budget."""

import torch
from torch import Tensor

from dassl.data.dataset import UNLABELED
from dassl.utils.errors import ConfigError


def query_size(size: int | str, n_train: int, n_classes: int) -> int:
    """Return the labels of a round for `ACTIVE.QUERY_SIZE`: an integer, a share such as "1%" (rounded), or per_class."""
    if size == "per_class":
        return n_classes
    share = str(size).removesuffix("%").strip()
    try:
        if isinstance(size, int):
            n_query = size
        elif size.endswith("%") and 0 < float(share) <= 100:
            n_query = max(1, int(n_train * float(share) / 100 + 0.5))
        else:
            raise ValueError
    except ValueError:
        raise ConfigError(f"ACTIVE.QUERY_SIZE is {size!r}, but must be an integer, a share such as '1%', "
                          "or per_class") from None
    if n_query < 1:
        raise ConfigError(f"ACTIVE.QUERY_SIZE is {size}, but must be at least 1")
    return n_query


class PoolExhausted(RuntimeError):
    """More labels are asked for than the budget allows."""


class Oracle:
    """The labels of the train split, int64 [N], and the budget: how many may be handed out in the whole run.

    A label that nobody knows yet is UNLABELED until people give it, see `learn`.
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
