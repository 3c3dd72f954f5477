"""Workers elsewhere: actors of a Ray cluster, and Slurm jobs by submitit. Folders and data are the same files everywhere."""

import importlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.held import Held
from scripts.experiments.cell import Outcome
from scripts.experiments.schedule import WorkerDied
from scripts.experiments.shard import run_task

GENERIC = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")  # submitit's own names
POLL = 1.0  # seconds
RAY_UNITS = 10_000  # of a GPU, the least part that Ray knows
TIMEOUT = {"timeout_min": "1440"}


class RayWorker:
    """An actor that keeps CLIP and features from cell to cell; a new one takes the place of one that died."""

    def __init__(self, ray: ModuleType, resources: Mapping[str, float]):
        self._ray = ray
        self._make = ray.remote(**resources)(_Runner).remote
        self._actor = None

    def run(self, words: Sequence[str], *, wait: bool) -> Outcome:
        """Return the outcome of a cell; raises WorkerDied."""
        try:
            self._actor = self._actor or self._make(os.getcwd())
            return self._ray.get(self._actor.run.remote(list(words), wait))
        except self._ray.exceptions.RayError as error:
            self._actor = None
            raise WorkerDied(str(error).strip()) from error

    def stop(self) -> None:
        """End the actor at once; a run in hand is killed and its record is whole."""
        if self._actor is not None:
            self._ray.kill(self._actor)


class _Runner:
    """What an actor is: the working folder of the sweep, and what its runs share."""

    def __init__(self, folder: str):

        os.chdir(folder)
        self._held = Held()

    def run(self, words: list[str], wait: bool) -> Outcome:
        return run_task(words, self._held, wait=wait)


def ray_workers(n: int | None, address: str | None) -> list[RayWorker]:
    """Return n workers (by default one a GPU of the cluster, or one a CPU) on the cluster at `address`, or on a local one."""
    ray = _optional("ray")
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])}}
    try:
        ray.init(address=address, runtime_env=environment, include_dashboard=None if address else False, log_to_driver=False,
                 logging_level="error")
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
    n = n or n_gpus or n_cpus
    on_a_gpu = math.ceil(n / n_gpus) if n_gpus else 0

    def places(share: int) -> int:
        return sum(min(cpus // share, gpus * on_a_gpu) if n_gpus else cpus // share for cpus, gpus in sizes)

    if (n := min(n, places(1))) == 0:
        raise UserError(f"no node of the Ray cluster has a CPU{' beside its GPU' if n_gpus else ''} for a worker")
    share = next(share for share in range(n_cpus // n, 0, -1) if places(share) >= n)
    part = math.floor(RAY_UNITS / on_a_gpu) / RAY_UNITS if n_gpus else 0
    return n, {"num_cpus": share} | ({"num_gpus": part} if n_gpus else {})


class SlurmWorker:
    """One job after another, a cell each."""

    def __init__(self, executor):
        self._executor = executor
        self._job = None

    def run(self, words: Sequence[str], *, wait: bool) -> Outcome:
        """Return the outcome of a cell; raises WorkerDied if its job ended without one."""
        self._job = self._executor.submit(_job, os.getcwd(), list(words), wait)
        while not self._job.done():
            time.sleep(POLL)
        try:
            return self._job.result()
        except Exception as error:  # submitit has several, and hands on what the job raised
            raise WorkerDied(f"job {self._job.job_id}: {error}") from error

    def stop(self) -> None:
        """Cancel the job; the record of its run is whole, as every file is written at once."""
        if self._job is not None and not self._job.done():
            self._job.cancel()


def _job(folder: str, words: list[str], wait: bool) -> Outcome:

    os.chdir(folder)
    return run_task(words, Held(), wait=wait)


def slurm_workers(n: int | None, output: Path, settings: Mapping[str, str], cluster: str = "slurm") -> list[SlurmWorker]:
    """Return n (by default 8) workers, each of which has one job at a time in Slurm's queue; `settings` are sbatch's.

    A job has a day unless `timeout_min` says otherwise.

    `cluster="local"` runs the jobs as processes of this machine.
    """
    submitit = _optional("submitit")
    try:
        executor = submitit.AutoExecutor(output / "workers", cluster=cluster)
        executor.update_parameters(**{name if name in GENERIC else f"slurm_{name}": int(value) if value.isdigit() else value
                                      for name, value in (TIMEOUT | dict(settings)).items()})
    except RuntimeError as error:
        raise UserError(f"there is no Slurm here: {error}") from error
    except (NameError, TypeError, ValueError) as error:
        raise ConfigError(f"--slurm: {error}") from error
    return [SlurmWorker(executor) for _ in range(n or 8)]


def _optional(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"the package {package} is not installed; pip install -r requirements-cluster.txt") from error
