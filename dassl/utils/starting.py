"""Ctrl-C while a command still imports: the process ends at once, with a line and exit code 130, and without a trace.

`begin` is called first by what is run as a command, before torch and others are imported, which takes seconds; `end` when its
`main` is called. There is nothing to lose in between.
"""

import os
import signal


def begin() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored already, as in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def end() -> None:
    """Let Ctrl-C be a KeyboardInterrupt again, which a command can answer."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(*_: object) -> None:
    os.write(2, b"\nstopped by Ctrl-C before anything was begun\n")
    os._exit(130)
