"""Workers as processes of this machine."""

import subprocess
import sys
import threading
import time

import pytest

from scripts.experiments import local
from tests.scripts.experiments.stopping import check_stopped_while_starting


def test_a_worker_that_is_stopped_while_it_starts_leaves_no_process(tmp_path, monkeypatch):
    """The process appears only after `stop` was called. It is ended all the same, and the next cell starts none."""
    begun, processes, popen = threading.Event(), [], subprocess.Popen

    def slow(command, **options):
        begun.set()
        time.sleep(0.3)
        processes.append(popen([sys.executable, "-c", "import sys; sys.stdin.read()"], **options))
        return processes[-1]

    monkeypatch.setattr(local.subprocess, "Popen", slow)
    check_stopped_while_starting(local.LocalWorker({}, tmp_path / "0.log"), begun)
    assert [process.poll() for process in processes] == [0]


@pytest.mark.parametrize(("n_gib", "n_gpus", "n_asked", "n_workers"), [
    (64, 0, None, 16), (8, 0, None, 7), (0.5, 0, None, 1), (64, 2, None, 2), (2, 4, None, 1), (2, 0, 9, 9)])
def test_there_are_no_more_workers_than_memory_has_room_for(tmp_path, monkeypatch, n_gib, n_gpus, n_asked, n_workers):
    """Each holds torch, CLIP and decoders. If a number of workers is asked for, it is used."""
    monkeypatch.setattr(local, "total_memory", lambda: n_gib * 2**30)
    monkeypatch.setattr("torch.cuda.device_count", lambda: n_gpus)
    monkeypatch.setattr(local, "usable_cores", lambda: 16)
    assert len(local.local_workers(n_asked, tmp_path)) == n_workers


@pytest.mark.parametrize(("visible", "n_asked", "expected"), [
    (None, None, ["0", "1", "2"]), (None, 5, ["0", "1", "2", "0", "1"]), ("4,6,7", 4, ["4", "6", "7", "4"])])
def test_workers_share_the_gpus_in_turn(tmp_path, monkeypatch, visible, n_asked, expected):
    """Each sees one card, of those that this process may use."""
    monkeypatch.setattr(local, "total_memory", lambda: 2**40)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    workers = local.local_workers(n_asked, tmp_path)
    assert [worker._environment["CUDA_VISIBLE_DEVICES"] for worker in workers] == expected


@pytest.mark.parametrize(("texts", "n"), [
    ((), 16), (("max 100000\n",), 16), (("250000 100000\n",), 3), (("50000 100000",), 1), (("9900000 100000",), 16),
    (("-1\n", "100000\n"), 16), (("400000\n", "100000\n"), 4)])
def test_a_container_s_limit_bounds_the_cores(tmp_path, monkeypatch, texts, n):
    """Files of cgroups: `max` or -1 is no limit."""
    files = [tmp_path / f"{number}" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    monkeypatch.setattr(local, "CPU_FILES", ((tmp_path / "absent",), files))
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(local.sys, "platform", "linux")
    assert local.usable_cores() == n
