"""Checks whether a learner suits its classes and its settings."""

from collections.abc import Sequence

import torch

from dassl.utils.errors import ConfigError, UserError
from trainers.learner import Learner


def check_calibrated(name: str, learner: Learner | None) -> None:
    """Raise ConfigError unless a learner is trained that tunes no tower: only such a learner is fitted again in no time."""
    if learner is None or learner.tunes_images or learner().tunes_text:
        raise ConfigError(f"TRAINER.CALIBRATION fits a model once for each label that it leaves out, which {name} is too slow "
                          "for; set it to none, or take a learner on frozen features such as LinearProbe")


def check_texts_differ(name: str, learner: Learner, classnames: Sequence[str]) -> None:
    """Raise UserError if two classes of different names have the same tokens in a learner: no image would tell them apart.

    For two classes of the same name, the data set has already warned: some published lists have them.
    """
    class_of: dict[tuple, int] = {}
    for label, rows in enumerate(_rows_of_classes(learner)):
        other = class_of.setdefault(rows, label)
        if classnames[other] != classnames[label]:
            raise UserError(f"classes {classnames[other]!r} and {classnames[label]!r} have the same text after tokenization by "
                            f"{name}, so that no image can be told apart; let their names differ in more than case, "
                            "punctuation and what lies beyond the context length")


def _rows_of_classes(learner: Learner) -> list[tuple]:
    """Return the token rows of each class, in a form that can be compared."""
    rows = [tuple(row) for row in torch.cat([learner.rows.ids, learner.rows.slots], 1).tolist()]
    if learner.averaging is None:
        return rows
    return [tuple(sorted(rows[text] for text in own.nonzero().flatten().tolist())) for own in learner.averaging.matrix]
