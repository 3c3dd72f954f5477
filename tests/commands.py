"""Python commands for tests, without the CPU seconds that each start takes to import torch and others.

    done = commands.run([sys.executable, "train.py", "--list"], capture_output=True, text=True)

`run` and `popen` stand for `subprocess.run` and `subprocess.Popen`. A command is still a process of its own: a fork of a server
that has imported `LIBRARIES` and nothing of this project. It gets arguments, folder, environment, streams and signal handlers
as from a shell, and its script is run as `__main__`. The server is that of `multiprocessing`, one for each process of pytest;
it computes nothing, so that its forks miss no thread.

What Python and OpenMP read before the first line cannot be given to a fork: with flags of Python, or other values of the
variables of `READ_AT_THE_START` than the server's, a command is started in full.
"""

import atexit
import functools
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection, forkserver
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen
from subprocess import run as start
from typing import IO

LIBRARIES = ("torch", "torchvision.transforms", "open_clip", "sklearn.cluster", "sklearn.datasets", "sklearn.manifold",
             "sklearn.metrics", "sklearn.model_selection", "scipy.stats", "pandas", "matplotlib.figure", "safetensors.torch",
             "PIL.Image", "yacs.config", "yaml", "tabulate", "tqdm", "filelock", "requests")
READ_AT_THE_START = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "LD_", "LC_", "LANG")
UNBUFFERED = "PYTHONUNBUFFERED"
HEEDED = (UNBUFFERED, "PYTHONBREAKPOINT")  # of these variables, by a fork too; Ray sets the second in this process

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(LIBRARIES))
_lock = threading.Lock()  # starting a command polls all processes: if two poll one at once, its exit code is lost


def run(words: Sequence[object], *, capture_output: bool = False, check: bool = False, **options) -> CompletedProcess:
    """Return what `subprocess.run` does."""
    if not _can_fork(words, options.get("env")):
        return start(words, capture_output=capture_output, check=check, **options)
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    with popen(words, **options) as process:
        try:
            out, err = process.communicate()
        finally:
            process.kill()
    done = CompletedProcess(words, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def popen(words: Sequence[object], *, env: Mapping[str, str] | None = None, **options) -> "Fork | Popen":
    """Return a started command. For a fork, `options` are those of `Fork`."""
    if not _can_fork(words, env):
        return Popen(words, env=env, **options)
    return Fork([os.fspath(word) for word in words[1:]], os.environ if env is None else env, **options)


@functools.cache
def begin() -> dict[str, str]:
    """Start the server if it is not running yet, and return the environment that it started with."""
    forkserver.ensure_running()
    return dict(os.environ)


class Fork:
    """A command in a fork of the server, with the methods of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], *, stdin: int | IO | None = DEVNULL,
                 stdout: int | IO | None = None, stderr: int | IO | None = None, cwd: str | Path | None = None,
                 start_new_session: bool = False, text: bool = False, encoding: str = "utf-8", errors: str = "strict"):
        self.returncode: int | None = None
        how = {"encoding": encoding, "errors": errors} if text else {}
        ends = [_ends(number, stream, how) for number, stream in enumerate((stdin, stdout, stderr))]
        self.stdin, self.stdout, self.stderr = (end for _, end in ends)
        streams = [connection.Connection(descriptor) for descriptor, _ in ends]
        arguments = (words, dict(env), os.path.abspath(cwd or os.getcwd()), streams, start_new_session)
        self._process = _context.Process(target=_be_command, args=arguments, daemon=True)
        with _lock:
            self._process.start()
        self.pid = self._process.pid
        for stream in streams:
            stream.close()

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream:
                stream.close()
        self.wait()

    def poll(self) -> int | None:
        with _lock:
            self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self.returncode

    def communicate(self, input: str | bytes | None = None, timeout: float | None = None) -> tuple:
        if self.stdin:
            self.stdin.write(input or type(input)())
            self.stdin.close()
        with ThreadPoolExecutor(2) as readers:
            texts = [readers.submit(stream.read) if stream else None for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        return tuple(text and text.result() for text in texts)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _can_fork(words: Sequence[object], env: Mapping[str, str] | None) -> bool:
    """Tell whether a command is Python's, without flags, and in an environment that a fork can take on."""
    if words[0] != sys.executable or (str(words[1]).startswith("-") and words[1] not in ("-c", "-m")):
        return False
    return _read_at_the_start(os.environ if env is None else env) == _read_at_the_start(begin())


def _read_at_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_THE_START) and name not in HEEDED}


def _ends(number: int, stream: int | IO | None, how: Mapping[str, str]) -> tuple[int, IO | None]:
    """Return a descriptor for the command's stream of a number, and the file at this process's end of it if it is a pipe."""
    if stream == DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if stream != PIPE:
        return os.dup(number if stream is None else stream if isinstance(stream, int) else stream.fileno()), None
    read, write = os.pipe()
    theirs, ours, mode = (read, write, "w") if number == 0 else (write, read, "r")
    return theirs, open(ours, mode if how else f"{mode}b", **how)


def _be_command(words: list[str], env: dict[str, str], folder: str, streams: list, start_new_session: bool) -> None:
    """Be, in a fork of the server, what Python is between its start and its end."""
    gc.freeze()  # what a collection looks at is copied
    if start_new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    buffering = 1 if UNBUFFERED in env else -1
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", buffering, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    try:
        _run(words)
    finally:
        atexit._run_exitfuncs()


def _run(words: list[str]) -> None:
    """Run code (`-c`), a module (`-m`) or a script as `__main__`, with the module path that Python would have."""
    own = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    first, *sys.argv = words if words[0] in ("-c", "-m") else ("", *words)
    sys.path[:] = [{"-c": "", "-m": os.getcwd()}.get(first, os.path.dirname(os.path.realpath(sys.argv[0]))), *own]
    if first == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(compile(code, "<string>", "exec"), vars(main))
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
