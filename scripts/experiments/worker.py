"""A worker process: reads cells from standard input, one JSON line each, and answers each with one JSON line.

What a run prints goes nowhere (its `log.txt` has it). When standard input ends, because the sweep has stopped or was killed,
the run in hand is stopped as by SIGTERM: its record is whole and the next sweep goes on from there.
"""

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # in place of this folder

from dassl.utils.events import Terminated, stop_on_sigterm  # noqa: E402
from dassl.utils.held import Held  # noqa: E402
from scripts.experiments.shard import run_task  # noqa: E402


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    stop_on_sigterm()
    tasks: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(tasks,), daemon=True).start()
    held = Held()
    try:
        while (line := tasks.get()) is not None:
            task = json.loads(line)
            outcome = run_task(task["words"], held, wait=task["wait"])
            print(json.dumps(dataclasses.asdict(outcome)), file=answers, flush=True)
    except (Terminated, BrokenPipeError):
        sys.exit(143)


def _read(tasks: "queue.SimpleQueue[str | None]") -> None:
    for line in sys.stdin:
        tasks.put(line)
    tasks.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
