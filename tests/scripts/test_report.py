"""`scripts/report.py`: a single self-contained page with every table and figure."""

import base64
import io
import re

import pytest
from matplotlib.image import imread

from scripts.report import main
from tests.active.analysis.made import write_run
from tests.active.analysis.test_page import OUTSIDE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two learners. One has a method that lacks a seed, and one run has other code."""
    folder = tmp_path_factory.mktemp("my experiment")
    for learner in ("CoOp", "VPT"):
        for method in ("random", "badge"):
            for seed in (1, 2):
                if (learner, method, seed) != ("VPT", "badge", 2):
                    code = "other" if (learner, method, seed) == ("VPT", "badge", 1) else "c"
                    write_run(folder / f"{learner}{method}{seed}", [0.4, 0.5 + seed / 10 + (method == "badge") / 10], seed=seed,
                              learner=learner, method=method, certificate={"code": code, "data": "d", "weights": "w"})
    return folder


@pytest.fixture(scope="module")
def page(folder):
    assert main([str(folder)]) == 0
    return (folder / "report.html").read_text("utf-8")


def test_every_table_and_figure_is_there_once(page):
    """Each learner has results, tests and four figures. A list of what is missing comes first."""
    headings = re.findall(r"<h[123].*?>(.*?)</h[123]>", page)
    figures = ["Test accuracy over paid labels", "Average ranks by accuracy", "Wins of each pair by accuracy",
               "Balance of the labeled classes"]
    parts = [[f"{learner}, tiny, 1% a round", f"{learner}, tiny, 1% a round: accuracy %",
              f"{learner}, tiny, 1% a round: accuracy % against random", *figures] for learner in ("CoOp", "VPT")]
    assert headings[0].startswith("Results of my experiment") and headings[1] == "What to know first"
    assert headings[3:] == [*parts[0], *parts[1]]
    assert "never run" in page and page.count("<table>") == 5


def test_numbers_and_notes_stand_in_it(page):
    """0.7 and 0.8 give 75.0 ± 7.1, the best in bold. A note about other code comes first."""
    assert "<b>75.0 ± 7.1</b>" in page and "made by 2 versions of the code" in page
    assert "7 of 8 runs are finished: 1 data set, 2 methods, 2 seeds." in page


def test_it_needs_nothing_from_outside(page):
    """Each of the eight pictures is an embedded PNG."""
    assert not OUTSIDE.search(page)
    pictures = re.findall(r'src="data:image/png;base64,(.*?)"', page)
    assert len(pictures) == 8
    assert all(imread(io.BytesIO(base64.b64decode(picture))).std() > 0.01 for picture in pictures)


def test_it_is_the_same_every_time(page, folder, tmp_path, capsys):
    assert main([str(folder), "--to", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text("utf-8") == page
    assert capsys.readouterr().out == f"{tmp_path / 'again.html'}\n"


@pytest.mark.parametrize("words, code, line", [
    (["absent"], 1, "report.py: absent: no such file or folder"),
    (["RUNS", "--methods", "bagde"], 2, "report.py: --methods: there is no run of 'bagde'; did you mean 'badge'?"),
    (["RUNS", "--to", "RUNS"], 2, "report.py: --to is the folder")])
def test_what_is_wrong_is_one_line(folder, capsys, words, code, line):
    assert main([word.replace("RUNS", str(folder)) for word in words]) == code
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == 1


def test_without_any_finished_run_the_page_says_so(tmp_path):
    """It has the table of what is missing and no picture."""
    write_run(tmp_path / "a", [0.4], status="running")
    assert main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<img" not in page and "unfinished" in page and "left out, no method has a finished run" in page
