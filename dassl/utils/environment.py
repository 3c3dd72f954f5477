"""What a result depends on besides its config: code, versions, device, threads, commit; and the memory in use."""

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from pathlib import Path

from dassl.utils.allocation import give_back_memory

PROJECT = Path(__file__).resolve().parents[2]
RECORDED_PACKAGES = {"torchvision": "torchvision", "open_clip": "open_clip_torch", "numpy": "numpy",
                     "scikit_learn": "scikit-learn", "pillow": "pillow"}
CODE = ("active", "dassl", "datasets", "trainers")  # the folders whose files can change a result; so can train.py


@functools.cache
def code() -> dict[str, str]:
    """Return the SHA-256 of each of the project's `.py` files that can change a result, by relative path.

    They are read once, at the first call, so that a process that lives for hours names the code that it runs.
    """
    files = [PROJECT / "train.py", *(path for name in CODE for path in sorted((PROJECT / name).rglob("*.py")))]
    return {path.relative_to(PROJECT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def environment() -> dict[str, str]:
    """Return the versions, the device, torch's threads and the commit that a record of a run carries.

    The number of threads decides the order in which torch adds numbers, and thus their last digits.
    """
    import torch

    found = {"commit": COMMIT, "python": platform.python_version(), "platform": platform.platform(),
             "torch": torch.__version__, "threads": str(torch.get_num_threads())}
    found |= {name: importlib.metadata.version(package) for name, package in RECORDED_PACKAGES.items()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def rounding_of_card(tf32: bool) -> dict[str, str | bool]:
    """Return what a GPU's rounding depends on: the architecture, such as "sm_90", and `MODEL.TF32` where it is on."""
    import torch

    return {"architecture": "sm_{}{}".format(*torch.cuda.get_device_capability())} | ({"tf32": True} if tf32 else {})


def commit() -> str:
    """Return the commit of the project's checkout, with "-dirty" where files differ from it, or "unknown"."""
    try:
        described = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"],
                                   cwd=PROJECT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return described.stdout.strip() or "unknown"


COMMIT = commit()  # of the code that this process imported, even if the checkout changes


def peak_memory_mb() -> float:
    """Return the largest memory of this process so far, in MiB: of the GPU where one is used, else resident."""
    import torch

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return peak_resident_mb()


def forget_peak() -> None:
    """Restart the measurement of this process's peak memory, where the system can: on Linux, see proc(5), clear_refs.

    What is free is given back before, as what is used again of it would not show.
    """
    give_back_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_mb() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    with contextlib.suppress(OSError, IndexError):  # on Linux, getrusage(2) also counts what its parent held at the fork
        status = Path("/proc/self/status").read_text()
        return round(int(status.split("VmHWM:")[1].split()[0]) / 2**10, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)  # macOS counts in bytes, others in KiB
