"""What a row says, by hand."""

from pathlib import Path

import numpy as np
import pytest

from active.record.results import RoundRecord, RunResult
from dassl.data.answers import NONE, SKIP, UNSURE
from dassl.utils.errors import DataError
from scripts.predicting.rows import HEADER, Row, answers

NAMES = ("cat", "dog", "owl", "yak")
PROBS = np.array([0.125, 0.5, 0.25, 0.125])


@pytest.mark.parametrize(("code", "expected"), [
    (-1, ["dog", 0.5, "owl", 0.25, "cat", 0.125, 0.25, "no"]),
    (3, ["yak", 0.125, "dog", 0.5, "owl", 0.25, -0.375, "yes"]),
    (1, ["dog", 0.5, "owl", 0.25, "cat", 0.125, 0.25, "yes"]),
    (NONE, ["dog", 0.5, "owl", 0.25, "cat", 0.125, 0.25, "none"]),
    (SKIP, ["dog", 0.5, "owl", 0.25, "cat", 0.125, 0.25, "skip"]),
    (UNSURE, ["dog", 0.5, "owl", 0.25, "cat", 0.125, 0.25, "unsure"]),
    (UNSURE - 3, ["dog", 0.5, "owl", 0.25, "cat", 0.125, 0.25, "unsure owl"]),
])
def test_cells(code, expected):
    """A label that was given comes first with the model's probability of it; ties are in the order of the classes."""
    row = Row("a.png", Path("a.png"), PROBS, code)
    assert row.cells(NAMES) == ["a.png", *expected] and len(HEADER) == 9
    assert row.is_of_no_class == (code == NONE)


@pytest.mark.parametrize(("n_classes", "expected"), [(1, ["cat", 1.0, "", "", "", "", "", "no"]),
                                                     (2, ["dog", 0.75, "cat", 0.25, "", "", 0.5, "no"])])
def test_few_classes_leave_cells_empty(n_classes, expected):
    probs = np.array([1.0]) if n_classes == 1 else np.array([0.25, 0.75])
    assert Row("a.png", Path(), probs).cells(NAMES[:n_classes]) == ["a.png", *expected]


@pytest.mark.parametrize(("code", "label", "given"), [(-1, "", "no"), (2, "owl", "yes"), (SKIP, "", "skip")])
def test_without_a_prediction_what_was_given_is_left(code, label, given):
    assert Row("a.png", Path(), DataError("no"), code).cells(NAMES) == ["a.png", label, *[""] * 6, given]


def test_answers_are_those_of_all_rounds_with_corrections():
    """Labels of the data set count only for images that were asked for."""
    rounds = [{"queried": ["a", "b"], "answers": {"a": "none", "b": 1}},
              {"queried": ["c", "d"], "corrections": {"b": 0, "a": 2}, "audited": ["f"]},
              {"queried": [], "corrections": {"a": "unsure 1"}}]
    shared = {"sampler": "random", "n_labeled": 0, "n_paid": 0, "n_pseudo": 0, "metrics": {}, "class_counts": [],
              "query_hash": "", "seconds": {}, "peak_memory_mb": 0.0}
    rounds = [RoundRecord(round=number, **shared, **own) for number, own in enumerate(rounds)]
    record = RunResult({}, {}, {}, rounds=rounds, known={"k": 1, "n": "none"})
    before = {"k": 1, "n": NONE}
    assert answers(record) == before | {"a": UNSURE - 2, "b": 0}
    labels = {"a": 3, "c": 3, "d": -1, "e": 1, "f": 2}
    assert answers(record, labels) == before | {"a": UNSURE - 2, "b": 0, "c": 3, "f": 2}
