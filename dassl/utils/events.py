"""Named moments of a run at which a test can kill the process: see `scripts/kill_test.py`.

`KILL_AT=after-select:2 python train.py ...` ends the process with SIGKILL when it reaches that event the second time.
Without the variable, an event costs one comparison.
"""

import os
import signal
from collections import Counter
from typing import NoReturn

EVENTS = ("extract", "before-select", "after-select", "train", "after-fit", "after-evaluate", "write", "rename", "renamed")

_kill_at = os.environ.get("KILL_AT", "")
_seen: Counter[str] = Counter()


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; like Ctrl-C it unwinds the process from wherever it is, and every file stays whole."""


def stopped_by(error: KeyboardInterrupt) -> tuple[int, str]:
    """Return the exit code of a command that was stopped by this error, and what stopped it."""
    return (143, "SIGTERM") if isinstance(error, Terminated) else (130, "Ctrl-C")


def event(name: str) -> None:
    """Say that the run has reached one of `EVENTS`."""
    if _kill_at:
        _seen[name] += 1
        if _kill_at == f"{name}:{_seen[name]}":
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at(event: str) -> None:
    """Set the event to kill at, as the environment variable does, from now on; "" never kills."""
    global _kill_at
    _kill_at = event
    _seen.clear()


def stop_on_sigterm() -> None:
    """Make SIGTERM raise `Terminated` in the main thread of this process, once: a second one changes nothing."""

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
