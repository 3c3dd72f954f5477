"""Assigns cells to workers: each takes the next cell when it is free, and one that dies loses no more than its round."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Protocol

from active.record.results import RunResult
from dassl.utils.errors import UserError
from dassl.utils.run_folder import RESULTS
from scripts.experiments.cell import BUSY, FAILED, Outcome
from scripts.experiments.experiment import Cell

MAX_STARTS = 3  # of a cell whose workers die before they finish a round, or write a part of their shard


class WorkerDied(RuntimeError):
    """The process that ran a cell is gone, and with it the cell's last round."""


class Worker(Protocol):
    """Runs one cell at a time, somewhere. After `WorkerDied` the next `run` starts a new one."""

    def run(self, words: Sequence[str], *, wait: bool) -> Outcome: ...
    def stop(self) -> None: ...


def rounds_on_record(cell: Cell) -> int:
    """Return how many rounds of a run are finished."""
    try:
        return len(RunResult.read(cell.folder / RESULTS).rounds)
    except UserError:  # not begun, or unreadable: the run itself says why
        return 0


class Schedule:
    """Runs cells on workers, one thread per worker; `report(cell, outcome)` is called once for every cell.

    `progress` says how far a cell is, so that a worker that dies after some progress does not count against the cell.
    """

    def __init__(self, cells: Sequence[Cell], workers: Sequence[Worker], report: Callable[[Cell, Outcome], None],
                 progress: Callable[[Cell], int] = rounds_on_record):
        self._cells = deque((cell, False) for cell in cells)  # and whether to wait for another process in its folder
        self._workers = workers
        self._report = report
        self._progress = progress
        self._deaths: dict[tuple[str, int], int] = {}  # of workers, by cell and its progress
        self._lock = threading.Lock()
        self._stopped = False
        self.running: dict[int, Cell] = {}

    def run(self) -> None:
        """Return when all cells have ended; if it is interrupted, for example by Ctrl-C, the workers are stopped first."""
        with ThreadPoolExecutor(len(self._workers)) as threads:
            try:
                serving, ended = [threads.submit(self._serve, index) for index in range(len(self._workers))], set()
                while len(ended) < len(serving):  # waiting without a limit would block Ctrl-C
                    ended = wait(serving, timeout=0.2, return_when=FIRST_EXCEPTION).done
                    for future in ended:
                        future.result()
            finally:
                self._stopped = True
                with ThreadPoolExecutor(len(self._workers)) as stopping:  # in parallel: each may need time to stop safely
                    list(stopping.map(lambda worker: worker.stop(), self._workers))

    def _serve(self, index: int) -> None:
        while not self._stopped and (task := self._next()) is not None:
            cell, must_wait = task
            self.running[index] = cell
            outcome = self._attempt(self._workers[index], cell, must_wait)
            del self.running[index]
            if outcome is not None and not self._stopped:
                with self._lock:
                    self._report(cell, outcome)
        self._workers[index].stop()  # frees its cores and its GPU for others

    def _next(self) -> tuple[Cell, bool] | None:
        with self._lock:
            return self._cells.popleft() if self._cells else None

    def _attempt(self, worker: Worker, cell: Cell, must_wait: bool) -> Outcome | None:
        """Return the outcome of a cell, or None if it is in the queue again: its worker died, or it was busy."""
        key = cell.name, self._progress(cell)  # a job that ends at its time limit, but finishes rounds, is not a failure
        try:
            outcome = worker.run(cell.words, wait=must_wait)
        except WorkerDied as error:
            self._deaths[key] = self._deaths.get(key, 0) + 1
            if self._deaths[key] < MAX_STARTS:
                return self._again(cell, must_wait)
            return Outcome(FAILED, f"its process died {MAX_STARTS} times without progress: {error}")
        return self._again(cell, True) if outcome.kind == BUSY and not must_wait else outcome

    def _again(self, cell: Cell, must_wait: bool) -> None:
        with self._lock:
            self._cells.append((cell, must_wait))
