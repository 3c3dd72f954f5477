"""Workers elsewhere: what they take of a Ray cluster's nodes, and what becomes of jobs and actors that go wrong."""

import logging
import os
import threading
import time
from types import SimpleNamespace

import pytest

from dassl.utils.errors import UserError
from scripts.experiments import cluster
from scripts.experiments.cell import DONE, FAILED, Outcome
from scripts.experiments.cluster import RayWorker, SlurmWorker, shares
from scripts.experiments.schedule import WorkerDied

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
    ([HEAD, {"CPU": 2, "GPU": 1}], 5, 2, 1, 0.2),
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

    def cancel(self):
        self.cancelled.set()

    def result(self):
        raise RuntimeError("Job (task=0) failed with trace:\n---\nTraceback (most recent call last):\n  File x\n"
                           "torch.cuda.OutOfMemoryError: no room\n---\nYou can check full logs with 'job.stderr(0)'")


def slurm_worker(submit) -> SlurmWorker:
    return SlurmWorker(SimpleNamespace(submit=submit))


def test_a_job_that_slurm_refuses_is_a_cell_that_failed():
    """Others may be taken: the reason may be a limit on the number of jobs."""
    def submit(*_):
        raise RuntimeError("sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: limit")

    assert slurm_worker(submit).run(["words"], wait=False) == Outcome(
        FAILED, "Slurm took no job: sbatch: error: Batch job submission failed: limit")


def test_a_job_that_is_submitted_while_the_sweep_stops_is_cancelled(monkeypatch):
    """As sbatch may take seconds. No other job is submitted afterwards."""
    monkeypatch.setattr(cluster, "POLL", 0.01)
    begun, job, ends = threading.Event(), Job(), []

    def submit(*_):
        begun.set()
        time.sleep(0.2)
        return job

    worker = slurm_worker(submit)

    def run() -> None:
        with pytest.raises(WorkerDied):
            worker.run(["words"], wait=False)
        ends.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(240)
    worker.stop()
    thread.join(240)
    assert ends and job.cancelled.is_set()
    with pytest.raises(WorkerDied, match="stopped"):
        worker.run(["words"], wait=False)


def test_the_reason_of_a_job_s_death_is_its_error():
    job = Job()
    job.cancel()
    with pytest.raises(WorkerDied, match=r"^job 7: torch.cuda.OutOfMemoryError: no room$"):
        slurm_worker(lambda *_: job).run(["words"], wait=False)


@pytest.mark.skipif(os.name != "posix", reason="the queue is a shell script")
@pytest.mark.parametrize("is_queued", [False, True])
def test_a_job_that_left_the_queue_unheard_is_dead(tmp_path, monkeypatch, is_queued):
    """Clusters without accounting do not say how a job ended. One that is queued or cannot be looked for is waited for."""
    monkeypatch.setattr(cluster, "POLL", 0.01)
    monkeypatch.setattr(cluster, "LOOK", 0.02)
    queue, job = tmp_path / "squeue", Job()
    queue.write_text(f"#!/bin/sh\n{'echo 7 RUNNING' if is_queued else 'exit 1'}\n")
    queue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    worker = slurm_worker(lambda *_: job)
    if is_queued:
        threading.Timer(0.2, job.cancel).start()
    with pytest.raises(WorkerDied, match="no room" if is_queued else "not in the queue any more"):
        worker.run(["words"], wait=False)


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
