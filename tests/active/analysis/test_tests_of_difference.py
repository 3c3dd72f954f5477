"""One number a run, and the tests between methods, against hand calculations and SciPy."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from active.analysis.records import load_records
from active.analysis.tests_of_difference import area_under_curve, areas, by_block, compare, friedman, holm, last_values
from dassl.utils.errors import UserError
from tests.active.analysis.made import write_run

RANDOM = [0.50, 0.52, 0.61, 0.40, 0.55, 0.43]
BADGE = [0.55, 0.52, 0.66, 0.48, 0.54, 0.50]


def blocks_of(**methods: list[float]) -> pd.DataFrame:
    """Return a block for each value: three seeds on each of two data sets."""
    index = pd.MultiIndex.from_product([["A", "B"], [1, 2, 3]], names=["dataset", "seed"])
    return pd.DataFrame(methods, index=index[: len(next(iter(methods.values())))])


def test_the_area_is_the_mean_over_the_labels():
    """Trapezoids of widths 10 and 30: (10 * 0.5 + 30 * 0.7) / 40."""
    assert area_under_curve(np.array([10.0, 20, 50]), np.array([0.4, 0.6, 0.8]), 10, 50) == pytest.approx(0.65)


def test_the_area_of_a_part_begins_and_ends_on_the_curve():
    """From 15 (0.5) over 20 (0.6) to 35 (0.7): (5 * 0.55 + 15 * 0.65) / 20."""
    assert area_under_curve(np.array([10.0, 20, 50]), np.array([0.4, 0.6, 0.8]), 15, 35) == pytest.approx(0.625)


def test_rounds_that_paid_nothing_add_no_area():
    """Where labels stay equal the curve jumps, and goes on from its last value: (10 * 0.5 + 10 * 0.9) / 20."""
    paid, values = np.array([10.0, 20, 20, 30]), np.array([0.4, 0.6, 0.8, 1.0])
    assert area_under_curve(paid, values, 10, 30) == pytest.approx(0.7)


def test_areas_run_over_the_labels_that_all_runs_cover(tmp_path):
    """Random paid 10, 20, 30 labels and cbsq 10, 16, 22: both areas end at 22, where random's line is at 0.62."""
    write_run(tmp_path / "a", [0.4, 0.6, 0.7], method="random")
    write_run(tmp_path / "b", [0.4, 0.6, 0.7], method="cbsq", n_saved=4)
    table = areas(load_records([tmp_path])).set_index("method")
    assert table.low.tolist() == [10, 10] and table.high.tolist() == [22, 22]
    assert table.value["random"] == pytest.approx((10 * 0.5 + 2 * 0.61) / 12)
    assert table.value["cbsq"] == pytest.approx((6 * 0.5 + 6 * 0.65) / 12)


def test_areas_begin_where_the_latest_run_does(tmp_path):
    """One method pays 10 labels in its first round, another 20: from 10 to 20 there is nothing to compare."""
    write_run(tmp_path / "a", [0.4, 0.6, 0.7], method="random")
    write_run(tmp_path / "b", [0.5, 0.9], method="slow", n_query=20)
    table = areas(load_records([tmp_path])).set_index("method")
    assert table.low.tolist() == [20, 20] and table.high.tolist() == [30, 30]
    assert table.value["random"] == pytest.approx(0.65) and table.value["slow"] == pytest.approx(0.6)


def test_unfinished_runs_and_single_rounds_have_no_area(tmp_path):
    """An unfinished curve and one of a single point are not compared."""
    write_run(tmp_path / "a", [0.4, 0.6], method="random", status="running", n_rounds=3)
    write_run(tmp_path / "b", [0.4], method="badge")
    assert areas(load_records([tmp_path])).empty


def test_the_last_round_is_the_last_of_the_data_set(tmp_path):
    """A run that ended early, or has not ended, has no value for its data set's last round."""
    write_run(tmp_path / "a", [0.4, 0.6, 0.7], method="random")
    write_run(tmp_path / "b", [0.4, 0.9], method="badge")
    write_run(tmp_path / "c", [0.4, 0.6, 0.8], method="cec", status="running", n_rounds=4)
    write_run(tmp_path / "d", [0.1, 0.2], method="random", dataset="Other")
    table = last_values(load_records([tmp_path])).sort_values("dataset")
    assert table[["dataset", "method", "value"]].values.tolist() == [["Other", "random", 0.2], ["Toy", "random", 0.7]]


