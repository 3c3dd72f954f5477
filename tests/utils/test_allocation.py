"""Memory that is kept while towers work, and given back afterwards."""

import ctypes
import platform
import resource

import pytest
import torch

from dassl.utils.allocation import M_MMAP_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, freed_memory_kept


class Libc:
    """glibc's malloc, as far as it is told something. What it then does differs from start to start, by where its heap lies."""

    def __init__(self):
        self.calls = []

    def mallopt(self, option, value):
        self.calls.append((option, value))

    def malloc_trim(self, pad):
        self.calls.append("trim")


def test_freed_memory_is_kept_inside_and_given_back_at_the_end(monkeypatch):
    """After an error too: first the usual thresholds are back, then what is free goes back to the system."""
    libc = Libc()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: libc)
    with pytest.raises(KeyError), freed_memory_kept():
        assert libc.calls == [(M_TRIM_THRESHOLD, 2**31 - 1), (M_MMAP_MAX, 0)]
        raise KeyError
    assert libc.calls[2:] == [(M_TRIM_THRESHOLD, 64 * 2**20), (M_MMAP_THRESHOLD, 32 * 2**20), (M_MMAP_MAX, 65536), "trim"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc's malloc")
def test_what_comes_after_reuses_its_memory():
    """A step's tensors of a MiB are 256 pages each, which the system would clear every time under the smallest thresholds."""
    with freed_memory_kept():
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(200):
        torch.ones(2**18)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200 * 256 / 10


def test_without_glibc_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with freed_memory_kept():
        assert torch.ones(3).sum() == 3
