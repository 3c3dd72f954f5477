"""The start of a command, while it imports: `begin` is called first, before torch and others, `end` when its `main` is called.

Ctrl-C ends the process at once, with a line and exit code 130, and without a trace: there is nothing to lose in between. The
garbage collector rests, since what is imported stays; later it looks only now and then, as `main` imports more.
"""

import gc
import os
import signal

OBJECTS = 100_000  # new ones between two collections; Python's 700 cost a seventh of the CPU time of a small run


def begin() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored already, as in the background of a shell."""
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


def end() -> None:
    """Let Ctrl-C be a KeyboardInterrupt again, which a command can answer, and the collector work, if `begin` was called."""
    if not gc.isenabled():
        gc.freeze()
        gc.set_threshold(OBJECTS)
        gc.enable()
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(*_: object) -> None:
    os.write(2, b"\nstopped by Ctrl-C before anything was begun\n")
    os._exit(130)
