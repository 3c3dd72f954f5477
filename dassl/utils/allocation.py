"""How this process gets and keeps memory on the CPU."""

import contextlib
import ctypes
from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # options of mallopt(3)
NEVER = {M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_MAX: 0}
# what glibc comes to by itself where large blocks are freed, and does no more once it has been told anything
GROWN = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25, M_MMAP_MAX: 2**16}


def give_back_memory() -> None:
    """Return what this process has freed to the system, where the C library can: glibc keeps gigabytes of small blocks."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let malloc keep what is freed for what is asked next, and give it all back at the end, where it is glibc's.

    Else the system clears memory for each large result of a tower anew: a sixth of the time of a batch of 100 images.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt  # noqa: B018  absent from other libraries
    except (AttributeError, OSError, TypeError):
        yield
        return
    for option, value in NEVER.items():
        libc.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in GROWN.items():
            libc.mallopt(option, value)
        give_back_memory()