def test_paired_tests_equal_scipy():
    """The t-test, t interval and signed ranks are SciPy's for the same pairs. Ranks leave out the tie at the second seed."""
    row = compare(blocks_of(badge=BADGE, random=RANDOM)).iloc[0]
    differences = np.round(np.array(BADGE) - RANDOM, 9)
    expected = stats.ttest_rel(BADGE, RANDOM)
    assert row.t == pytest.approx(expected.pvalue)
    assert (row.low, row.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert row.wilcoxon == stats.wilcoxon(differences[differences != 0]).pvalue
    assert row.difference == pytest.approx(differences.mean())


def test_the_signed_ranks_of_five_gains_and_no_loss():
    """Of 2^5 signs one is all positive: two-sided p = 2 / 32."""
    row = compare(blocks_of(badge=[0.51, 0.53, 0.64, 0.44, 0.60], random=RANDOM[:5])).iloc[0]
    assert row.wilcoxon == pytest.approx(2 / 32)


def test_wins_ties_and_losses_are_counted_over_pairs():
    """Equal values are ties, even where the last bits of their floats differ."""
    row = compare(blocks_of(badge=[*BADGE[:5], 0.43 + 1e-12], random=RANDOM)).iloc[0]
    assert (row.wins, row.ties, row.losses) == (3, 2, 1)


def test_lower_calibration_errors_win():
    """For a metric where lower is better, wins and ranks are reversed; the difference keeps its sign."""
    blocks = blocks_of(badge=BADGE, random=RANDOM)
    row = compare(blocks, lower_is_better=True).iloc[0]
    assert (row.wins, row.ties, row.losses) == (1, 1, 4) and row.difference > 0
    assert friedman(blocks, lower_is_better=True).ranks["random"] < friedman(blocks).ranks["random"]


def test_only_blocks_with_both_are_pairs():
    """A block without the method, or without the baseline, is not a pair."""
    row = compare(blocks_of(badge=[np.nan, *BADGE[1:]], random=[*RANDOM[:5], np.nan])).iloc[0]
    assert row.n_pairs == 4
    assert row.t == pytest.approx(stats.ttest_rel(BADGE[1:5], RANDOM[1:5]).pvalue)


@pytest.mark.parametrize("badge", [[0.6], [0.51, 0.53, 0.62, 0.41, 0.56, 0.44], RANDOM, [np.nan] * 6])
def test_too_few_pairs_or_equal_differences_give_no_p_value(badge):
    """One pair, equal gains, no difference, or no pair: there is no number, and SciPy does not warn."""
    row = compare(blocks_of(badge=badge, random=RANDOM[: len(badge)])).iloc[0]
    assert np.isnan([row.t, row.wilcoxon, row.low, row.high, row.t_holm, row.wilcoxon_holm]).all()


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3, then 0.022 * 2 = 0.044, which may not fall below the one before, then 0.8; none stays none."""
    assert holm(np.array([0.8, 0.02, np.nan, 0.01, 0.022])) == pytest.approx([0.8, 0.06, np.nan, 0.04, 0.06], nan_ok=True)


def test_holm_ends_at_one():
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]


def test_the_correction_counts_the_methods_that_have_a_test():
    """With two tested methods, the smaller p-value is doubled; a third without pairs changes nothing."""
    table = compare(blocks_of(badge=BADGE, cec=[0.7, 0.5, 0.6, 0.6, 0.7, 0.6], none=[np.nan] * 6, random=RANDOM))
    assert table.t_holm.min() == pytest.approx(2 * table.t.min())


def test_friedman_by_hand():
    """Ranks 1, 2, 3 in both of two blocks: chi-square is 12 / (2 * 3 * 4) * (2^2 + 4^2 + 6^2) - 3 * 2 * 4 = 4."""
    found = friedman(blocks_of(a=[0.9, 0.8], b=[0.5, 0.6], c=[0.1, 0.2]))
    assert found.ranks.tolist() == [1, 2, 3] and found.n_blocks == 2
    assert found.statistic == pytest.approx(4) and found.p == pytest.approx(np.exp(-2))


def test_friedman_equals_scipy_over_whole_blocks():
    """Ties share their rank, and a block in which one method is missing is left out of ranks and test."""
    cec = [0.5, 0.6, np.nan, 0.6, 0.7, 0.6]
    found = friedman(blocks_of(random=RANDOM, badge=BADGE, cec=cec))
    whole = [0, 1, 3, 4, 5]
    expected = stats.friedmanchisquare(*(np.array(values)[whole] for values in (RANDOM, BADGE, cec)))
    assert found.n_blocks == 5 and (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.ranks.to_dict() == pytest.approx({"random": 13 / 5, "badge": 10.5 / 5, "cec": 6.5 / 5})


@pytest.mark.parametrize("methods", [{"a": [0.5] * 3, "b": [0.5] * 3, "c": [0.5] * 3}, {"a": [0.5], "b": [0.6], "c": [0.7]},
                                     {"a": [0.5, 0.6], "b": [0.6, 0.5]}, {"a": [0.5], "b": [0.4], "c": [np.nan]}])
def test_friedman_needs_three_methods_two_blocks_and_a_difference(methods):
    """Otherwise there is no test, and no warning."""
    found = friedman(blocks_of(**methods))
    assert np.isnan(found.statistic) and np.isnan(found.p)


def test_an_unknown_baseline_is_an_error():
    with pytest.raises(UserError, match="did you mean 'random'"):
        compare(blocks_of(badge=BADGE, random=RANDOM), "rando")


def test_blocks_are_data_set_and_seed(tmp_path):
    """Methods stand side by side where they have the same data set and seed."""
    for method, seed, accuracy in (("random", 1, 0.4), ("random", 2, 0.5), ("badge", 2, 0.6)):
        write_run(tmp_path / f"{method}{seed}", [accuracy], method=method, seed=seed)
    blocks = by_block(last_values(load_records([tmp_path])))
    assert blocks.index.tolist() == [("Toy", 1), ("Toy", 2)]
    assert blocks.random.tolist() == [0.4, 0.5] and blocks.badge.isna().tolist() == [True, False]


def test_runs_with_all_labels_are_no_method_to_test(tmp_path):
    write_run(tmp_path / "a", [0.4, 0.5])
    write_run(tmp_path / "b", [0.9], method="full", query_size="100%", n_query=100)
    assert last_values(load_records([tmp_path])).method.tolist() == ["random"]
