"""Whole sweeps of real runs: killed, failed, on Ray and as jobs; nothing is lost and nothing runs twice."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

import train
from active.analysis.records import load_records
from scripts import sweep
from scripts.experiments import backends, cell, cluster, local
from tests import commands
from tests.active.analysis.made import write_run

PROJECT = Path(__file__).parents[2]
SMALL = {"OUTPUT_DIR": "set by every test", "CONFIG_FILES": ["configs/quickstart.yaml"], "DATASETS": ["Digits"],
         "LEARNERS": ["CoOp"], "BACKBONES": ["tiny_clip"], "SAMPLERS": ["random", "coreset"], "SEEDS": [1, 2],
         "OVERRIDES": {"ACTIVE": {"ROUNDS": 3}, "OPTIM": {"MAX_EPOCH": 3}}}
MEASURED = ["seconds", "peak_memory_mb"]


def words(tmp_path: Path, root: Path, *further: str, name: str = "runs", **changes) -> list[str]:
    """Return the command line of a sweep over a small experiment."""
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(SMALL | changes))
    return ["--config-file", str(file), "--output-dir", str(tmp_path / name), "--root", str(root), *further]


@pytest.fixture
def forks(monkeypatch):
    """Make the workers of sweeps in this process forks. A fork cannot have another number of threads than this process."""
    monkeypatch.setattr(local.subprocess, "Popen", commands.popen)
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: {0}, raising=False)
    monkeypatch.setattr(local.os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root) -> Path:
    """The folder of the experiment's runs, each run by itself, without the sweep."""
    folder = tmp_path_factory.mktemp("whole")
    pairs = [("DATASET.ROOT", str(root))]
    _, cells = sweep.read_experiment(words(folder, root)[1], output=str(folder / "runs"), pairs=pairs)
    for one in cells:
        assert train.main(list(one.words)) == 0
    return folder / "runs"


@pytest.fixture
def whole(finished):
    """The records of these runs."""
    return load_records([finished])


def same(records, whole) -> bool:
    """Tell whether two sets of records hold the same rounds, but for times and memory."""
    assert list(records.runs.status) == ["done"] * len(whole.runs)
    ours, theirs = (found.rounds.drop(columns=MEASURED).reset_index(drop=True) for found in (records, whole))
    return ours.equals(theirs)


def times_of_round(folder: Path, round: int) -> list[int]:
    """Return how often each cell of a sweep has finished a round, by its log."""
    return [len(re.findall(rf"active\.loop: round {round}: ", path.read_text())) for path in folder.rglob("log.txt")]


def wait_for_first_round(folder: Path, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 240
    while not any(['"query_hash"' in path.read_text() for path in list(folder.rglob("results.json"))]):
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.05)


@pytest.mark.starts
def test_a_sweep_killed_and_started_again_ends_with_the_same_tables(tmp_path, root, whole, capsys, forks):
    """Row 9: SIGKILL of the sweep in the middle; its worker stops too; the same command ends with every cell, each round once.

    The records equal those of single runs bit for bit, although the runs of a worker share CLIP and features. A third call
    finds nothing to do.
    """
    command = words(tmp_path, root, "--workers", "1")
    process = commands.popen([sys.executable, "scripts/sweep.py", *command], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    wait_for_first_round(tmp_path / "runs", process)
    process.kill()
    process.wait()
    assert sweep.main(command) == 0
    assert "4 done of 4 cells" in capsys.readouterr().out
    assert same(load_records([tmp_path / "runs"]), whole)
    times = [times_of_round(tmp_path / "runs", round) for round in range(3)]
    assert max(map(max, times)) == 1 and sum(map(sum, times)) >= 11  # one may be stopped between a round's record and its line
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("results.json")}
    assert sweep.main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_sweep_of_finished_cells_imports_nothing_that_does_work(tmp_path, root, finished):
    """It takes only as long as reading configs and records."""
    code = "import sys; from scripts import sweep; sys.exit(sweep.main(sys.argv[1:]) or 10 * ('torch' in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code, *words(tmp_path, root, name=str(finished))], cwd=PROJECT, text=True,
                           capture_output=True)
    assert found.returncode == 0 and "4 done of 4 cells" in found.stdout


