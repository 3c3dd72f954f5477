"""Workers elsewhere: actors of a Ray cluster, and Slurm jobs by submitit. Folders and data are the same files everywhere."""

import importlib
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
    found = ray.cluster_resources()
    n_gpus, n_cpus = int(found.get("GPU", 0)), int(found.get("CPU", 1))
    n = min(n or n_gpus or n_cpus, n_cpus)
    resources = {"num_cpus": max(1, n_cpus // n)} | ({"num_gpus": min(1.0, n_gpus / n)} if n_gpus else {})
    return [RayWorker(ray, resources) for _ in range(n)]


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
