"""Workers elsewhere: actors of a Ray cluster, and Slurm jobs by submitit. Folders and data are the same files everywhere."""

import importlib
import logging
import math
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.held import Held
from scripts.experiments.cell import Outcome
from scripts.experiments.schedule import WorkerDied
from scripts.experiments.shard import run_task

GENERIC = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")  # submitit's own names
POLL = 1.0  # seconds
LOOK = 60.0  # seconds between looks at Slurm's queue
PATIENCE = 60.0  # seconds until it is said that a cluster has no room, or that its queue does not answer
ERROR = re.compile(r"(sbatch: error: .*|[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b.*)$")
RAY_UNITS = 10_000  # of a GPU, the least part that Ray knows
TIMEOUT = {"timeout_min": "1440"}

logger = logging.getLogger(__name__)


class RayWorker:
    """An actor that keeps CLIP and features from cell to cell; a new one takes the place of one that died."""

    def __init__(self, ray: ModuleType, resources: Mapping[str, float]):
        self._ray = ray
        self._resources = resources
        self._make = ray.remote(**resources)(_Runner).remote
        self._actor = None
        self._stopped = False
        self._starting = threading.Lock()  # no actor may start once `stop` has checked

    def run(self, words: Sequence[str], *, wait: bool) -> Outcome:
        """Return the outcome of a cell; raises WorkerDied."""
        try:
            return self._ray.get(self._started().run.remote(list(words), wait))
        except self._ray.exceptions.RayError as error:
            self._actor = None
            raise WorkerDied(str(error).strip()) from error

    def stop(self) -> None:
        """End the actor at once; a run in hand is killed and its record is whole."""
        with self._starting:
            self._stopped, actor = True, self._actor
        if actor is not None:
            self._ray.kill(actor)

    def _started(self) -> Any:
        """Return the actor, which has its place on a node; where there is none yet, that is said once."""
        with self._starting:
            if self._stopped:
                raise WorkerDied("stopped")
            if self._actor is not None:
                return self._actor
            actor = self._actor = self._make(os.getcwd())
        begun = actor.begun.remote()
        if not self._ray.wait([begun], timeout=PATIENCE)[0]:
            share = " and ".join(f"{amount:g} {name.removeprefix('num_').upper()}" for name, amount in self._resources.items())
            logger.warning("no node of the Ray cluster has %s free for a worker yet; it waits for them", share)
            self._ray.wait([begun])
        return actor


class _Runner:
    """What an actor is: the working folder of the sweep, and what its runs share."""

    def __init__(self, folder: str):
        os.chdir(folder)
        self._held = Held()

    def begun(self) -> None:
        """Answer as soon as there is an actor that can."""

    def run(self, words: list[str], wait: bool) -> Outcome:
        return run_task(words, self._held, wait=wait)


