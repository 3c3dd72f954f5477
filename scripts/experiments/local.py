"""Workers as processes on this machine: one per GPU, or the cores split between them."""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from active.kernels.memory import total_memory
from scripts.experiments.cell import Outcome
from scripts.experiments.schedule import WorkerDied

WORKER = Path(__file__).with_name("worker.py")
CPU_FILES = (("/sys/fs/cgroup/cpu.max",),  # quota and period of a container's CPU time, by cgroups of versions 2 and 1
             ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"))
WORKER_BYTES = 1.1 * 2**30  # for a worker with ViT-B/16 on a CPU, including its four decoders
GRACE = 10.0  # seconds that a stopped run has to reach a safe point


class LocalWorker:
    """A process of `worker.py`, started when it is first needed and again after it died. Its errors go to `log`."""

    def __init__(self, environment: Mapping[str, str], log: Path):
        self._environment = os.environ | dict(environment)
        self._log = log
        self._process: subprocess.Popen | None = None
        self._stopped = False
        self._starting = threading.Lock()  # no process may start once `stop` has checked

    def run(self, words: Sequence[str], *, wait: bool) -> Outcome:
        """Return the outcome of a cell; raises WorkerDied."""
        process = self._started()
        try:
            process.stdin.write(json.dumps({"words": list(words), "wait": wait}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if not line:
            code = process.wait()
            _close(process)
            self._process = None
            raise WorkerDied(f"exit code {code}, see {self._log}")
        return Outcome(**json.loads(line))

    def stop(self) -> None:
        """End the process; a run in progress reaches a safe point first, or is killed after `GRACE` seconds."""
        with self._starting:
            self._stopped, process = True, self._process
        if process is None:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)

    def _started(self) -> subprocess.Popen:
        with self._starting:
            if self._stopped:
                raise WorkerDied("stopped")
            if self._process is None:
                self._log.parent.mkdir(parents=True, exist_ok=True)
                with self._log.open("a") as log:
                    self._process = subprocess.Popen(  # a separate session: Ctrl-C reaches the sweep, which stops it
                        [sys.executable, str(WORKER)], env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                        stderr=log, text=True, encoding="utf-8", start_new_session=True)
            return self._process


def _close(process: subprocess.Popen) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def local_workers(n: int | None, output: Path) -> list[LocalWorker]:
    """Return n workers that share GPUs in turn, or the cores in equal parts.

    By default one per GPU, or one per core, but no more than fit in memory. This depends on what the machine or container has,
    not on what is free right now: the number of workers determines the threads of each, and so a result's last digits.
    """
    import torch

    n_gpus, n_cores = torch.cuda.device_count(), usable_cores()
    n = n or max(1, min(n_gpus or n_cores, int(total_memory() // WORKER_BYTES)))
    threads = {"OMP_NUM_THREADS": str(max(1, n_cores // n))}
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_gpus)))).split(",")
    return [LocalWorker(threads | ({"CUDA_VISIBLE_DEVICES": gpus[index % n_gpus]} if n_gpus else {}),
                        output / "workers" / f"{index}.log") for index in range(n)]


def usable_cores() -> int:
    """Return the number of cores that this process may use, by its affinity and by its container's limit on CPU time."""
    n = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    for files in CPU_FILES:
        with contextlib.suppress(OSError, ValueError):  # another version of cgroups, or "max"
            quota, period = map(int, " ".join(Path(file).read_text() for file in files).split())
            n = min(n, math.ceil(quota / period)) if quota > 0 else n
    return n
