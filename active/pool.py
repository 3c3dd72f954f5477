"""Which images are labeled, and which can still be asked."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dassl.data.answers import NONE, SKIP, UNSURE


class LabelPool:
    """Which images of the train split are labeled, since which round, as what, and by whom."""

    def __init__(self, n_images: int, reserved: Sequence[int] | np.ndarray = (), unsure_weight: float = 0.0):
        """Rows that are `reserved` never leave it: they cannot be asked and get no label.

        A class that people named but were unsure of is a label with `unsure_weight`, or none if that is 0.
        """
        self._unsure_weight = unsure_weight
        self._is_free = torch.ones(n_images, dtype=torch.bool)
        self._is_free[torch.as_tensor(reserved, dtype=torch.int64)] = False
        self.round_of = torch.full((n_images,), -1)  # [N], -1 while unlabeled
        self._labels = torch.full((n_images,), -1)
        self._pseudo = torch.zeros(n_images, dtype=torch.bool)

    @property
    def unlabeled(self) -> Tensor:
        """Rows that can be asked: without a label or any other answer, ascending."""
        return ((self.round_of < 0) & self._is_free).nonzero().flatten()

    @property
    def settled(self) -> Tensor:
        """Rows that are not asked again, ascending: those with a label, and those that people could not label."""
        return (self.round_of >= 0).nonzero().flatten()

    @property
    def labeled(self) -> Tensor:
        """Rows with a label, ascending."""
        return ((self._labels >= 0) | self._is_unsure).nonzero().flatten()

    @property
    def _is_unsure(self) -> Tensor:
        """Which rows [N] have a label that people were unsure of."""
        return (self._labels < UNSURE) & bool(self._unsure_weight)

    @property
    def skipped(self) -> Tensor:
        """Rows that people could not label, ascending."""
        return ((self._labels == SKIP) & (self.round_of >= 0)).nonzero().flatten()

    @property
    def flagged(self) -> Tensor:
        """Rows that people said are of none of the classes, ascending."""
        return ((self._labels == NONE) & (self.round_of >= 0)).nonzero().flatten()

    @property
    def labels(self) -> Tensor:
        """The labels of `labeled`, in its order."""
        return torch.where(self._is_unsure, UNSURE - 1 - self._labels, self._labels)[self.labeled]

    @property
    def weights(self) -> Tensor | None:
        """How much the labels of `labeled` count, float32 in its order; None if all are 1."""
        unsure = self._is_unsure[self.labeled]
        return torch.where(unsure, self._unsure_weight, 1.0) if unsure.any() else None

    @property
    def pseudo_labeled(self) -> Tensor:
        """Rows labeled by the model's own guess, ascending."""
        return self._pseudo.nonzero().flatten()

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels [n] that rows have here, -1 for none, or the codes of `dassl.data.answers`."""
        return self._labels[rows]

    def acquire(self, rows: Tensor, labels: Tensor, round: int, *, pseudo: bool = False) -> None:
        """Move rows [n] out of the pool, with their labels or other answers.

        Raises ValueError if one of them is not in it.
        """
        if (taken := (self.round_of[rows] >= 0) | ~self._is_free[rows]).any():
            raise ValueError(f"rows {rows[taken].tolist()} are labeled already or reserved")
        self.round_of[rows], self._labels[rows], self._pseudo[rows] = round, labels, pseudo

    def correct(self, rows: Tensor, labels: Tensor) -> None:
        """Replace the labels or answers of rows [n]; raises ValueError if one of them has none."""
        if (self.round_of[rows] < 0).any():
            raise ValueError(f"rows {rows[self.round_of[rows] < 0].tolist()} have no label to correct")
        self._labels[rows] = labels
