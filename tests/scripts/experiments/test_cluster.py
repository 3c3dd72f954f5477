"""Workers elsewhere: what they take of a Ray cluster's nodes, and what becomes of jobs and actors that go wrong."""

import logging
import os
import threading
import time
from types import SimpleNamespace

import pytest

from dassl.utils.errors import UserError
from scripts.experiments import cluster
from scripts.experiments.cell import DONE, Outcome
from scripts.experiments.cluster import RayWorker, SlurmWorker, shares
from scripts.experiments.schedule import WorkerDied
from tests.scripts.experiments.stopping import check_stopped_while_starting

HEAD, CARD = {"CPU": 64.0, "memory": 1e11}, {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(("nodes", "asked", "n", "cpus", "gpus"), [
    ([{"CPU": 8}], None, 8, 1, None),
    ([{"CPU": 8}], 3, 3, 2, None),
    ([{"CPU": 8}], 99, 8, 1, None),
    ([{"CPU": 3}, {"CPU": 3}], 3, 3, 1, None),  # two CPUs each would leave the third without a place
    ([{"CPU": 3}, {"CPU": 3}], 2, 2, 3, None),
    ([{"CPU": 16, "GPU": 4}], None, 4, 4, 1),
    ([HEAD, CARD, CARD], None, 2, 8, 1),  # 40 of the 80 CPUs are nowhere beside a GPU
    ([HEAD, CARD, CARD], 3, 3, 4, 0.5),  # two thirds of a GPU would leave the third without a place
    ([HEAD, CARD], 6, 6, 1, 0.1666),  # Ray counts in ten thousandths: 0.1667 six times is more than a GPU
    ([HEAD, {"CPU": 2, "GPU": 1}], 5, 2, 1, 0.5),
    ([{"CPU": 4, "GPU": 4}], 8, 4, 1, 1),  # no more than CPUs, so each has a card of its own
    ([{"CPU": 8, "GPU": 4}], 16, 8, 1, 0.5),
    ([{}, {"CPU": 2}], None, 2, 1, None),
])
def test_each_worker_s_share_fits_on_a_node(nodes, asked, n, cpus, gpus):
    assert shares(nodes, asked) == (n, {"num_cpus": cpus} | ({} if gpus is None else {"num_gpus": gpus}))


@pytest.mark.parametrize(("nodes", "words"), [([HEAD, {"GPU": 1}], "a CPU beside its GPU"), ([{"memory": 1}], "a CPU for")])
def test_a_cluster_without_room_for_any_worker_is_said(nodes, words):
    with pytest.raises(UserError, match=words):
        shares(nodes, None)


class Job:
    """A job of submitit that ends when it is cancelled, and is in no account."""

    job_id, state = "7", "UNKNOWN"

    def __init__(self):
        self.cancelled = threading.Event()

    def done(self):
        return self.cancelled.is_set()

    def cancel(self, check=True):
        self.cancelled.set()

    def result(self):
        raise RuntimeError("Job (task=0) failed with trace:\n---\nTraceback (most recent call last):\n  File x\n"
                           "torch.cuda.OutOfMemoryError: no room\n---\nYou can check full logs with 'job.stderr(0)'")


def slurm_worker(submit) -> SlurmWorker:
    return SlurmWorker(SimpleNamespace(submit=submit), threading.Event())


def refused(*_):
    raise RuntimeError("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: limit")


def test_a_slurm_that_takes_no_job_ends_the_sweep():
    """No cell is marked as failed for what is wrong with the command or the account."""
    with pytest.raises(UserError, match=r"^Slurm takes no job: sbatch: error: Batch job submission failed: limit$"):
        slurm_worker(refused).run(["words"], wait=False)


def test_a_job_beyond_slurm_s_limit_waits_until_it_is_taken(monkeypatch, caplog):
    """Another worker's job was taken. A worker that is stopped meanwhile ends."""
    monkeypatch.setattr(cluster, "POLL", 0.01)
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    answers, job = [refused, refused, lambda *_: job], Job()
    job.cancel()
    worker = slurm_worker(lambda *_: answers.pop(0)())
    worker._accepted.set()
    with pytest.raises(WorkerDied, match="no room"):  # it was taken, and ended
        worker.run(["words"], wait=False)
    assert not answers and caplog.text.count("takes no further job now") == 2
    worker = slurm_worker(refused)
    worker._accepted.set()
    threading.Timer(0.1, worker.stop).start()
    with pytest.raises(WorkerDied, match="stopped"):
        worker.run(["words"], wait=False)


def test_a_job_that_is_submitted_while_the_sweep_stops_is_cancelled(monkeypatch):
    """As sbatch may take seconds. No other job is submitted afterwards."""
    monkeypatch.setattr(cluster, "POLL", 0.01)
    begun, job = threading.Event(), Job()

    def submit(*_):
        begun.set()
        time.sleep(0.2)
        return job

    check_stopped_while_starting(slurm_worker(submit), begun)
    assert job.cancelled.is_set()


def test_the_reason_of_a_job_s_death_is_its_error():
    job = Job()
    job.cancel()
    with pytest.raises(WorkerDied, match=r"^job 7: torch.cuda.OutOfMemoryError: no room$"):
        slurm_worker(lambda *_: job).run(["words"], wait=False)


@pytest.mark.skipif(os.name != "posix", reason="the queue is a shell script")
@pytest.mark.parametrize(("looks", "is_dead"), [
    ("echo 7 RUNNING", False), ("echo slurm_load_jobs error: Unable to contact slurm controller >&2; exit 1", False),
    ("exit 127", False), ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", True), ("exit 0", True),
    ('echo >> "$0.n"; [ $(wc -l < "$0.n") = 2 ] && echo 7; exit 0', True)])
def test_a_job_that_left_the_queue_unheard_is_dead(tmp_path, monkeypatch, looks, is_dead):
    """Clusters without accounting do not say how a job ended. One that is queued or cannot be looked for is waited for."""
    monkeypatch.setattr(cluster, "POLL", 0.01)
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    queue, job = tmp_path / "squeue", Job()
    queue.write_text(f"#!/bin/sh\n{looks}\n")
    queue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    worker = slurm_worker(lambda *_: job)
    if not is_dead:
        threading.Timer(0.5, job.cancel).start()
    with pytest.raises(WorkerDied, match="not in the queue any more" if is_dead else "no room"):
        worker.run(["words"], wait=False)
    if (counted := tmp_path / "squeue.n").exists():
        assert len(counted.read_text().splitlines()) == 4  # absent, there, absent, absent
    worker.stop()
    assert job.cancelled.is_set() != is_dead  # nothing is cancelled that is gone


def test_a_queue_that_cannot_be_asked_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster._is_queued("7")


def test_a_setup_runs_before_the_job(tmp_path, monkeypatch):
    """As `module load` has to."""
    pytest.importorskip("submitit")
    monkeypatch.setattr(cluster, "_job", mark)
    worker, = cluster.slurm_workers(1, tmp_path, {"setup": "export MARK=made"}, cluster="local")
    assert worker.run([], wait=False) == "made"


def mark(*_):
    return os.environ["MARK"]


def fake_ray(*, has_room: threading.Event) -> SimpleNamespace:
    """Return a Ray on which an actor begins once there is room."""
    actor = SimpleNamespace(begun=SimpleNamespace(remote=lambda: "begun"), run=SimpleNamespace(remote=lambda *_: Outcome(DONE)))
    return SimpleNamespace(remote=lambda **_: lambda _: SimpleNamespace(remote=lambda _: actor), get=lambda outcome: outcome,
                           wait=lambda refs, timeout=None: (refs, []) if has_room.wait(timeout) else ([], refs),
                           kill=lambda _: None, exceptions=SimpleNamespace(RayError=OSError))


@pytest.mark.parametrize("is_full", [False, True])
def test_an_actor_that_finds_no_room_is_said_and_waits(caplog, monkeypatch, is_full):
    monkeypatch.setattr(cluster, "PATIENCE", 0.05)
    has_room = threading.Event()
    threading.Timer(0.3, has_room.set).start() if is_full else has_room.set()
    worker = RayWorker(fake_ray(has_room=has_room), {"num_cpus": 4, "num_gpus": 0.5})
    with caplog.at_level(logging.WARNING):
        assert [worker.run(["words"], wait=False) for _ in range(2)] == 2 * [Outcome(DONE)]
    assert caplog.text.count("4 CPUS and 0.5 GPUS free for a worker yet; it waits") == is_full
    worker.stop()
    with pytest.raises(WorkerDied, match="stopped"):
        worker.run(["words"], wait=False)
