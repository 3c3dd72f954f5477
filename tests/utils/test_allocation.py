"""Memory that is kept while towers work, and given back behind it."""

import ctypes
import platform
import resource
from pathlib import Path

import pytest
import torch

from dassl.utils.allocation import freed_memory_kept

LARGE = 2**24  # floats of 64 MiB, which malloc maps one by one as it is


def faults_of_a_result() -> int:
    """Return how many pages the system clears for a large result, at best, after others of that size were freed."""
    found = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(LARGE)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc's malloc")
def test_freed_memory_is_used_again_and_given_back_at_the_end():
    few = LARGE // resource.getpagesize()  # a quarter of the pages
    with pytest.raises(KeyError), freed_memory_kept():
        assert faults_of_a_result() < few
        raise KeyError
    if Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().find("[always]") < 0:  # those are huge, and so few
        assert faults_of_a_result() > few


def test_without_glibc_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3
