"""What every worker of a sweep does when it is stopped."""

import threading

import pytest

from scripts.experiments.schedule import Worker, WorkerDied


def check_stopped_while_starting(worker: Worker, begun: threading.Event) -> None:
    """Stop a worker once it has `begun` to start something: its run ends, and no other one starts."""
    ends = []

    def run() -> None:
        with pytest.raises(WorkerDied):
            worker.run(["words"], wait=False)
        ends.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait(240)
    worker.stop()
    thread.join(240)
    assert ends
    with pytest.raises(WorkerDied, match="stopped"):
        worker.run(["words"], wait=False)
