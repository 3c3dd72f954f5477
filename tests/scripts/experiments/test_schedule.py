"""Cells on workers: every cell ends once, dead workers and busy folders included."""

import threading
import time
from collections import Counter
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.experiments.cell import BUSY, DONE, FAILED, Outcome
from scripts.experiments.experiment import Cell
from scripts.experiments.schedule import MAX_STARTS, Schedule, WorkerDied

CELLS = [Cell(name, Path(name), (name,)) for name in "abcdefgh"]


class FakeWorker:
    """Answers with what `answer(name, n-th start of the cell, wait)` returns or raises."""

    starts: Counter
    lock = threading.Lock()

    def __init__(self, answer=lambda name, start, wait: Outcome(DONE)):
        self.answer = answer
        self.stopped = threading.Event()

    def run(self, words, *, wait):
        with self.lock:
            self.starts[words[0]] += 1
        time.sleep(0.001)
        return self.answer(words[0], self.starts[words[0]], wait)

    def stop(self):
        self.stopped.set()


@pytest.fixture(autouse=True)
def no_starts():
    FakeWorker.starts = Counter()


def ended(workers, cells=CELLS, **options):
    outcomes = []
    Schedule(cells, workers, lambda cell, outcome: outcomes.append((cell.name, outcome)), **options).run()
    assert len(outcomes) == len(dict(outcomes)), "a cell was reported twice"
    return dict(outcomes)


@pytest.mark.parametrize("n", [1, 3, 20])
def test_every_cell_runs_once(n):
    """With fewer and with more workers than cells."""
    assert ended([FakeWorker() for _ in range(n)]) == {cell.name: Outcome(DONE) for cell in CELLS}
    assert set(FakeWorker.starts.values()) == {1}


def test_a_cell_whose_worker_died_is_started_again():
    """It is started again after each of two deaths, and given up with the reason after the third. No other cell runs twice."""

    def answer(name, start, wait):
        if name == "c" or (name == "b" and start == 1):
            raise WorkerDied("exit code -9")
        return Outcome(DONE)

    outcomes = ended([FakeWorker(answer), FakeWorker(answer)])
    assert outcomes.pop("c") == Outcome(FAILED, f"its process died {MAX_STARTS} times without progress: exit code -9")
    assert set(outcomes.values()) == {Outcome(DONE)}
    assert FakeWorker.starts == Counter({cell.name: {"b": 2, "c": 3}.get(cell.name, 1) for cell in CELLS})


def test_a_cell_that_gets_on_is_started_as_often_as_it_takes():
    """Jobs end at their time limit. As long as each has finished a round, the next one continues and the count restarts."""
    rounds = iter([0, 1, 2, 3, 3, 3])

    def answer(name, start, wait):
        raise WorkerDied("time limit")

    found = ended([FakeWorker(answer)], CELLS[:1], progress=lambda cell: next(rounds))
    assert found["a"].error.endswith("without progress: time limit")
    assert FakeWorker.starts == Counter({"a": 6})


def test_workers_are_stopped_together():
    """Each may need seconds to stop safely, so all are told at once and none waits for another."""
    workers = [FakeWorker() for _ in range(4)]
    together = threading.Barrier(4, timeout=240)
    for worker in workers:
        worker.stop = together.wait
    schedule = Schedule(CELLS, workers, lambda *outcome: None)
    schedule._serve = lambda index: None
    schedule.run()


def test_a_busy_cell_is_waited_for_after_all_others():
    """Another sweep is at work in its folder: the cell goes to the end of the queue and is then waited for."""
    order = []

    def answer(name, start, wait):
        order.append((name, wait))
        return Outcome(BUSY, "at work") if name == "a" and not wait else Outcome(DONE)

    assert set(ended([FakeWorker(answer)]).values()) == {Outcome(DONE)}
    assert order[0] == ("a", False) and order[-1] == ("a", True) and len(order) == len(CELLS) + 1


def test_an_interrupt_stops_the_workers():
    """On Ctrl-C `run` raises it after telling all workers to stop. Cells that were running are not reported."""
    started = threading.Event()

    def answer(name, start, wait):
        started.set()
        worker.stopped.wait(10)
        raise WorkerDied("stopped")

    worker, reported = FakeWorker(answer), []
    schedule = Schedule(CELLS, [worker], lambda *outcome: reported.append(outcome))

    def interrupt(*_, **__):
        started.wait(10)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("scripts.experiments.schedule.wait", interrupt)
        schedule.run()
    assert worker.stopped.is_set() and reported == [] and FakeWorker.starts == Counter({"a": 1})


def test_a_fault_of_the_schedule_itself_is_raised():
    """An unexpected exception of a worker or of the report ends the sweep loudly instead of losing cells silently."""

    def answer(name, start, wait):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ended([FakeWorker(answer)])


def test_a_fault_that_is_faster_than_the_first_look_is_raised(monkeypatch):
    """An exception that comes before the sweep looks at its threads for the first time is not lost."""

    def answer(name, start, wait):
        raise ZeroDivisionError

    class Quick(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            future = super().submit(function, *arguments)
            futures.wait([future])
            return future

    monkeypatch.setattr("scripts.experiments.schedule.ThreadPoolExecutor", Quick)
    with pytest.raises(ZeroDivisionError):
        ended([FakeWorker(answer)])


def test_ctrl_c_while_threads_begin_stops_the_workers(monkeypatch):
    """A thread that serves already must not go on to the last cell."""
    submit, n_begun = ThreadPoolExecutor.submit, []

    def interrupted(self, task, *arguments):
        n_begun.append(task)
        if len(n_begun) == 2:
            raise KeyboardInterrupt
        return submit(self, task, *arguments)

    workers = [FakeWorker(), FakeWorker()]
    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Schedule(CELLS, workers, lambda *_: None).run()
    assert workers[1].stopped.is_set()
