"""Means over seeds: checked by hand where all runs are there, reported where some are missing."""

import json
import statistics
from typing import Any

import pandas as pd
import pytest

from active.analysis.records import CELLS, FAILED, Records, load_records
from active.analysis.tables import AVERAGE, best, cells, check_budgets, in_order, missing, shown, table_sets, values
from dassl.utils.errors import UserError
from tests.active.analysis.made import write_run
from tests.active.toy import edit

ACCURACIES = {("A", 1): 0.40, ("A", 2): 0.50, ("B", 1): 0.70, ("B", 2): 0.60}


def cell(table: pd.DataFrame, **keys: Any) -> pd.Series:
    """Return the only row of a table with these values."""
    rows = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)]
    assert len(rows) == 1
    return rows.iloc[0]


@pytest.fixture
def two_datasets(tmp_path):
    """Random on two data sets with two seeds; badge lacks a seed on B."""
    for (dataset, seed), accuracy in ACCURACIES.items():
        keys = {"dataset": dataset, "seed": seed}
        write_run(tmp_path / f"random{dataset}{seed}", [accuracy, accuracy + 0.1], **keys)
        if (dataset, seed) != ("B", 2):
            write_run(tmp_path / f"badge{dataset}{seed}", [accuracy, accuracy + 0.2], method="badge", **keys)
    return load_records([tmp_path])


def test_a_cell_is_mean_and_deviation_over_seeds(two_datasets):
    """ddof 1, as of a sample."""
    found = cell(cells(values(two_datasets)), dataset="A", method="random", column="round 1")
    assert found["mean"] == pytest.approx(0.55) and found["std"] == pytest.approx(statistics.stdev([0.5, 0.6]))
    assert (found.n, found.expected) == (2, 2)


def test_a_missing_seed_is_counted(two_datasets):
    """The cell keeps its other seed and says that it is one of two."""
    found = cell(cells(values(two_datasets)), dataset="B", method="badge", column="round 1")
    assert (found.n, found.expected) == (1, 2) and found["mean"] == pytest.approx(0.9)


def test_the_average_is_that_of_the_data_sets(two_datasets):
    """Its deviation is that of the seeds' averages: 0.65 and 0.65 in the second round, so 0."""
    found = cell(cells(values(two_datasets)), dataset=AVERAGE, method="random", column="round 1")
    assert found["mean"] == pytest.approx(0.65) and found["std"] == pytest.approx(0)


def test_an_incomplete_method_has_no_average(two_datasets):
    """One missing seed on one data set is never averaged away."""
    found = cell(cells(values(two_datasets)), dataset=AVERAGE, method="badge", column="round 1")
    assert found.n == 0 and pd.isna(found["mean"])


def test_a_method_that_was_not_asked_for_on_a_data_set_has_no_average(tmp_path):
    """If a sweep lists its cells, a method without any cell on one data set must not be averaged over the others."""
    write_run(tmp_path / "1", [0.4], dataset="A")
    write_run(tmp_path / "2", [0.4], dataset="B")
    write_run(tmp_path / "3", [0.4], dataset="A", method="badge")
    keys = {"learner": "CoOp", "backbone": "tiny", "query_size": "1%", "seed": 1}
    asked = [("A", "random"), ("B", "random"), ("A", "badge")]
    (tmp_path / CELLS).write_text(json.dumps({"cells": [
        keys | {"dataset": dataset, "method": method, "folder": str(index)}
        for index, (dataset, method) in enumerate(asked, start=1)]}))
    assert cell(cells(values(load_records([tmp_path]))), dataset=AVERAGE, method="badge", column="round 0").n == 0


def test_failed_and_unfinished_runs_keep_their_rounds(tmp_path):
    """What was measured before the end stays in the table; later rounds are missing."""
    write_run(tmp_path / "1", [0.4, 0.5], seed=1)
    write_run(tmp_path / "2", [0.6], seed=2, status="running", n_rounds=2)
    table = cells(values(load_records([tmp_path])))
    assert cell(table, method="random", column="round 0").n == 2
    assert cell(table, method="random", column="round 1").n == 1


def test_zero_shot_is_one_row(two_datasets):
    """All runs have the same accuracy, so there is no deviation, and each column shows it."""
    table = cells(values(two_datasets))
    rows = table[table.method == "zero-shot"]
    assert set(rows["mean"]) == {0.3} and set(rows.n) == {1} and len(rows) == 3 * 3
    assert "zero-shot" not in set(values(two_datasets, "macro_f1").method)


def test_runs_with_all_labels_are_a_row_beside_every_query_size(tmp_path):
    """They get no table for their own query size."""
    for size in ("1%", "5%"):
        write_run(tmp_path / size, [0.4, 0.5], query_size=size)
    for seed, accuracy in ((1, 0.8), (2, 0.9)):
        write_run(tmp_path / f"full{seed}", [accuracy], method="full", query_size="100%", n_query=100, seed=seed)
    records = load_records([tmp_path])
    table = cells(values(records))
    for size in ("1%", "5%"):
        assert cell(table, query_size=size, method="full", column="round 1")["mean"] == pytest.approx(0.85)
    assert [keys for keys, _ in table_sets(records)] == [("CoOp", "tiny", "1%"), ("CoOp", "tiny", "5%")]


def test_a_missing_run_with_all_labels_is_counted(tmp_path):
    write_run(tmp_path / "a", [0.4], seed=1)
    write_run(tmp_path / "b", [0.8], method="full", query_size="100%", seed=1)
    write_run(tmp_path / "c", [], method="full", query_size="100%", seed=2, status="running", n_rounds=1)
    found = cell(cells(values(load_records([tmp_path]))), method="full", column="round 0")
    assert (found.n, found.expected) == (1, 2)


