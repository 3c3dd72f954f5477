"""Workers as processes of this machine."""

import subprocess
import sys
import threading
import time

import pytest

from scripts.experiments import local
from scripts.experiments.schedule import WorkerDied


def test_a_worker_that_is_stopped_while_it_starts_leaves_no_process(tmp_path, monkeypatch):
    """The process is there only after `stop` was called: it is ended all the same, and the next cell starts none."""
    begun, processes, popen = threading.Event(), [], subprocess.Popen

    def slow(command, **options):
        begun.set()
        time.sleep(0.3)
        processes.append(popen([sys.executable, "-c", "import sys; sys.stdin.read()"], **options))
        return processes[-1]

    monkeypatch.setattr(local.subprocess, "Popen", slow)
    worker, ends = local.LocalWorker({}, tmp_path / "0.log"), []

    def run() -> None:
        with pytest.raises(WorkerDied):
            worker.run(["words"], wait=False)
        ends.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(240)
    worker.stop()
    thread.join(240)
    assert ends and [process.poll() for process in processes] == [0]
    with pytest.raises(WorkerDied, match="stopped"):
        worker.run(["words"], wait=False)
    assert len(processes) == 1
