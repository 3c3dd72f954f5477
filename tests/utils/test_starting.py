"""Ctrl-C and the garbage collector while a command imports what it needs."""

import gc
import os
import subprocess
import sys

import pytest

from dassl.utils import starting
from dassl.utils.environment import PROJECT
from tests import commands

INTERRUPT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "difflib":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.starts
@pytest.mark.parametrize("command", [
    ["train.py", "--list"], ["scripts/sweep.py", "--help"], ["scripts/plot.py", "--help"], ["scripts/report.py", "--help"],
    ["scripts/summarize.py", "--help"], ["scripts/kill_test.py", "--help"], ["-m", "datasets.check"],
    ["-m", "datasets.prepare"], ["-m", "active.verify"]])
def test_ctrl_c_during_the_imports_is_one_line(tmp_path, command):
    """The moment is exact: the signal comes when a library is looked for that all of them need."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "\nstopped by Ctrl-C before anything was begun\n")


def test_who_imports_a_command_keeps_ctrl_c():
    """`train` is a library too, for the workers of a sweep."""
    code = "import signal, sys; import train; sys.exit(signal.getsignal(signal.SIGINT) is not signal.default_int_handler)"
    assert commands.run([sys.executable, "-c", code]).returncode == 0


def test_the_collector_rests_while_a_command_imports():
    """From `end` on it works, but rarely. A process that is no command, such as a test's, keeps its own settings."""
    code = ("import gc; from dassl.utils import starting; starting.begin(); off = gc.isenabled(); starting.end(); "
            "print(off, gc.isenabled(), gc.get_freeze_count() > 0, gc.get_threshold()[0])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout == "False True True 100000\n"
    before = gc.get_threshold()
    starting.end()
    assert gc.isenabled() and gc.get_threshold() == before


def test_a_run_imports_no_scikit_learn():
    """Metrics, a data set that is there and the default sampler need none of it."""
    code = ("import sys; import datasets.digits, dassl.evaluation.metrics as m, numpy as np; "
            "m.macro_f1(np.eye(3), np.arange(3)); m.accuracy(np.eye(3), np.arange(3)); print('sklearn' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout == "False\n"
