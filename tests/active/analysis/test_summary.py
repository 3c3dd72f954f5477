"""The tables of an experiment as they are printed."""

import pytest

from active.analysis import summary
from active.analysis.records import load_records
from active.analysis.summary import missing_table, results_tables
from dassl.utils.errors import UserError
from tests.active.analysis.made import write_run


def write_experiment(folder, datasets=("A", "B"), methods=("random", "badge"), seeds=(1, 2, 3), **options):
    """Write runs whose accuracy grows with the method, the data set and the seed."""
    for x, dataset in enumerate(datasets):
        for y, method in enumerate(methods):
            for seed in seeds:
                start = 0.4 + 0.1 * x + 0.02 * y * seed + 0.01 * seed
                write_run(folder / f"{dataset}_{method}_{seed}", [start, start + 0.1], dataset=dataset, method=method,
                          seed=seed, **options)


def test_there_is_a_table_for_each_learner_backbone_and_query_size(tmp_path):
    write_experiment(tmp_path / "1", seeds=(1,))
    write_experiment(tmp_path / "2", seeds=(1,), learner="VPT")
    write_experiment(tmp_path / "3", seeds=(1,), query_size="5%")
    assert [table.title for table in results_tables(load_records([tmp_path]))] == [
        "CoOp, tiny, 1% a round: accuracy %", "CoOp, tiny, 5% a round: accuracy %", "VPT, tiny, 1% a round: accuracy %"]


def test_rows_are_methods_and_columns_rounds(tmp_path):
    """A block for each data set and one for the average; 0.42, 0.43, 0.44 -> 0.43 ± 0.01 for random on A, with 0.41 to 0.43."""
    write_experiment(tmp_path)
    frame = results_tables(load_records([tmp_path]))[0].frame
    assert list(frame.columns) == ["round 0", "round 1", "area"]
    assert list(frame.index) == [(block, row) for block in ("A", "B", "average over data sets")
                                 for row in ("zero-shot", "random", "badge")]
    assert frame.loc[("A", "random")].tolist() == ["42.0 ± 1.0", "52.0 ± 1.0", "47.0 ± 1.0"]
    assert frame.loc[("average over data sets", "random"), "round 0"] == "47.0 ± 1.0"


def test_a_missing_run_is_a_dash_in_the_average_and_a_line_in_the_list(tmp_path):
    write_experiment(tmp_path, methods=("random",))
    write_experiment(tmp_path, methods=("badge",), datasets=("A",))
    write_experiment(tmp_path, methods=("badge",), datasets=("B",), seeds=(1, 2))
    records = load_records([tmp_path])
    frame = results_tables(records)[0].frame
    assert frame.loc[("B", "badge"), "round 1"].endswith("(2/3)")
    assert frame.loc[("average over data sets", "badge"), "round 1"] == "-"
    table = missing_table(records)
    assert table.frame.reset_index().values.tolist() == [
        ["CoOp, tiny, 1% a round", "badge", "B", "3", "missing", "never run"]]


def test_nothing_missing_is_no_table(tmp_path):
    write_experiment(tmp_path)
    assert missing_table(load_records([tmp_path])) is None


def test_a_budget_of_another_table_is_said_to_be_missing(tmp_path):
    """The budget 10 % exists with 5 % a round, but not with two rounds of 1 %."""
    write_experiment(tmp_path / "1", seeds=(1,))
    write_experiment(tmp_path / "2", seeds=(1,), query_size="5%")
    first, second = results_tables(load_records([tmp_path]), budgets=[10])
    assert "10%: no run of this table has a round of this budget." in first.notes and not second.notes
    assert set(first.frame.loc["A", "10%"][["random", "badge"]]) == {"-"}


def test_saved_labels_are_said(tmp_path):
    """The tables say how many labels were paid for, and over which labels areas are computed."""
    write_experiment(tmp_path, datasets=("A",), methods=("random",))
    write_experiment(tmp_path, datasets=("A",), methods=("cbsq",), n_saved=4)
    notes = results_tables(load_records([tmp_path]))[0].notes
    assert notes == ["area on A: over 10 to 16 paid labels, which all finished runs cover; the longest curve ends at 20.",
                     "cbsq on A: 16.0 of 20.0 labels at the last round were paid, on average."]


def test_the_tests_are_of_the_last_round_and_the_area(tmp_path):
    """Badge gains 0.02, 0.04 and 0.06 on both data sets, so 4 points, always; signed ranks of six gains give 2 / 64."""
    write_experiment(tmp_path)
    tables, notes = summary.tests_tables(load_records([tmp_path]))
    frame = tables[0].frame
    assert not notes and list(frame.index) == [(block, row) for block in ("last round", "area") for row in ("random", "badge")]
    assert frame.loc[("last round", "badge")].tolist() == [
        "6", "6/0/0", "+4.00", "+2.12 to +5.88", "0.003", "0.003", "0.031", "0.031", "1.00"]
    assert frame.loc[("last round", "random")].tolist() == ["-"] * 8 + ["2.00"]


def test_what_cannot_be_tested_is_a_dash(tmp_path):
    """One pair: no p-value and no interval; two methods: no Friedman test."""
    write_experiment(tmp_path, datasets=("A",), seeds=(1,))
    table = summary.tests_tables(load_records([tmp_path]))[0][0]
    assert table.frame.loc[("area", "badge")].tolist() == ["1", "1/0/0", "+2.00", *["-"] * 5, "1.00"]
    assert all("no Friedman test" in note for note in table.notes) and "nan" not in table.frame.to_string().lower()


def test_runs_of_one_round_are_tested_without_an_area(tmp_path):
    for method in ("random", "badge"):
        write_run(tmp_path / method, [0.4], method=method)
    table = summary.tests_tables(load_records([tmp_path]))[0][0]
    assert {block for block, _ in table.frame.index} == {"last round"}


def test_without_a_baseline_there_is_a_sentence(tmp_path):
    """It is an error only if the baseline was asked for by name and does not exist."""
    write_experiment(tmp_path, methods=("badge", "entropy"))
    records = load_records([tmp_path])
    tables, notes = summary.tests_tables(records)
    assert not tables and "no finished run of 'random'" in notes[0]
    with pytest.raises(UserError, match="did you mean 'entropy'"):
        summary.tests_tables(records, against="entrop")


def test_a_method_alone_has_no_tests(tmp_path):
    write_experiment(tmp_path, methods=("random",))
    tables, notes = summary.tests_tables(load_records([tmp_path]))
    assert not tables and "no method other than" in notes[0]