def test_budgets_of_shares_add_up(tmp_path):
    """With 2 % a round, budget 4 is the second round, whatever the rounding to images: 2 % of 3334 are 67."""
    write_run(tmp_path / "a", [0.4, 0.5, 0.6], query_size="2%", n_train=3334, n_query=67)
    table = cells(values(load_records([tmp_path]), budgets=[4, 6]))
    assert cell(table, method="random", column="4%")["mean"] == 0.5
    assert cell(table, method="random", column="6%")["mean"] == 0.6


def test_budgets_of_counts_are_rounded_to_an_image(tmp_path):
    """33 labels a round are 1 % of 3334 (33.3), and 66 are not 2 % (66.7, that is 67)."""
    write_run(tmp_path / "a", [0.4, 0.5], query_size="33", n_train=3334, n_query=33)
    records = load_records([tmp_path])
    assert cell(cells(values(records, budgets=[1])), method="random", column="1%")["mean"] == 0.4
    with pytest.raises(UserError, match=r"no round has the budget 2 %; there are 0\.9898, 1\.98 %"):
        check_budgets(records, [1, 2])


def test_labels_that_a_sampler_saves_count_for_the_budget(tmp_path):
    """A budget is what may be paid: 10 + 6 paid and 4 saved images are the round of 20 %."""
    write_run(tmp_path / "a", [0.4, 0.5], method="cbsq", query_size="10%", n_saved=4)
    assert cell(cells(values(load_records([tmp_path]), budgets=[20])), method="cbsq", column="20%")["mean"] == 0.5


def test_a_budget_that_an_unfinished_run_has_not_reached_is_missing(tmp_path):
    """An earlier round is not used instead."""
    write_run(tmp_path / "a", [0.4, 0.5], seed=1)
    write_run(tmp_path / "b", [0.4], seed=2, status="running", n_rounds=2)
    assert cell(cells(values(load_records([tmp_path]), budgets=[2])), method="random", column="2%").n == 1


def test_the_best_is_among_complete_methods_and_equal_as_printed(two_datasets):
    """Badge lacks a seed on B, so random is alone there and nothing is best; on A the methods differ in the second round."""
    table = cells(values(two_datasets))
    marked = table[best(table) & (table.column != "area")]
    assert set(map(tuple, marked[["dataset", "method", "column"]].values)) == {
        ("A", "random", "round 0"), ("A", "badge", "round 0"), ("A", "badge", "round 1")}


def test_the_least_calibration_error_is_best(two_datasets):
    two_datasets.rounds.loc[two_datasets.rounds.method == "badge", "ece"] = 0.05
    table = cells(values(two_datasets, "ece"))
    assert set(table[best(table, "ece")].method) == {"badge"}


def test_every_gap_is_listed_with_its_reason(tmp_path):
    """Failed (first line), never run, unfinished, shorter than others, and without test images."""
    write_run(tmp_path / "1", [0.4, 0.5], seed=1)
    write_run(tmp_path / "2", [0.4], seed=2, status="running", n_rounds=2)
    write_run(tmp_path / "5", [0.4], seed=5)
    write_run(tmp_path / "6", [None, None], seed=6)
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random"}
    (tmp_path / CELLS).write_text(json.dumps({"cells": [keys | {"seed": seed, "folder": str(seed)} for seed in range(1, 7)]}))
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / FAILED).write_text(json.dumps({"error": "the loss is NaN\nTraceback"}))
    records = load_records_of_other_lengths(tmp_path)
    assert missing(records)[["seed", "status", "reason"]].values.tolist() == [
        [2, "unfinished", "1 of 2 rounds done"], [3, "failed", "the loss is NaN"], [4, "missing", "never run"],
        [5, "done", "ended after 1 rounds, others after 2"], [6, "done", "nothing was measured: no test images"]]


def load_records_of_other_lengths(folder) -> Records:
    """Return the records of a folder in which all runs asked for two rounds."""
    for file in folder.rglob("results.json"):
        edit(file, lambda content: content["config"]["ACTIVE"].update(ROUNDS=2))
    return load_records([folder])


def test_a_sweep_of_which_everything_failed_has_empty_tables(tmp_path):
    """No run left a record: no row, but all cells are listed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FAILED).write_text(json.dumps({"error": "no such weights"}))
    keys = {"dataset": "Toy", "learner": "CoOp", "backbone": "tiny", "query_size": "1%", "method": "random", "seed": 1}
    (tmp_path / CELLS).write_text(json.dumps({"cells": [keys | {"folder": "a"}]}))
    records = load_records([tmp_path])
    assert cells(values(records)).empty and missing(records).reason.tolist() == ["no such weights"]


@pytest.mark.parametrize("numbers, text", [
    ((0.6214, 0.0081, 3, 3), "62.1 ± 0.8"), ((0.6214, 0.0081, 2, 3), "62.1 ± 0.8 (2/3)"),
    ((0.6214, float("nan"), 1, 1), "62.1"), ((0.6214, float("nan"), 1, 3), "62.1 (1/3)"),
    ((float("nan"), float("nan"), 0, 3), "-")])
def test_a_cell_as_it_is_printed(numbers, text):
    """Percent with one decimal, a count where seeds are missing, and a dash for None."""
    assert shown(*numbers) == text


def test_methods_are_in_the_order_of_the_papers():
    """Zero-shot is first, methods that no paper has follow by name, and full labels are last."""
    assert in_order(["zeta", "cec", "full", "random", "alpha", "zero-shot", "random"]) == [
        "zero-shot", "random", "cec", "alpha", "zeta", "full"]
