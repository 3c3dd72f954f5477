"""Ranks, critical differences and wins, checked against hand-computed and published values."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from active.analysis.comparisons import average_ranks, critical_difference, draw_ranks, draw_wins, win_shares
from active.analysis.records import load_records
from dassl.utils.errors import DataError
from tests.active.analysis.made import write_run


def made(folder, values, **arguments):
    """Return the records of methods with these accuracies, by method and seed."""
    for method, runs in values.items():
        for seed, accuracies in enumerate(runs, start=1):
            if accuracies:
                write_run(folder / f"{method}{seed}", accuracies, method=method, seed=seed, **arguments)
    return load_records([folder])


@pytest.mark.parametrize("n_methods, q", [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031),
                                          (9, 3.102), (10, 3.164)])
def test_critical_values_are_the_published_ones(n_methods, q):
    """Demsar 2006, Table 5(a), at level 0.05. The table truncates the third decimal."""
    n_blocks = n_methods * (n_methods + 1) / 6  # makes the root one
    assert critical_difference(n_methods, n_blocks) == pytest.approx(q, abs=1e-3)


def test_the_example_of_the_source_comes_out():
    """Four classifiers on 14 data sets: 1.25 (Demsar 2006, section 3.2.5)."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_ranks_are_averaged_over_the_blocks_that_all_have(tmp_path):
    """For one seed the order is b, a, c; for the other a is first, and b and c tie. The seed that c lacks does not count."""
    records = made(tmp_path, {"a": [[0, 0.5], [0, 0.7], [0, 0.1]], "b": [[0, 0.6], [0, 0.3], [0, 0.9]],
                              "c": [[1, 0.4], [1, 0.3], None]})
    result = average_ranks(records)
    assert result.n_blocks == 2 and result.ranks.to_dict() == {"a": 1.5, "b": 1.75, "c": 2.75}


def test_the_figure_shows_ranks_with_the_best_on_top_and_marks_what_differs(tmp_path):
    """Over 12 seeds three fixed ranks differ by more than the critical difference 0.96; bars are half of it to each side."""
    records = made(tmp_path, {"a": [[0.1]] * 12, "b": [[0.9]] * 12, "c": [[0.5]] * 12})
    axes = draw_ranks(records).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c", "b"]
    points = {int(line.get_ydata()[0]): line for line in axes.lines if line.get_marker() == "o"}
    assert [points[height].get_xdata()[0] for height in range(3)] == [3, 2, 1]
    assert [to_hex(points[height].get_markerfacecolor()) for height in range(3)] == ["#ffffff", "#ffffff", "#000000"]
    bar = next(line for line in axes.lines if line.get_marker() == "None")
    assert np.ptp(bar.get_xdata()) == pytest.approx(critical_difference(3, 12)) == pytest.approx(0.957, abs=1e-3)


def test_wins_are_shares_of_all_rounds_with_ties_as_halves(tmp_path):
    """a beats b in one round of four and ties in one: 37.5 %. c has one seed: it is compared there alone, and wins."""
    records = made(tmp_path, {"a": [[0.5, 0.5], [0.5, 0.5]], "b": [[0.4, 0.5], [0.6, 0.7]], "c": [[0.8, 0.8], None]})
    shares = win_shares(records)
    assert list(shares) == list(shares.index) == ["c", "b", "a"]
    assert shares.loc["a", "b"] == 0.375 and shares.loc["b", "a"] == 0.625
    assert shares.loc["c", "a"] == 1 and shares.loc["a", "c"] == 0 and np.isnan(np.diag(shares)).all()


def test_methods_that_never_met_have_no_share(tmp_path):
    """One method has only the first seed and the other only the second: the figure shows a dash."""
    records = made(tmp_path, {"a": [[0.5], [0.5]], "b": [[0.4], None], "c": [None, [0.6]]})
    assert np.isnan(win_shares(records).loc["b", "c"])
    texts = sorted(text.get_text() for text in draw_wins(records).axes[0].texts)
    assert texts == ["", "", "", "0", "0", "100", "100", "–", "–"]


def test_less_is_better_where_it_is_an_error(tmp_path):
    """All ECE values of the made records are equal, so wins by ECE are halves; wins by accuracy are not."""
    records = made(tmp_path, {"a": [[0.5]], "b": [[0.4]]})
    assert win_shares(records, "ece").loc["a", "b"] == 0.5 and win_shares(records).loc["a", "b"] == 1
    records.rounds.loc[records.rounds.method == "a", "ece"] = 0.05
    assert win_shares(records, "ece").loc["a", "b"] == 1
    assert average_ranks(records, "ece").ranks.to_dict() == {"a": 1, "b": 2}


@pytest.mark.parametrize("values, reason", [({"a": [[0.5]]}, "two methods"),
                                            ({"a": [[0.5], None], "b": [None, [0.5]]}, "all methods have finished")])
def test_where_there_is_nothing_to_rank_the_reason_is_said(tmp_path, values, reason):
    with pytest.raises(DataError, match=reason):
        draw_ranks(made(tmp_path, values))


def test_one_method_has_no_wins(tmp_path):
    with pytest.raises(DataError, match="two methods"):
        draw_wins(made(tmp_path, {"a": [[0.5]]}))
