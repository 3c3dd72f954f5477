"""The command line of summarize.py: what it prints, and one clear line for what is wrong."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from active.analysis.records import CELLS, FAILED
from scripts.summarize import main
from tests.active.analysis.made import write_run

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    """Two methods with two seeds and three rounds of 1 %. Badge lacks a seed, and the code versions differ."""
    for method, seed in (("random", 1), ("random", 2), ("badge", 1)):
        write_run(tmp_path / f"{method}{seed}", [0.4, 0.5, 0.6 + seed / 10], method=method, seed=seed,
                  certificate={"code": method, "data": "d", "weights": "w"})
    return tmp_path


def test_everything_is_printed(folder, capsys):
    """Results, tests, gaps, and the notes of the records."""
    assert main([str(folder)]) == 0
    text = capsys.readouterr().out
    for part in ("accuracy %\n", "75.0 ± 7.1", "70.0 (1/2)", "against random", "Cells with no or not all results: 1",
                 "never run", "made by 2 versions of the code"):
        assert part in text


def test_csv_is_one_table(folder, capsys):
    """It can be parsed back with all digits. Notes go to standard error."""
    assert main([str(folder), "--format", "csv", "--columns", "1%", "3%"]) == 0
    captured = capsys.readouterr()
    table = pd.read_csv(io.StringIO(captured.out))
    row = table[(table.method == "random") & (table.column == "3%")].iloc[0]
    assert row["mean"] == pytest.approx(0.75) and row["n"] == 2 and "2 versions of the code" in captured.err


@pytest.mark.parametrize("kind, column", [("tests", "wilcoxon_holm"), ("missing", "reason")])
def test_csv_holds_the_kind_that_was_asked_for(folder, capsys, kind, column):
    assert main([str(folder), "--format", "csv", "--tables", kind]) == 0
    assert column in pd.read_csv(io.StringIO(capsys.readouterr().out))


@pytest.mark.parametrize("style, sign", [("markdown", "| random"), ("latex", r"\toprule")])
def test_other_formats(folder, capsys, style, sign):
    assert main([str(folder), "--format", style]) == 0
    assert sign in capsys.readouterr().out


def test_other_metrics_are_named(folder, capsys):
    assert main([str(folder), "--metric", "ece"]) == 0
    assert "ECE %" in capsys.readouterr().out


def test_a_paper_is_printed_beside(tmp_path, capsys):
    write_run(tmp_path, [0.4], dataset="DTD", backbone="ViT-B/16")
    assert main([str(tmp_path), "--paper", "cec_table1"]) == 0
    assert "cec_table1: CoOp, ViT-B/16" in (text := capsys.readouterr().out) and "in sd: (ours - published)" in text


@pytest.mark.parametrize("words, message, code", [
    (["--columns", "2"], "--columns has '2'", 2), (["--columns", "rounds", "2%"], "--columns has 'rounds'", 2),
    (["--columns", "0%"], "--columns has '0%'", 2), (["--columns", "7%"], "the budget 7 %; there are 1, 2, 3 %", 1),
    (["--paper", "cec_tabel1"], "did you mean 'cec_table1'", 2), (["--paper", "cec_table1"], "the records have CoOp", 1),
    (["--paper", "cec_table1", "--metric", "ece"], "leave out --metric", 2),
    (["--metric", "acc"], "no run has measured 'acc'; known: accuracy, ece, macro_f1", 2),
    (["--against", "rando"], "did you mean 'random'", 1), (["--format", "csv", "--tables", "tests", "missing"], "one kind", 2),
    (["--colums", "2%"], "unrecognized arguments", 2)])
def test_what_is_wrong_is_one_line(folder, capsys, words, message, code):
    """Exit code 2 for the command line, 1 for the records."""
    assert main([str(folder), *words]) == code
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_a_wrong_folder_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "absent")]) == 1
    assert capsys.readouterr().err == f"summarize.py: {tmp_path / 'absent'}: no such file or folder\n"


@pytest.mark.starts
def test_it_runs_from_anywhere(folder, tmp_path):
    """As a script, from a folder that is not the project's."""
    done = subprocess.run([sys.executable, "-W", "error", PROJECT / "scripts" / "summarize.py", folder], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0 and "area" in done.stdout and not done.stderr


@pytest.mark.parametrize("words, code, message", [([], 0, "no such weights"), (["--paper", "cec_table1"], 0, "no such weights"),
                                                  (["--columns", "1%"], 1, "no round has the budget 1 %; there are none")])
def test_a_sweep_of_which_everything_failed_is_listed(tmp_path, capsys, words, code, message):
    """Without any record, the reasons are printed, whatever else was asked for."""
    keys = {"dataset": "DTD", "learner": "CoOp", "backbone": "ViT-B/16", "query_size": "1%", "method": "random", "seed": 1}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FAILED).write_text(json.dumps({"error": "no such weights"}))
    (tmp_path / CELLS).write_text(json.dumps({"cells": [keys | {"folder": "a"}]}))
    assert main([str(tmp_path), *words]) == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err
