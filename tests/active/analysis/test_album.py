"""Which figures are drawn, for which methods, and what is said about those that cannot be drawn."""

import argparse

import pytest

from active.analysis.album import LeftOut, add_flags, chosen, pictures, sheet_methods
from active.analysis.records import load_records
from active.analysis.tables import table_sets
from dassl.utils.errors import ConfigError
from tests.active.analysis.made import write_run


@pytest.fixture
def folder(tmp_path):
    """Three methods with two rounds each, and one with all labels."""
    for method, last in (("random", 0.5), ("badge", 0.7), ("coreset", 0.6)):
        write_run(tmp_path / method, [0.4, last], method=method)
    write_run(tmp_path / "full", [0.9], method="full", query_size="100%")
    return tmp_path


def flags(*words):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return parser.parse_args([*map(str, words)])


def drawn(*words):
    """Return all pictures and lines of the one table that there is."""
    arguments = flags(*words)
    records = chosen(arguments)
    (_, part), = table_sets(records)
    return list(pictures(records, part, arguments))


def test_each_table_has_its_figures_and_a_line_for_what_cannot_be_drawn(folder):
    """The images of these records do not exist, so a line stands in place of the picks."""
    *figures, line = drawn(folder)
    assert [figure.name for figure in figures] == [f"{kind}_CoOp_tiny_1pct" for kind in ("curves", "ranks", "wins", "balance")]
    assert line == LeftOut("Picks on Toy: left out, data is not a folder; --root names the one that holds the images")


def test_another_metric_has_files_of_its_own(folder):
    """Balance is the same for all metrics."""
    names = [figure.name for figure in drawn(folder, "--metric", "macro_f1")[:-1]]
    assert names == [f"{kind}_CoOp_tiny_1pct" for kind in ("curves-macro_f1", "ranks-macro_f1", "wins-macro_f1", "balance")]


def test_only_chosen_methods_are_drawn(folder):
    """The line of the runs with all labels is drawn too, as it is not one of the methods."""
    figure = drawn(folder, "--methods", "badge", "random")[0].figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["random", "badge", "zero-shot", "all labels"]


@pytest.mark.parametrize("flag", ["--methods", "--picks"])
def test_an_unknown_method_is_refused_with_the_nearest_one(folder, flag):
    with pytest.raises(ConfigError, match=rf"{flag}: there is no run of 'bagde'; did you mean 'badge'"):
        chosen(flags(folder, flag, "random", "bagde"))


def test_one_method_is_not_ranked(folder):
    """Two lines say why, and the curve is there."""
    found = drawn(folder, "--methods", "badge")
    assert [isinstance(picture, LeftOut) for picture in found] == [False, True, True, False, True]
    assert found[1].line == "Average ranks by accuracy: left out, ranks need finished runs of two methods"


@pytest.mark.parametrize("wanted, methods", [(None, ["random", "badge"]), (["coreset"], ["coreset"]),
                                             (["all"], ["random", "coreset", "badge"])])
def test_images_are_shown_of_the_baseline_and_the_best(folder, wanted, methods):
    """Methods that were asked for are shown instead."""
    (_, part), = table_sets(load_records([folder]))
    assert sheet_methods(part, wanted) == methods