def test_a_failing_cell_stops_no_other(tmp_path, root, whole, capsys, forks):
    """A learning rate that blows up, a config that cannot be, a folder that holds another run: three reasons, the rest done.

    What failed for a reason of its config is not run again before --retry-failed; its failure stays on record.
    """
    samplers = ["random", {"hot": {"ACTIVE": {"SAMPLER": "random"}, "OPTIM": {"LR": 1e6, "WEIGHT_DECAY": 1e6}}},
                {"wrong": {"ACTIVE": {"SAMPLER": "randon"}}}, {"taken": {"ACTIVE": {"SAMPLER": "random"}}}]
    command = words(tmp_path, root, SAMPLERS=samplers, SEEDS=[1])
    runs = tmp_path / "runs" / "Digits" / "CoOp" / "tiny_clip"
    write_run(runs / "taken" / "seed1", [0.5])
    assert sweep.main([*command, "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "1 done, 2 refused, 1 failed of 4 cells" in out
    reasons = "did you mean 'random'", "run of another config", "hold NaN or Inf"
    assert all(reason in " ".join(out.split()) for reason in reasons)
    failed = json.loads((runs / "hot" / "seed1" / "failed.json").read_text())
    assert failed["kind"] == cell.REFUSED and "hold NaN or Inf" in failed["error"]
    log = runs / "hot" / "seed1" / "log.txt"
    before = log.read_bytes()
    assert sweep.main(command) == 1 and log.read_bytes() == before
    assert sweep.main([*command, "--retry-failed", "--workers", "1"]) == 1 and len(log.read_bytes()) > len(before)
    shutil.rmtree(runs / "taken")
    found = load_records([tmp_path / "runs"]).runs
    assert dict(zip(found.method, found.status, strict=True)) == {"random": "done", "hot": "failed", "wrong": "failed",
                                                                  "taken": "missing"}


def test_cells_that_tables_could_not_tell_apart_are_refused(tmp_path, root, capsys):
    """Two entries of one data set have one name in records, so the second is an error before anything is run."""
    twins = ["Digits", {"digits_again": {"DATASET": {"NAME": "Digits"}}}]
    assert sweep.main(words(tmp_path, root, "--workers", "1", DATASETS=twins, SAMPLERS=[{"bad": {"OPTIM": {"LRR": 1}}}])) == 1
    assert sweep.main(words(tmp_path, root, "--workers", "1", DATASETS=twins, SAMPLERS=["randon"], name="b")) == 1
    assert "would be one cell in tables" in " ".join(capsys.readouterr().out.split())


@pytest.mark.starts
def test_ctrl_c_stops_the_workers_and_says_how_to_go_on(tmp_path, root):
    """Row 10: the exit code is 130, the number of finished cells is printed, and no process is left at work."""
    process = commands.popen([sys.executable, "scripts/sweep.py", *words(tmp_path, root, "--workers", "1")],
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_first_round(tmp_path / "runs", process)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=240)[1]
    assert process.returncode == 130 and "the same command goes on" in error and "unfinished" in error


@pytest.mark.starts
def test_ray_finishes_a_sweep_although_a_worker_is_killed(tmp_path, root, whole, capsys, monkeypatch):
    """Actors on a local cluster, one a CPU; one is killed in the middle of a cell. No round is finished twice."""
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)  # actors work in the sweep's folder: how to tell them from those of other clusters
    killed = []

    def kill_one() -> None:
        wait_for_first_round(tmp_path / "runs")
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or b"ray::_Runner" not in (folder / "cmdline").read_bytes():
                continue
            if os.readlink(folder / "cwd") == str(tmp_path):
                killed.append(int(folder.name))
                return os.kill(int(folder.name), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        assert sweep.main([*words(tmp_path, root), "--backend", "ray", "--workers", "20"]) == 0
    finally:
        ray.shutdown()
        killer.join()
    assert killed and "4 done of 4 cells" in capsys.readouterr().out
    assert same(load_records([tmp_path / "runs"]), whole)
    assert all(times <= 1 for round in range(3) for times in times_of_round(tmp_path / "runs", round))


@pytest.mark.starts
def test_submitit_runs_each_cell_as_a_job(tmp_path, root, whole, monkeypatch):
    """submitit's local executor stands in for Slurm. Jobs begin in a folder from which the project cannot be imported."""
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backends, "slurm_workers", partial(cluster.slurm_workers, cluster="local"))
    command = words(tmp_path, root, "--backend", "slurm", "--workers", "2", "--slurm", "timeout_min=10", SEEDS=[1])
    assert sweep.main(command) == 0
    assert same(load_records([tmp_path / "runs"]), whole.of(seed=1))


@pytest.mark.parametrize(("backend", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_its_install_command(tmp_path, root, capsys, monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert sweep.main(words(tmp_path, root, "--backend", backend)) == 1
    assert f"{package} is not installed; pip install -r requirements-cluster.txt" in capsys.readouterr().err


@pytest.mark.parametrize(("further", "message"), [
    (["--workers", "0"], "'0' is not a whole number from 1 to 1024"),
    (["--workers", "1000000000"], "not a whole number from 1 to 1024"), (["--backend", "rey"], "invalid choice"),
    (["--worker", "2"], "did you mean '--workers'"),
    (["optim.lr", "1"], "neither a flag nor a KEY VALUE"), (["--backend", "slurm", "--slurm", "partitoin=gpu"], "partitoin"),
])
def test_a_wrong_command_line_is_one_line(tmp_path, root, capsys, further, message):
    """The exit code is 2 (1 if Slurm is missing), before any run."""
    assert sweep.main(words(tmp_path, root, *further)) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("sweep.py: ") and error.count("\n") == 1 and (message in error or "Slurm" in error)
    assert not list((tmp_path / "runs").rglob("results.json"))
