"""The fuzzer, and half a minute of its inputs."""

import json
import re
import sys
from pathlib import Path
from random import Random

import pytest

from scripts.fuzz import main
from scripts.fuzzing.inputs import KINDS, Place, make_photos
from tests import commands

N_INPUTS = 7 * len(KINDS)
PLANTED = {
    "1 / 0": "a traceback", "[1][len(words)]": "a traceback", "70": "exit code 70", "os.abort()": "killed by SIGABRT",
    "[0 for _ in iter(int, 1)]": "hangs", "os.open(os.mkfifo('p') or 'p', os.O_RDONLY)": "hangs", "sys.exit(5)": "exit code 5",
    "0": None, "3": None, "sys.exit(2)": None}
PLANT = """
import os, sys
sys.path.insert(0, ".")
import train
from scripts.fuzz import Fuzzer
with Fuzzer() as fuzzer:
    assert fuzzer.fault("descriptions", 1) is None
    fuzzer.cpu_seconds = 1
    for planted in PLANTED:
        train.main = eval(f"lambda words: {planted}")
        fault = fuzzer.fault("descriptions", 1)
        assert (fault and fault.what) == PLANTED[planted], (planted, str(fault))
        assert fault is None or str(fault).startswith(f"descriptions:1 {fault.what}")
"""


def test_every_odd_input_ends_in_one_of_the_codes_without_a_trace_or_a_hang():
    """Row 14: as many inputs as take about half a minute of a core, of every kind, always the same ones."""
    words = [sys.executable, "scripts/fuzz.py", "--inputs", str(N_INPUTS), "--seed", "12"]
    done = commands.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.fullmatch(rf"{N_INPUTS} inputs ended, \d+ with 0, \d+ with 1, \d+ with 2, \d+ with 3; 0 faults\n", done.stdout)


def test_planted_faults_are_found():
    """A traceback, an undefined exit code, a crash, a busy hang and a silent hang are found; a sound command is not."""
    done = commands.run([sys.executable, "-c", f"PLANTED = {PLANTED}\n{PLANT}"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_a_function_of_its_kind_and_its_seed(tmp_path, kind):
    """What --only repeats is what was found; another seed gives another input."""

    def made(folder: Path, seed: int) -> tuple:
        place = Place(folder)
        make_photos(folder)
        for file in (place.record, *(folder / name for name in (
                "run/prompts/a.safetensors", "asked/queries/round_000.csv", "photos/.cache/a", "photos/.cache/b",
                "photos/.cache/c"))):
            file.parent.mkdir(parents=True, exist_ok=True)
            parts = ("rounds", "dataset", "zero_shot", "environment", "certificate", "config", "checksum")
            file.write_text(json.dumps({part: [1, {"a": "b"}] for part in parts}))
        (folder / "asked" / "queries" / "round_000_tasks.json").write_text('[{"data": {"path": "a.png"}}]')
        name, words = KINDS[kind](Random(f"{kind} {seed}"), place)
        files = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        return name, words, files

    assert (first := made(tmp_path / "a", 1)) == made(tmp_path / "b", 1)
    assert any(first != made(tmp_path / str(seed), seed) for seed in range(2, 4))


@pytest.mark.parametrize(("words", "message"), [
    (["--only", "lin:1"], "unknown kind 'lin'; did you mean 'line'?"), (["--only", "line"], "must be KIND:SEED"),
    (["--kinds", "x"], "unknown kind 'x'"), (["--second", "1"], "--second")])
def test_a_wrong_command_line_is_one_line(capsys, words, message):
    """The exit code is 2, before anything is made."""
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
