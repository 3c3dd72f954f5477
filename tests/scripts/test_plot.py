"""`scripts/plot.py`: both formats, the same every time, and one line for what is wrong."""

import pytest

from scripts.plot import main
from tests.active.analysis.made import write_run


@pytest.fixture
def folder(tmp_path):
    for method in ("badge", "random"):
        write_run(tmp_path / "runs" / method, [0.4, 0.5], method=method)
    return tmp_path / "runs"


def test_all_figures_are_written_beside_the_runs_and_the_same_every_time(folder, capsys):
    """Each PNG and PDF is named on standard output. Each figure that is left out has a line on standard error."""
    assert main([str(folder)]) == 0
    written = {path: path.read_bytes() for path in (folder / "figures").iterdir()}
    kinds = ("curves", "ranks", "wins", "balance")
    assert {path.name for path in written} == {f"{kind}_CoOp_tiny_1pct.{end}" for kind in kinds for end in ("png", "pdf")}
    out, err = capsys.readouterr()
    assert sorted(out.split()) == sorted(map(str, written)) and err.count("\n") == 1 and "left out" in err
    main([str(folder)])
    assert {path: path.read_bytes() for path in (folder / "figures").iterdir()} == written


def test_tables_whose_names_are_alike_do_not_share_a_file(tmp_path):
    """For backbones a/b and a-b, the second file name gets a number."""
    for backbone in ("a/b", "a-b"):
        write_run(tmp_path / "runs" / backbone, [0.4], backbone=backbone)
    assert main([str(tmp_path / "runs"), "--to", str(tmp_path / "here")]) == 0
    names = {path.name for path in (tmp_path / "here").glob("curves*.png")}
    assert names == {"curves_CoOp_a-b_1pct.png", "curves_CoOp_a-b_1pct-2.png"}


@pytest.mark.parametrize("words, code, line", [
    (["absent"], 1, "plot.py: absent: no such file or folder"),
    (["RUNS", "--methods", "bagde"], 2, "plot.py: --methods: there is no run of 'bagde'; did you mean 'badge'?"),
    (["RUNS", "--metric", "speed"], 2, "plot.py: --metric: no run has measured 'speed'; known: accuracy"),
    (["RUNS", "--to", "RUNS/badge/results.json"], 1, "plot.py: cannot write")])
def test_what_is_wrong_is_one_line(folder, capsys, words, code, line):
    assert main([word.replace("RUNS", str(folder)) for word in words]) == code
    err = capsys.readouterr().err
    assert err.startswith(line) and err.count("\n") == 1


def test_nothing_drawn_is_a_failure_with_the_reasons(tmp_path, capsys):
    """Where no run has finished, each figure has its line."""
    write_run(tmp_path / "a", [0.4], status="running")
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[0] == ("Test accuracy over paid labels: left out, no method has a finished run")
