"""Curves and class balance: the numbers are checked against hand-computed values, and the figure must show them."""

import dataclasses
import math

import numpy as np
import pytest

from active.analysis.figures import all_labels, balance, curves, draw_balance, draw_curves, evenness
from active.analysis.records import load_records
from active.analysis.tables import table_sets
from active.record.results import RunResult
from dassl.utils.errors import DataError
from tests.active.analysis.made import write_run


@pytest.fixture
def records(tmp_path):
    """Return records of two methods on two data sets with two seeds: one run is unfinished, and one has all labels."""
    for dataset in ("Air", "Sea"):
        for seed in (1, 2):
            write_run(tmp_path / dataset / f"random{seed}", [0.4, 0.5 + seed / 10], dataset=dataset, seed=seed)
            write_run(tmp_path / dataset / f"badge{seed}", [0.5, 0.8], dataset=dataset, seed=seed, method="badge",
                      status="running" if (dataset, seed) == ("Sea", 2) else "finished")
    write_run(tmp_path / "full", [0.9], dataset="Air", method="full", query_size="100%", n_query=100)
    return load_records([tmp_path])


@pytest.fixture
def part(records):
    return next(part for _, part in table_sets(records))


def lines_of(panel):
    """Return the data of the lines with points, by marker."""
    return {line.get_marker(): line.get_xydata().tolist() for line in panel.lines if line.get_marker()}


def test_a_curve_is_the_mean_and_the_deviation_over_seeds(part):
    """0.6 and 0.7 are 0.65 ± 0.0707 (ddof 1), at the labels paid for."""
    row = curves(part).set_index(["dataset", "method", "round"]).loc[("Air", "random", 1)]
    assert row.to_dict() == pytest.approx({"paid": 20, "mean": 0.65, "std": math.sqrt(0.005), "n": 2})


def test_runs_that_are_not_finished_are_in_no_curve(part):
    """Only the finished seed is left, so there is no deviation."""
    row = curves(part).set_index(["dataset", "method", "round"]).loc[("Sea", "badge", 1)]
    assert row.n == 1 and row["mean"] == 0.8 and math.isnan(row["std"])


def test_the_line_of_all_labels_comes_from_another_query_size(records, part):
    assert all_labels(records, part).to_dict() == {"Air": 0.9}


def test_the_figure_shows_curves_bands_and_lines(records, part):
    """Percent over paid labels. The band is one deviation to each side. Zero-shot is on both panels, all labels on one."""
    air, sea = draw_curves(records, part).axes
    assert np.allclose(lines_of(air)["x"], [[10, 40], [20, 65]])
    assert np.allclose(lines_of(air)["o"], [[10, 50], [20, 80]])
    band = next(band for band in air.collections if band.get_facecolor()[0, :3].max() == 0)  # of the black baseline
    assert np.allclose(sorted(set(band.get_paths()[0].vertices[:, 1]))[-1], 65 + 100 * math.sqrt(0.005))
    levels = [[line.get_ydata()[0] for line in panel.lines if not line.get_marker()] for panel in (air, sea)]
    assert np.allclose(levels[0], [30, 90]) and np.allclose(levels[1], [30])


def test_the_legend_names_what_is_not_finished(records, part):
    texts = [text.get_text() for text in draw_curves(records, part).legends[0].get_texts()]
    assert texts == ["random", "badge (3 of 4 runs)", "zero-shot", "all labels"]


def test_a_data_set_without_a_finished_run_has_an_empty_panel_that_says_so(records, tmp_path):
    write_run(tmp_path / "new", [0.4], dataset="Wood", status="running")
    records = load_records([tmp_path])
    part = next(part for _, part in table_sets(records))
    panel = draw_curves(records, part).axes[2]
    assert panel.get_title() == "Wood" and [text.get_text() for text in panel.texts] == ["no finished run"]


def test_saved_labels_move_a_curve_to_the_left(tmp_path):
    """The x-axis counts the labels that were paid for, not all labels."""
    file = write_run(tmp_path / "a", [0.4, 0.5], method="cbsq")
    result = RunResult.read(file)
    result.rounds[1] = dataclasses.replace(result.rounds[1], n_paid=13, n_saved=7)
    result.write(file)
    assert curves(load_records([tmp_path])).paid.tolist() == [10, 13]


def test_another_metric_has_no_zero_shot_line(records, part):
    """Zero-shot CLIP is recorded for accuracy only."""
    assert len([line for line in draw_curves(records, part, "macro_f1").axes[1].lines if not line.get_marker()]) == 0


def test_without_a_finished_run_there_is_no_curve(tmp_path):
    write_run(tmp_path / "a", [0.4], status="running")
    with pytest.raises(DataError, match="no method has a finished run"):
        curves(load_records([tmp_path]))


def test_without_test_images_there_is_no_curve_but_balance(tmp_path):
    """Metrics are null without test images, but the classes are known."""
    write_run(tmp_path / "a", [None])
    records = load_records([tmp_path])
    with pytest.raises(DataError, match="measured accuracy"):
        curves(records)
    assert balance(records).evenness.tolist() == [1.0]


@pytest.mark.parametrize("counts, value", [
    ([5, 5], 1.0), ([4, 0], 0.0), ([3, 1], 0.811278), ([1, 1, 0, 0], 0.5), ([7], 1.0), ([0, 0], math.nan)])
def test_evenness_against_hand_values(counts, value):
    """Three of one class and one of another are 0.811 bits of 1."""
    assert evenness(counts) == pytest.approx(value, abs=1e-6, nan_ok=True)


def test_the_balance_is_the_mean_over_seeds(tmp_path):
    """Class counts (3, 1) and (4, 0) give evenness 0.406 and 1.5 classes; the figure shows both, below the line of all two."""
    for seed, counts in ((1, [3, 1]), (2, [4, 0])):
        file = write_run(tmp_path / str(seed), [0.4], seed=seed)
        result = RunResult.read(file)
        result.rounds[0] = dataclasses.replace(result.rounds[0], class_counts=counts)
        result.write(file)
    records = load_records([tmp_path])
    assert balance(records)[["evenness", "covered"]].values.tolist() == [pytest.approx([0.811278 / 2, 1.5])]
    left, right = draw_balance(records).axes
    assert np.allclose(lines_of(left)["x"], [[0, 0.811278 / 2]]) and np.allclose(lines_of(right)["x"], [[0, 1.5]])
    assert right.lines[0].get_ydata()[0] == 2
