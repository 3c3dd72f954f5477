"""Ctrl-C while a command imports what it needs."""

import os
import subprocess
import sys

import pytest

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
