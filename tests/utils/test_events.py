"""Events and SIGTERM, in processes of their own."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


EVENTS = "from dassl.utils.events import event\nfor name in 'abab': event(name); print(name, flush=True)"


@pytest.mark.parametrize(("kill_at", "seen"), [("a:1", ""), ("b:1", "a\n"), ("a:2", "a\nb\n"), ("b:2", "a\nb\na\n")])
def test_the_process_dies_at_the_event_and_the_count_that_were_asked_for(kill_at, seen):
    """Row 9: by SIGKILL, before anything after it happens."""
    done = run(EVENTS, KILL_AT=kill_at)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, seen)


@pytest.mark.parametrize("kill_at", ["", "a:3", "c:1", "a"])
def test_an_event_that_does_not_come_kills_nothing(kill_at):
    """An empty variable kills nothing either."""
    assert run(EVENTS, KILL_AT=kill_at).stdout == "a\nb\na\nb\n"


def test_sigterm_unwinds_as_ctrl_c_does():
    """Row 10: `finally` blocks run, and `except Exception` does not swallow it."""
    code = ("import os, signal\nfrom dassl.utils.events import Terminated, stop_on_sigterm\nstop_on_sigterm()\n"
            "try:\n  try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    for _ in range(10**6): pass\n"
            "  except Exception: print('swallowed')\n  finally: print('unwound')\n"
            "except Terminated: print('stopped')")
    assert run(code).stdout == "unwound\nstopped\n"
