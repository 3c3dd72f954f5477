"""Faults from outside, on whole runs: signals, a full disk, files that are attacks, two processes. Rows 8 to 12 and 19."""

import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

import train
import trainers.core.trainer
from active.record.results import MEASURED, RunResult
from dassl.utils.errors import UserError
from dassl.utils.progress import BAR
from tests import commands
from tests.active.toy import cut_back
from tests.utils.test_files import full_disk
from trainers.core import job

PROJECT = Path(__file__).parents[1]
QUICK = ["--config-file", "configs/quickstart.yaml", "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "3"]


@pytest.fixture
def start(root, tmp_path, capsys):
    """A function that runs the quickstart in `tmp_path/run` and returns code and standard error."""

    def call(*words: str) -> tuple[int, str]:
        code = train.main([*QUICK, "--root", str(root), "--output-dir", str(tmp_path / "run"), *words])
        return code, capsys.readouterr().err

    return call


def rounds(folder: Path) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in MEASURED}
            for record in json.loads((folder / "results.json").read_text())["rounds"]]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "log.txt"}


def test_sigterm_stops_and_says_how_to_go_on(root, tmp_path):
    """Row 10: exit code 143, no traceback, the log says why, nothing half-written, and the record can be continued."""
    words = [*QUICK, "--root", root, "--output-dir", tmp_path / "run", "ACTIVE.ROUNDS", "100", "ACTIVE.QUERY_SIZE", "3"]
    process = commands.popen([sys.executable, "train.py", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    for line in process.stdout:
        if line.startswith("round 1:"):
            break
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 143 and "stopped by SIGTERM; the same command goes on" in err and "Traceback" not in err
    assert "stopped by SIGTERM" in (tmp_path / "run" / "log.txt").read_text()
    assert not [path for path in (tmp_path / "run").rglob("*.tmp")]
    result = RunResult.read(tmp_path / "run" / "results.json")
    assert len(result.rounds) >= 2 and not result.finished


def test_overwrite_is_left_out_of_the_advice(start, tmp_path, monkeypatch):
    """Row 10: with --overwrite, the same command would start again from the beginning."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "run", interrupted)
    code, err = start("--overwrite")
    assert code == 130 and "the same command without --overwrite goes on" in err


def test_a_full_disk_loses_nothing_that_was_written(start, tmp_path):
    """Row 11: a run that finds no room for its next file stops with path and bytes; what it had stays, and it goes on later."""
    assert start()[0] == 0
    whole = rounds(tmp_path / "run")
    cut_back(tmp_path / "run" / "results.json", 1)
    (tmp_path / "run" / "log.txt").unlink()
    before = (tmp_path / "run" / "results.json").read_bytes()
    with full_disk(len(before) + 500):  # room for the log, not for another round
        code, err = start("VERBOSE", "false", "TRAIN.PRINT_FREQ", "0")
    assert code == 1 and "Traceback" not in err
    assert re.search(rf"cannot write {tmp_path}/run/\S+: .*File too large", err), err
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert start()[0] == 0
    assert rounds(tmp_path / "run") == whole


def test_a_curve_that_finds_no_room_is_drawn_later(start, tmp_path, monkeypatch):
    """Row 11: the run is finished and says so; the same command draws the curve when there is room."""

    def no_room(*_):
        raise UserError("cannot write the curve: no room")

    with monkeypatch.context() as patch:
        patch.setattr(job, "plot_learning_curve", no_room)
        code, err = start("ACTIVE.ROUNDS", "1")
        assert code == 0 and err.endswith("is not drawn: cannot write the curve: no room; the same command draws it later\n")
    assert RunResult.read(tmp_path / "run" / "results.json").finished
    assert not (tmp_path / "run" / "learning_curve.png").exists()
    assert start("ACTIVE.ROUNDS", "1") == (0, "")
    assert (tmp_path / "run" / "learning_curve.png").exists()


def test_a_log_that_finds_no_room_stops_the_run_with_its_path(start, tmp_path):
    """Row 11: the logging module must not print a traceback for every line."""
    assert start("ACTIVE.ROUNDS", "1")[0] == 0
    (tmp_path / "run" / "results.json").unlink()
    with full_disk(10):
        code, err = start("ACTIVE.ROUNDS", "1")
    assert code == 1 and err == f"train.py: cannot write {tmp_path}/run/log.txt: File too large\n"


def test_a_read_only_output_folder_is_named(start, tmp_path):
    """Row 11: nothing is computed or touched."""
    assert start()[0] == 0
    before = files(tmp_path / "run")
    code, err = start("--output-dir", "/proc/run")  # nobody may write there, root included
    assert code == 1 and "cannot write /proc/run" in err and err.count("\n") == 1
    assert files(tmp_path / "run") == before


def test_a_data_root_that_cannot_be_written_is_named_with_the_way_out(start, tmp_path):
    """Row 11: shared data are often read-only; features and hashes may lie elsewhere."""
    code, err = start("CACHE_DIR", "/proc/cache")
    assert code == 1 and err == ("train.py: cannot write /proc/cache: No such file or directory; CACHE_DIR names another "
                                 "folder for features and hashes of the images\n")


def test_two_runs_on_one_empty_cache_both_finish(tmp_path):
    """Rows 8 and 12: if they start together, one extracts and the other waits. Both end with the result of a single run."""
    words = [sys.executable, "train.py", *QUICK, "--root", str(tmp_path / "data"), "--output-dir"]
    both = [commands.popen([*words, str(tmp_path / name)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for name in ("a", "b")]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 2
    assert rounds(tmp_path / "a") == rounds(tmp_path / "b")
    assert len(list((tmp_path / "data" / ".cache").glob("*.safetensors"))) == 2


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def bomb(tmp_path):
    """The bytes of a pickle that makes `tmp_path/mark` when loaded; the test fails if anything loaded it."""
    mark = tmp_path / "mark"
    content = pickle.dumps(Bomb(mark))
    pickle.loads(content)
    assert mark.exists(), "the bomb is a dud"
    mark.unlink()
    yield content
    assert not mark.exists(), "a pickle was loaded"


def test_a_planted_cache_is_made_anew(start, bomb, tmp_path):
    """Row 19: pickles in place of the cached features and hashes are not loaded; the run is the same."""
    words = ("CACHE_DIR", str(tmp_path / "cache"))
    assert start(*words)[0] == 0
    whole = rounds(tmp_path / "run")
    planted = [path for path in (tmp_path / "cache").iterdir() if path.suffix in (".safetensors", ".digests")]
    for path in planted:
        path.write_bytes(bomb)
    assert start("--overwrite", *words)[0] == 0
    assert len(planted) >= 4 and rounds(tmp_path / "run") == whole
    assert all(path.read_bytes() != bomb for path in planted)


@pytest.mark.parametrize("name", ["results.json", "prompts/round_000.safetensors"])
def test_a_planted_record_or_prompt_is_refused(start, bomb, tmp_path, name):
    """Row 19: a pickle in place of what a run continues from is an error with its path."""
    assert start()[0] == 0
    cut_back(tmp_path / "run" / "results.json", 1)
    (tmp_path / "run" / name).write_bytes(bomb)
    code, err = start("ACTIVE.SAMPLER", "coreset")
    assert code == 1 and str(tmp_path / "run" / name) in err and "Traceback" not in err


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".npz"])
@pytest.mark.parametrize("form", ["plain", "torch"])
def test_planted_weights_are_refused(start, bomb, tmp_path, suffix, form):
    """Row 19: pickled weights, plain or in torch's archive, under any name, are an error, and nothing else is used instead."""
    weights = tmp_path / f"weights{suffix}"
    if form == "plain":
        weights.write_bytes(bomb)
    else:
        torch.save({"state_dict": Bomb(tmp_path / "mark")}, weights)
    code, err = start("MODEL.BACKBONE.PRETRAINED", str(weights))
    assert code == 1 and str(weights) in err and "Traceback" not in err


@pytest.mark.parametrize(("words", "name"), [
    (["TRAINER.DESCRIPTIONS.MODE", "AS", "TRAINER.DESCRIPTIONS.FILE"], "descriptions.json"),
    (["DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES"], "classes.yaml"),
    (["DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.SPLIT"], "split.json"),
    (["ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS"], "results.json"),
    (["--config-file"], "config.yaml"),
])
def test_planted_files_that_people_name_are_refused(start, bomb, tmp_path, words, name):
    """Row 19: descriptions, class names, splits, records and configs are text; a pickle in their place is an error."""
    (tmp_path / name).write_bytes(bomb)
    code, err = start(*words, str(tmp_path / name))
    assert code in (1, 2) and name in err and "Traceback" not in err


@pytest.mark.parametrize("name", ["classes.yaml", "config.yaml"])
def test_yaml_that_calls_functions_is_refused(start, tmp_path, name):
    """Row 19: YAML tags that make Python objects are unknown tags here."""
    (tmp_path / name).write_text(f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path "
                                 f"['{tmp_path / 'mark'}']]")
    words = ["--config-file"] if name == "config.yaml" else ["DATASET.NAME", "ImageFolder", "DATASET.IMAGEFOLDER.CLASSES"]
    code, err = start(*words, str(tmp_path / name))
    assert code in (1, 2) and name in err and not (tmp_path / "mark").exists()


def test_no_code_of_the_project_unpickles():
    """Row 19: no pickle, shelve, joblib, marshal, whole torch.load, numpy with pickles or unsafe YAML in the project."""
    forbidden = re.compile(r"\b((?:import|from) (?:pickle|shelve|joblib|marshal|dill)\b|torch\.load\((?!.*weights_only=True)|"
                           r"torch\.jit\.load\(|allow_pickle|read_pickle|yaml\.(?:load|unsafe_load|full_load)\()")
    files = [PROJECT / "train.py", *(path for folder in ("active", "dassl", "datasets", "trainers", "scripts", "benchmarks")
                                     for path in (PROJECT / folder).rglob("*.py"))]
    found = {path.relative_to(PROJECT).as_posix(): forbidden.findall(path.read_text()) for path in files}
    assert {name: hits for name, hits in found.items() if hits} == {}




class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_long_work_shows_itself_on_a_terminal_alone(start, root, tmp_path, monkeypatch, stream):
    """Extraction, hashing, training, selection and prediction show bars on a terminal. Elsewhere not a byte of them appears."""
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setitem(BAR, "delay", 0)
    monkeypatch.setattr(trainers.core.trainer, "tqdm", lambda *a, **k: tqdm(*a, **(k | {"delay": 0})))
    start("CACHE_DIR", str(tmp_path / "cache"))
    bars = ["features of Digits train", "hashing train", "round 0: training", "k-center", "predicting test"]
    assert [bar in shown.getvalue() for bar in bars] == [shown.isatty()] * len(bars)
    assert shown.isatty() or not shown.getvalue()
