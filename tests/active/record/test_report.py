"""The table and the curve of a run."""

import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from active.record.report import plot_learning_curve, table
from tests.active.record.test_results import record, result


@pytest.fixture
def finished():
    """A run of three rounds in which the second paid nothing."""
    run = result(*(dataclasses.replace(record(round), n_labeled=2 * round + 2, n_paid=paid,
                                       metrics=record().metrics | {"accuracy": accuracy},
                                       n_saved=2 * round + 2 - paid, n_pseudo=2 * round + 2 - paid,
                                       pseudo_precision=0.5 if round else None)
                   for round, paid, accuracy in [(0, 2, 0.5), (1, 2, 0.6), (2, 4, 0.75)]))
    run.config |= {"ACTIVE": {"SAMPLER": "entropy"}, "TRAINER": {"NAME": "CoOp"}}
    return run


def test_the_table_has_a_line_for_zero_shot_and_each_round(finished):
    """Fractions become percentages; seconds are the sum of a round's steps."""
    lines = [line.split() for line in table(finished).splitlines()]
    assert lines[2] == ["zero-shot", "0", "30.00"]
    assert lines[3] == ["0", "entropy", "2", "50.00", "40.00", "10.00", "0.6", "0", "0"]
    assert [line[3] for line in lines[3:]] == ["50.00", "60.00", "75.00"]


def test_guesses_have_columns_only_where_there_are_any(finished):
    """Number, saved labels and precision, beside the labels paid for."""
    lines = [line.split() for line in table(finished).splitlines()]
    assert lines[0][-4:] == ["pseudo", "saved", "precision", "%"]
    assert lines[4][2] == "2" and lines[4][-3:] == ["2", "2", "50.00"]
    finished.rounds = finished.rounds[:1]
    assert "pseudo" not in table(finished)


def test_the_curve_runs_over_paid_labels(finished, tmp_path, monkeypatch):
    """Images that cost nothing do not move the curve to the right. The zero-shot line is at its accuracy."""
    figures = []
    monkeypatch.setattr("matplotlib.figure.Figure", lambda **kw: figures.append(Figure(**kw)) or figures[-1])
    plot_learning_curve(finished, tmp_path / "curve.png")
    zero_shot, curve = figures[0].axes[0].lines
    assert curve.get_xdata().tolist() == [2, 2, 4]
    assert curve.get_ydata().tolist() == pytest.approx([50, 60, 75])
    assert set(zero_shot.get_ydata()) == {30.0}


def test_the_curve_is_a_picture_and_the_same_every_time(finished, tmp_path):
    """The file opens as a PNG, is not blank, and its bytes hold no date."""
    plot_learning_curve(finished, tmp_path / "a.png")
    plot_learning_curve(finished, tmp_path / "b.png")
    assert np.ptp(imread(tmp_path / "a.png")) > 0.5
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
