"""Checks of memory before a sampler starts, rather than being killed halfway."""

import contextlib
import logging
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils.errors import UserError

if TYPE_CHECKING:
    import torch

GIB = 2**30
CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # versions 2 and 1

logger = logging.getLogger(__name__)


def need_memory(what: str, n_bytes: float, device: "torch.device | None" = None) -> None:
    """Raise UserError, with both figures, if `what` takes more memory than this machine, or its card, has free."""
    available, remedy = available_memory(), "another sampler, a smaller pool or a larger machine"
    if device is not None and device.type == "cuda":
        from dassl.utils.cards import free_bytes  # here, as most callers ask only for the machine's memory, without torch

        available, remedy = free_bytes(device), "ACTIVE.DEVICE cpu, another sampler or a smaller pool"
    if n_bytes > available:
        raise UserError(f"{what} needs about {n_bytes / GIB:.1f} GiB of memory and {available / GIB:.1f} GiB are free; "
                        f"choose {remedy}")


def need_pairs(sampler: str, n_rows: int, width: int, max_pool: int) -> None:
    """Raise UserError, with the arithmetic that it takes, if a sampler that compares all pairs is given too large a pool."""
    if n_rows > max_pool:
        hours = 2 * n_rows**2 * width / 100e9 / 3600
        raise UserError(
            f"{sampler} compares all pairs of {n_rows:,} images: {2 * n_rows**2 * width:.1e} floating-point operations, about "
            f"{hours:.1f} hours at 100 GFLOP/s, in {3 * 4 * n_rows * width / GIB:.1f} GiB of memory; set "
            f"ACTIVE.{sampler.upper()}.MAX_POOL, now {max_pool:,}, to {n_rows} to run it all the same, or "
            f"ACTIVE.{sampler.upper()}.EXACT false to approximate")


def compares_all(sampler: str, size: tuple[int, ...], max_pool: int, *, exact: bool) -> bool:
    """Tell whether a sampler is to compare all pairs of N rows of width D; above `max_pool` not, and if `exact` it refuses."""
    if exact:
        need_pairs(sampler, size[0], size[1], max_pool)
    elif size[0] > max_pool:
        logger.info("%s approximates: of %d images, more than ACTIVE.%s.MAX_POOL, %d, not all pairs are compared",
                    sampler, size[0], sampler.upper(), max_pool)
    return size[0] <= max_pool


def available_memory() -> float:
    """Return the free memory in bytes: the machine's, or the container's limit where that is lower."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * float(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        free = _physical_memory()
    return min(free, *_limits())


def total_memory() -> float:
    """Return the memory in bytes that this machine has, or its container may use: the same at every start."""
    return min(_physical_memory(), *_limits())


def _physical_memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _limits() -> list[float]:
    """Return the limits of the container's memory, infinity among them."""
    found = [math.inf]
    for file in CGROUP_FILES:
        with contextlib.suppress(OSError):
            limit = Path(file).read_text().strip()
            found += [float(limit)] if limit.isdigit() else []
    return found