def ray_workers(n: int | None, address: str | None) -> list[RayWorker]:
    """Return n workers (by default one a GPU of the cluster, or one a CPU) on the cluster at `address`, or on a local one."""
    ray = _optional("ray")
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}}
    try:
        if not ray.is_initialized():  # an extraction asks for workers for each split
            ray.init(address=address, runtime_env=environment, include_dashboard=None if address else False,
                     log_to_driver=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    n, resources = shares([node.get("Resources", {}) for node in ray.nodes() if node["Alive"]], n)
    return [RayWorker(ray, resources) for _ in range(n)]


def shares(nodes: Sequence[Mapping[str, float]], n: int | None) -> tuple[int, dict[str, float]]:
    """Return how many of n workers (by default one a GPU, or one a CPU) a cluster has room for, and what each takes of a node.

    `nodes` are the CPUs and GPUs of each node. All of a worker lies on one node, and Ray never starts one whose share fits on
    none. So a share is as large as lets all workers be placed: a GPU or its part, and as many CPUs as that leaves. Raises
    UserError if no node has what a worker needs.
    """
    sizes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    n_cpus, n_gpus = map(sum, zip(*sizes, strict=True))

    def places(share: int, on_a_gpu: int) -> int:
        return sum(min(cpus // share, gpus * on_a_gpu) if n_gpus else cpus // share for cpus, gpus in sizes)

    if (n := min(n or n_gpus or n_cpus, places(1, n_cpus))) == 0:
        raise UserError(f"no node of the Ray cluster has a CPU{' beside its GPU' if n_gpus else ''} for a worker")
    on_a_gpu = next(number for number in range(1, n + 1) if places(1, number) >= n)
    share = next(share for share in range(n_cpus // n, 0, -1) if places(share, on_a_gpu) >= n)
    part = math.floor(RAY_UNITS / on_a_gpu) / RAY_UNITS if n_gpus else 0
    return n, {"num_cpus": share} | ({"num_gpus": part} if n_gpus else {})


class SlurmWorker:
    """One job after another, a cell each."""

    def __init__(self, executor: Any, accepted: threading.Event):
        self._executor = executor
        self._accepted = accepted  # set once Slurm has taken a job of any worker
        self._job = None
        self._stopped = False
        self._submitting = threading.Lock()  # no job may be submitted once `stop` has checked
        self._next_look, self._absences = 0.0, 0

    def run(self, words: Sequence[str], *, wait: bool) -> Outcome:
        """Return the outcome of a cell; raises WorkerDied if its job ended without one, UserError if Slurm takes none at all.

        Where Slurm has taken others, a refusal is a limit on their number: the job waits until it is taken.
        """
        while (job := self._submitted(words, wait)) is None:
            self._pause()
        while not job.done():
            if self._stopped or self._is_gone(job):
                self._job = None
                raise WorkerDied(f"job {job.job_id} is not in the queue any more and has left no result")
            time.sleep(POLL)
        try:
            return job.result()
        except Exception as error:  # submitit has several, and hands on what the job raised
            raise WorkerDied(f"job {job.job_id}: {_reason(error)}") from error

    def stop(self) -> None:
        """Cancel the job; the record of its run is whole, as every file is written at once."""
        with self._submitting:
            self._stopped, job = True, self._job
        if job is not None and not job.done():
            job.cancel(check=False)

    def _submitted(self, words: Sequence[str], wait: bool) -> Any:
        """Return the job of a cell, None if Slurm takes no more for now."""
        with self._submitting:
            if self._stopped:
                raise WorkerDied("stopped")
            try:
                self._job = self._executor.submit(_job, os.getcwd(), list(words), wait)
            except RuntimeError as error:  # what submitit's errors are
                if not self._accepted.is_set():
                    raise UserError(f"Slurm takes no job: {_reason(error)}") from error
                logger.warning("Slurm takes no further job now, and is asked again: %s", _reason(error))
                return None
            self._accepted.set()
            self._next_look, self._absences = time.monotonic() + LOOK, 0
            return self._job

    def _pause(self) -> None:
        """Wait until Slurm is asked again, or the worker is stopped."""
        end = time.monotonic() + LOOK
        while time.monotonic() < end and not self._stopped:
            time.sleep(POLL)

    def _is_gone(self, job: Any) -> bool:
        """Return whether the queue has twice lacked a job of which nothing else is known: some clusters keep no accounts."""
        if time.monotonic() >= self._next_look and job.state == "UNKNOWN":
            self._next_look = time.monotonic() + LOOK
            self._absences = 0 if _is_queued(job.job_id) else self._absences + 1
        return self._absences >= 2


def _is_queued(job_id: str) -> bool:
    """Return whether Slurm's queue has a job, or does not say."""
    try:
        found = subprocess.run(["squeue", "--noheader", "--jobs", job_id], capture_output=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return True
    return bool(found.stdout.strip()) or (found.returncode != 0 and b"Invalid job id" not in found.stderr)


def _reason(error: Exception) -> str:
    """Return the line that says what was wrong: the last one of a traceback that submitit hands on, or of sbatch's words."""
    lines = [line.strip() for line in str(error).splitlines()]
    named = [line for line in lines if ERROR.match(line)]
    return named[-1] if named else next((line for line in lines if line), type(error).__name__)


def _job(folder: str, words: list[str], wait: bool) -> Outcome:
    os.chdir(folder)
    return run_task(words, Held(), wait=wait)


def slurm_workers(n: int | None, output: Path, settings: Mapping[str, str], cluster: str = "slurm") -> list[SlurmWorker]:
    """Return n (by default 8) workers, each of which has one job at a time in Slurm's queue; `settings` are sbatch's.

    A job has a day unless `timeout_min` says otherwise. It runs `setup`, a shell command, before anything else.

    `cluster="local"` runs the jobs as processes of this machine.
    """
    submitit = _optional("submitit")
    own = {name: int(value) if value.isdigit() else value for name, value in (TIMEOUT | dict(settings)).items()}
    path = f"export PYTHONPATH={shlex.quote(str(PROJECT))}${{PYTHONPATH:+:$PYTHONPATH}}"  # jobs may begin in any folder
    setup = [own.pop("setup")] if "setup" in own else []
    try:
        executor = submitit.AutoExecutor(output / "workers", cluster=cluster)
        executor.update_parameters(**{name if name in GENERIC else f"slurm_{name}": value for name, value in own.items()},
                                   **{f"{cluster}_setup": [path, *setup]})
    except RuntimeError as error:
        raise UserError(f"there is no Slurm here: {error}") from error
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(f"--slurm: {error}") from error
    accepted = threading.Event()
    return [SlurmWorker(executor, accepted) for _ in range(n or 8)]


def _optional(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed; pip install -r requirements-cluster.txt") from error
