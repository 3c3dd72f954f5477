"""The row of one image: its classes, how sure the model is, and what people have said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from active.record.results import RunResult
from dassl.data.answers import MARK, NONE, code_of, written
from dassl.data.dataset import UNLABELED
from dassl.data.places import Place
from dassl.utils.errors import DataError

N_SHOWN = 3
HEADER = ("path", "label", "confidence", "second", "second_confidence", "third", "third_confidence", "margin", "given")


@dataclass(frozen=True)
class Row:
    """An image, its probabilities [C] or the reason why it has none, and the code of people's answer.

    `name` is its path in the data set, or as it was asked for; `place` is where its bytes are.
    """

    name: str
    place: Place
    found: np.ndarray | DataError
    code: int = UNLABELED

    @property
    def is_of_no_class(self) -> bool:
        """Whether people said that it is of none of the classes."""
        return self.code == NONE

    @property
    def label(self) -> int | None:
        """The label that people gave, else that of the highest probability; None without either."""
        if self.code >= 0:
            return self.code
        return None if isinstance(self.found, DataError) else int(self.found.argmax())

    def ranking(self) -> list[tuple[int, float]]:
        """Return labels with their probabilities: `label`, then the likeliest others by the model, three in all.

        Ties are in the order of the classes; without a prediction the list is empty.
        """
        if isinstance(self.found, DataError):
            return []
        order = (-self.found).argsort(kind="stable")
        order = [self.label, *order[order != self.label][:N_SHOWN - 1].tolist()]
        return [(label, float(self.found[label])) for label in order]

    def cells(self, classnames: Sequence[str]) -> list[str | float]:
        """Return the cells below `HEADER`; an image without a prediction has empty ones.

        `confidence` is the model's probability of `label`, and `margin` is how far it is above that of `second`: below 0
        if people gave another label than the model's first guess.
        """
        ranking, label = self.ranking(), self.label
        cells = [cell for own, share in ranking for cell in (classnames[own], share)]
        cells = cells or [classnames[label] if label is not None else ""]
        cells += [""] * (2 * N_SHOWN - len(cells))
        margin = ranking[0][1] - ranking[1][1] if len(ranking) > 1 else ""
        return [self.name, *cells, margin, self.given(classnames)]

    def given(self, classnames: Sequence[str]) -> str:
        """Return "yes" if people gave the label, "no" if they said nothing, else "skip", "none", "unsure", "unsure heron"."""
        if self.code >= 0 or self.code == UNLABELED:
            return "yes" if self.code >= 0 else "no"
        return written(self.code, classnames).removeprefix(MARK)


def answers(record: RunResult, labels: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the code of the answer to each image, by id: known before, asked, or audited; corrections replace it.

    `labels` are the data set's, for runs in which it answers.
    """
    labels, found = labels or {}, {name: code_of(answer) for name, answer in record.known.items()}
    for round in record.rounds:
        asked = (*round.queried, *round.audited)
        found |= {name: labels[name] for name in asked if labels.get(name, UNLABELED) != UNLABELED}
        found |= {name: code_of(answer) for name, answer in (round.answers | round.corrections).items()}
    return found
