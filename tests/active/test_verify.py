"""`python -m active.verify`: equal, different, and what cannot be repeated."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

import active.verify
import train
from active.record.results import RunResult, query_hash
from active.verify import differences, main
from dassl.utils.files import sha256_of
from tests import commands
from tests.active.toy import edit

PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def forks(monkeypatch):
    """Make repetitions forks where no other number of threads is needed."""
    monkeypatch.setattr(active.verify.subprocess, "run", commands.run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The record of a finished run of two rounds."""
    folder = tmp_path_factory.mktemp("verify")
    assert train.main(["--config-file", str(PROJECT / "configs" / "quickstart.yaml"), "--root", str(folder / "data"),
                       "--output-dir", str(folder / "run"), "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "3"]) == 0
    return folder / "run" / "results.json"


@pytest.fixture
def edited(finished, tmp_path):
    """A function that writes the record with a change and returns its path."""

    def write(change) -> Path:
        edit(finished, change, tmp_path / "results.json")
        return tmp_path / "results.json"

    return write


def other_pick(content: dict) -> None:
    """Swap two picks of round 1, with a hash that fits."""
    record = content["rounds"][1]
    record["queried"][2:4] = record["queried"][3:1:-1]
    record["query_hash"] = query_hash(record["queried"])


def test_a_run_repeats_exactly_also_from_scratch(finished, capsys):
    """Another process gets the same numbers from newly extracted features. The run itself is not touched."""
    before = {path: path.stat().st_mtime_ns for path in finished.parent.parent.rglob("*")}
    assert main([str(finished), "--fresh"]) == 0
    assert capsys.readouterr().out == "equal: 2 rounds, all picks, labels and metrics\n"
    assert {path: path.stat().st_mtime_ns for path in finished.parent.parent.rglob("*")} == before


def test_a_pick_that_does_not_come_again_is_named(finished, edited, monkeypatch, capsys):
    """The first difference is reported with its round, field and both values. The exit code is 1."""
    monkeypatch.setattr(active.verify, "run_again", lambda *_, **__: RunResult.read(finished))
    assert main([str(edited(other_pick))]) == 1
    out = capsys.readouterr().out
    assert out.startswith("different, first in round 1: queried[2]: 'digits/images/")


def test_differences_come_in_the_order_of_the_rounds(finished):
    """Data set and zero-shot come first, then the rounds. Times do not count. A missing round is a difference."""
    old = RunResult.read(finished)
    assert list(differences(old, old)) == []
    new = copy.deepcopy(old)
    new.zero_shot["accuracy"] = 0.5
    for record in new.rounds:
        object.__setattr__(record, "seconds", {"fit": 99.0})
        record.metrics["ece"] = 2.0
    found = [line.split(":")[0] for line in differences(old, new)]
    assert found == ["zero_shot.accuracy", "in round 0", "in round 1"]
    new = copy.deepcopy(old)
    del new.rounds[1]
    assert list(differences(old, new)) == ["rounds: 2 is now 1"]


def test_other_code_is_said_beside_the_verdict(finished, monkeypatch, capsys):
    """Another version with equal numbers counts as equal, but a line says so."""
    other = RunResult.read(finished)
    other.certificate["code"] = "0"
    monkeypatch.setattr(active.verify, "run_again", lambda *_, **__: other)
    assert main([str(finished)]) == 0
    assert capsys.readouterr().out == "equal: 2 rounds, all picks, labels and metrics (now with other code than recorded)\n"
    other.environment |= {"torch": "0", "commit": "0"}
    assert main([str(finished)]) == 0
    assert "(now with other code, torch than recorded)" in capsys.readouterr().out


@pytest.mark.starts
def test_a_run_is_repeated_with_the_recorded_number_of_threads(finished, tmp_path, capsys):
    """Float sums depend on the order of additions. If the number is unavailable, or changed in the run, a line says so."""
    words = ["--config-file", "configs/quickstart.yaml", "--root", finished.parents[1] / "data", "--output-dir",
             tmp_path / "run", "ACTIVE.ROUNDS", "1", "OPTIM.MAX_EPOCH", "1", "CPU_THREADS", "0"]
    code = "import runpy, torch; torch.set_num_threads(2); runpy.run_path('train.py', run_name='__main__')"
    commands.run([sys.executable, "-c", code, *words], check=True, capture_output=True)
    assert RunResult.read(tmp_path / "run" / "results.json").environment["threads"] == "2"
    assert main([str(tmp_path / "run" / "results.json")]) == 0
    assert capsys.readouterr().out == "equal: 1 rounds, all picks, labels and metrics\n"


def test_a_run_that_was_continued_with_other_threads_says_so(finished, edited, monkeypatch, capsys):
    """No single number of threads repeats it."""
    monkeypatch.setattr(active.verify, "run_again", lambda *_, **__: RunResult.read(finished))
    assert main([str(edited(lambda content: content["environment"].update(threads="1 and 2")))]) == 0
    assert "(now with other threads than recorded)" in capsys.readouterr().out


def test_a_run_that_cannot_be_repeated_says_why(finished, tmp_path, capsys):
    """What `train.py` reports about a missing data root is passed on, with exit code 1."""
    (tmp_path / "file").touch()
    assert main([str(finished), "--root", str(tmp_path / "file")]) == 1
    err = capsys.readouterr().err
    assert "could not be repeated; it ended with exit code 1" in err and str(tmp_path / "file") in err


def test_plugins_of_a_record_are_run_only_where_that_is_allowed(edited, monkeypatch, capsys):
    """A record may come from anybody, and a plug-in is code."""
    seen = []
    monkeypatch.setattr(active.verify, "run_again", lambda old, *_, **__: seen.append(old) or old)
    path = edited(lambda content: (content["config"]["ACTIVE"].update(PLUGINS=["theirs.py"]), content["certificate"].clear()))
    assert main([str(path)]) == 1 and not seen
    assert "'theirs.py'; look at them, and allow them by --plugins" in capsys.readouterr().err
    assert main([str(path), "--plugins"]) == 0 and seen


def test_ctrl_c_stops_without_a_trace(finished, monkeypatch, capsys):
    """Row 10: the temporary folder goes, and one line says so."""
    folders = []

    def interrupted(_old, folder, *_, **__):
        folders.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(active.verify, "run_again", interrupted)
    assert main([str(finished)]) == 130
    assert "stopped by Ctrl-C" in capsys.readouterr().err and not folders[0].exists()


def test_an_unfinished_or_edited_record_is_not_run(edited, monkeypatch, capsys):
    """A running record, and one whose picks do not match their hash, are refused at once."""
    monkeypatch.setattr(active.verify, "run_again", lambda *_, **__: pytest.fail("it was run"))
    assert main([str(edited(lambda content: content.update(status="running")))]) == 1
    assert "not finished" in capsys.readouterr().err
    assert main([str(edited(lambda content: content["rounds"][0]["queried"].reverse()))]) == 1
    assert "do not match their hash" in capsys.readouterr().err


@pytest.mark.parametrize("newer", [["template"], ["template", "checksum"]])
def test_a_record_whose_prompts_said_less_is_equal(finished, tmp_path, capsys, newer):
    """Files of earlier code have less metadata, but the same numbers."""
    folder = shutil.copytree(finished.parent, tmp_path / "run")

    def former(content: dict) -> None:
        for record in content["rounds"]:
            for name in record["files"]:
                with safe_open(folder / name, "pt") as file:
                    about, state = json.loads(file.metadata()["belongs_to"]), {"ctx": file.get_tensor("ctx")}
                assert all(about.pop(name) for name in newer)
                save_file(state, folder / name, metadata={"belongs_to": json.dumps(about)})
                record["files"][name] = sha256_of(folder / name)

    edit(folder / "results.json", former)
    assert main([str(folder / "results.json")]) == 0
    assert capsys.readouterr().out == "equal: 2 rounds, all picks, labels and metrics\n"


def test_a_record_of_before_a_parameter_is_repeated_with_what_it_meant(finished, edited, monkeypatch):
    """Its default may have changed: `gcnal` had one space."""
    seen = []

    def called(words, **_):
        seen.append(yaml.safe_load(Path(words[words.index("--config-file") + 1]).read_text()))
        return subprocess.CompletedProcess(words, 1, stderr="that is all")

    monkeypatch.setattr(active.verify.subprocess, "run", called)

    def older(content: dict) -> None:
        content["config"]["ACTIVE"] |= {"SAMPLER": "gcnal", "GCNAL": {"VARIANT": "core"}}
        content["certificate"] = {}

    assert main([str(edited(older))]) == 1
    assert (seen[0]["ACTIVE"]["GCNAL"]["SPACE"], seen[0]["ACTIVE"]["GCNAL"]["VARIANT"]) == ("hidden", "core")
