"""Worker processes that decode: what happens to them when they are stopped."""

import errno
import itertools
import multiprocessing
import os
import signal

import numpy as np
import pytest
from PIL import Image

from dassl.data.loader import view_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import DataError

LARGE = Preprocessing((256, 256), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)).transform()  # a view is more than a pipe holds


@pytest.fixture
def views(tmp_path):
    """Return an endless stream of batches from two workers, each of which has sent one: both have started.

    A signal that comes between the fork and the first line of Python in the worker is lost.
    """
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    found = view_batches(itertools.repeat([(path, None)]), LARGE, ImageStore(0), 2)
    next(found), next(found)
    yield found
    found.close()


@pytest.mark.parametrize("n_batches", [2, 20])
def test_an_interrupted_worker_ends_with_batches_that_nobody_reads(views, n_batches):
    """Ctrl-C stops all processes like this. Each hanging worker would delay the end by five seconds."""
    for _ in range(n_batches - 2):
        next(views)
    workers = multiprocessing.active_children()
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    for worker in workers:
        worker.join(30)
    assert len(workers) == 2 and [worker.exitcode for worker in workers] == [0, 0]


def test_workers_that_cannot_be_started_are_one_line(tmp_path, monkeypatch):
    """Containers limit the number of processes."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)

    def without_process(*_):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", without_process)
    with pytest.raises(DataError, match=r"cannot start 2 worker processes: Resource temporarily unavailable; DATALOADER\.NUM"):
        next(view_batches(iter([[(path, None)]]), LARGE, ImageStore(0), 2))
