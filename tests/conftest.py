"""Fixtures shared by all tests: one torch thread, a tiny random CLIP, a few small images on disk."""

import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: also of the processes that tests start
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow, which pandas imports: forks would lack the thread

import numpy as np
import pytest
import torch

from dassl.utils.environment import PROJECT
from dassl.utils.logging import PROJECT as PACKAGES
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.job import REGISTRIES
from trainers.core.patterns import random_clip

PROJECT_FILES = ("active", "benchmarks", "configs", "dassl", "datasets", "docs", "scripts", "tests", "trainers", "train.py")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """With more threads, small models run slower and not bit for bit alike."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def heeds_ctrl_c():
    """Make processes that tests start react to Ctrl-C, even if the tests run in the background of a shell, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def working_folder(tmp_path_factory):
    """Run all tests in a folder with the project's files and nothing that runs leave lying there, such as `data` and `output`.

    It must be as empty at the end, but for what Python leaves of `train.py`: a test writes into folders of its own.
    """
    folder = tmp_path_factory.mktemp("working_folder")
    for name in PROJECT_FILES:
        (folder / name).symlink_to(PROJECT / name)
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == set(PROJECT_FILES)


@pytest.fixture(autouse=True, scope="session")
def empty_curves():
    """Let runs in this process write an empty learning curve: drawing it takes a third of a short run.

    `test_report.py` draws it, and so do runs in processes of their own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.core.job.plot_learning_curve", lambda _, path: path.touch())
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A data root that runs on the digits share, with its images and its feature cache."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def plugins_are_forgotten():
    """Remove plug-ins that a test has imported from the registries. Otherwise later tests' configs would have their keys."""
    before = set(sys.modules)
    yield
    plugins = {name for name in sys.modules if name.startswith("plugin_") and name not in before}
    for registry in REGISTRIES:  # "page" is what the Python of a page of documentation is called
        for component in [one for one in registry._components.values() if one.build.__module__ in plugins | {"page"}]:
            del registry._components[component.name]
    for name in plugins:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def logging_is_as_in_a_fresh_process():
    """Take away what runs in this process, and a test itself, set up: it would write lines of later tests."""
    _forget_logging()  # of what was set up for all tests of a file
    before = list(logging.getLogger().handlers)
    yield
    _forget_logging(before)


def _forget_logging(known: Sequence[logging.Handler] | None = None) -> None:
    """Set levels back, and close handlers of runs or, if some are known, all others."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if type(handler).__module__ == "dassl.utils.logging" if known is None else handler not in known:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(logging.WARNING)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def global_random_state():
    """Fail the test if it leaves a global random generator of Python, NumPy or torch in another state."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    yield
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.fixture(scope="session")
def clip() -> FrozenCLIP:
    return random_clip()


@pytest.fixture(scope="session")
def clip64() -> FrozenCLIP:
    return random_clip(torch.float64)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and split files beside the project; where it is absent, the test is skipped."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real images are not here")
    return folder
