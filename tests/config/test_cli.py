"""Flags and KEY VALUE pairs on one command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dassl.config.cli import Parser
from dassl.utils.errors import ConfigError
from tests.scripts.experiments.made import write_run

PROJECT = Path(__file__).parents[2]


def parser() -> Parser:
    flags = Parser(prog="run")
    flags.add_argument("--config-file", nargs="+", action="extend", default=[])
    flags.add_argument("--root")
    flags.add_argument("--seed")
    flags.add_argument("--list", action="store_true")
    return flags


@pytest.mark.parametrize("line", [
    "OPTIM.LR 1 SEED -1 --config-file a.yaml b.yaml --root data --list",
    "--config-file a.yaml b.yaml OPTIM.LR 1 --root data SEED -1 --list",
    "--list --root data --config-file a.yaml b.yaml OPTIM.LR 1 SEED -1",
    "OPTIM.LR 1 --config-file a.yaml SEED -1 --list --config-file b.yaml --root=data",
])
def test_pairs_may_stand_before_between_and_after_flags(line):
    """Wherever the pairs stand, flags and pairs are the same, and the pairs keep their order."""
    flags, pairs = parser().parse(line.split())
    assert vars(flags) == {"config_file": ["a.yaml", "b.yaml"], "root": "data", "seed": None, "list": True}
    assert pairs == [("OPTIM.LR", "1"), ("SEED", "-1")]


@pytest.mark.parametrize(("line", "flag", "value"), [
    ("--root DATA SEED 1", "root", "DATA"),
    ("--root=DATA SEED 1", "root", "DATA"),
    ("--seed -1 SEED 1", "seed", "-1"),
])
def test_the_value_of_a_flag_is_no_key(line, flag, value):
    """An upper-case or negative word right after a flag that takes one value belongs to that flag."""
    flags, pairs = parser().parse(line.split())
    assert getattr(flags, flag) == value
    assert pairs == [("SEED", "1")]


@pytest.mark.parametrize(("words", "pair"), [
    (["TRAINER.NAME", "COOP"], ("TRAINER.NAME", "COOP")),
    (["INPUT.SIZE", "(64, 32)"], ("INPUT.SIZE", "(64, 32)")),
    (["CACHE_DIR", ""], ("CACHE_DIR", "")),
    (["TRAINER.COOP.N_CTX", "4"], ("TRAINER.COOP.N_CTX", "4")),
])
def test_the_word_after_a_key_is_its_value(words, pair):
    """Upper-case words, words with blanks and empty words are values as they are."""
    assert parser().parse(words)[1] == [pair]


@pytest.mark.parametrize(("line", "parts"), [
    ("OPTIM.LR", ["OPTIM.LR has no value"]),
    ("--list OPTIM.LR --seed 1", ["OPTIM.LR has no value"]),
    ("--seed", ["--seed", "expected one argument"]),
    ("--seed --root DATA", ["--seed", "expected one argument"]),
    ("--config-file OPTIM.LR 1", ["--config-file", "expected at least one argument"]),
    ("OPTIM.LR 1 --sed 2", ["unknown flag --sed", "'--seed'"]),
    ("--conf a.yaml", ["unknown flag --conf", "'--config-file'"]),
    ("--sed=2", ["unknown flag --sed=2", "'--seed'"]),
    ("OPTIM.LR 1 2", ["'2'", "KEY VALUE"]),
    ("optim.lr 1", ["'optim.lr'", "upper case"]),
])
def test_a_wrong_command_line_is_one_line(line, parts):
    """The line names the word that is wrong and the nearest flag (row 14 of the faults table)."""
    with pytest.raises(ConfigError) as caught:
        parser().parse(line.split())
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize("words", [
    ["scripts/sweep.py", "--list", "--config-file", "configs/experiments/tiny.yaml"], ["scripts/summarize.py", "RUNS"]])
def test_a_reader_that_has_gone_ends_a_command_quietly(tmp_path, words):
    """As `... | head` does: no traceback, neither of the command nor of Python's last flush."""
    write_run(tmp_path / "run", [0.4])
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, *(word.replace("RUNS", str(tmp_path)) for word in words)], stdout=write,
                          stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
