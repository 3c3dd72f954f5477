"""Where the work of sweeps and extractions runs: the flags that say so, and the workers that they mean."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.config.cli import Parser, count
from scripts.experiments.cluster import ray_workers, slurm_workers
from scripts.experiments.local import local_workers
from scripts.experiments.schedule import Worker


def add_backend(flags: Parser, what: str) -> None:
    """Give a command line the flags of a backend, which runs `what`, such as cells."""
    flags.add_argument("--backend", choices=("local", "ray", "slurm"), default="local", help=f"where {what} run")
    flags.add_argument("--workers", type=count, metavar="N", help=f"{what} at a time: one a GPU or core with memory; Slurm 8")
    flags.add_argument("--address", help="of an existing Ray cluster, such as auto; without it one is started here")
    flags.add_argument("--slurm", nargs="+", default=[], metavar="NAME=VALUE", help="settings of the Slurm jobs")


def build_workers(arguments: argparse.Namespace, folder: Path, n_cells: int) -> Sequence[Worker]:
    """Return the workers of a backend, at most one a cell; raises UserError if the backend is not to be had."""
    if arguments.backend == "ray":
        workers = ray_workers(arguments.workers, arguments.address)
    elif arguments.backend == "slurm":
        settings = dict(setting.partition("=")[::2] for setting in arguments.slurm)
        workers = slurm_workers(arguments.workers, folder, settings)
    else:
        workers = local_workers(arguments.workers, folder)  # threads a worker do not depend on how many cells are left
    return workers[:n_cells]
