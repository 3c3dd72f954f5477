"""Give the commands odd inputs and check that each ends properly: exit code 0 to 3, no traceback, no hang.

    python scripts/fuzz.py --seconds 60 --seed 1
    python scripts/fuzz.py --only cache:17

Inputs are configs, command lines, records, splits, labels, images, caches and paths, see `scripts/fuzzing/inputs.py`; each is a
fixed function of its kind and its seed, so that --only repeats one. Every input has its own small world in a temporary folder.
Commands run in forks of this process: a hang or a crash is noticed, and they do not affect each other. A fork that has used
`--cpu` seconds of a core, or has not ended after four times as many by the clock, counts as a hang. The exit code is 0 if
nothing was found and 1 if something was.
"""

import argparse
import gc
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

import torch

import active.verify
import datasets.check
import datasets.prepare
import train
from dassl.config.cli import Parser, command
from dassl.utils.errors import ConfigError, UserError, did_you_mean
from scripts import plot, predict, report, summarize, sweep
from scripts.fuzzing.inputs import KINDS, Place, make_photos

COMMANDS = {"train": train, "sweep": sweep, "summarize": summarize, "plot": plot, "report": report, "check": datasets.check,
            "prepare": datasets.prepare, "verify": active.verify, "predict": predict}
CODES = range(4)
N_BYTES = 2**34  # of address space: code that asks for more has not checked a size


@dataclass(frozen=True)
class Fault:
    """An input after which a command did not end properly, the command, and what happened."""

    kind: str
    seed: int
    words: list[str]
    what: str
    said: str

    def __str__(self) -> str:
        words = " ".join(map(ascii, self.words))
        return f"{self.kind}:{self.seed} {self.what}\n  {words[:2000]}\n{self.said[-3000:]}"


class Fuzzer:
    """A finished run on a few images, copied for each input. Use it as a context: it lies in a temporary folder."""

    def __init__(self, cpu_seconds: int = 60):
        self.cpu_seconds = cpu_seconds
        self.codes = Counter()  # how many inputs ended with which exit code
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def __enter__(self) -> "Fuzzer":
        place = Place(self._folder / "whole")
        make_photos(place.folder)
        for (name, words), expected in ((place.train(output="run"), 0), (place.ask(), 3)):
            code, said = self._run(COMMANDS[name].main, words, place.folder)
            if code != expected:
                raise UserError(f"a run that inputs are made of ended with {code}:\n{said}")
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self._folder)

    def fault(self, kind: str, seed: int) -> Fault | None:
        """Return what is wrong with how a command ends on an input, None if nothing is."""
        place = Place(self._folder / "input")
        shutil.copytree(self._folder / "whole", place.folder)
        try:
            name, words = KINDS[kind](Random(f"{kind} {seed}"), place)
            code, said = self._run(COMMANDS[name].main, words, place.folder)
        finally:
            _remove(place.folder)
        self.codes[code] += 1
        what = "a traceback" if "Traceback" in said else "" if code in CODES else _meaning(code)
        return Fault(kind, seed, [name, *words], what, said) if what else None

    def _run(self, main: Callable, words: Sequence[str], folder: Path) -> tuple[int, str]:
        """Return the exit code of a command in a fork (negative for a signal that ended it), and its output."""
        said = folder / "said.txt"
        sys.stdout.flush()
        if not (child := os.fork()):
            _be_child(main, words, folder, said, self.cpu_seconds)
        code = _wait(child, 4 * self.cpu_seconds)
        return code, said.read_text("utf-8", "backslashreplace") if said.exists() else ""


def _be_child(main: Callable, words: Sequence[str], folder: Path, said: Path, cpu_seconds: int) -> None:
    """Run a command with its streams in a file, and end this process as Python would."""
    code = 70
    gc.freeze()  # a collection would copy the pages it touches
    try:
        os.setsid()  # so that its own children end with it
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout, sys.stderr = (open(stream, "w", errors="backslashreplace", closefd=False) for stream in (1, 2))  # noqa: SIM115
        os.chdir(folder)
        os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
        resource.setrlimit(resource.RLIMIT_AS, (N_BYTES, N_BYTES))
        sweep.run = lambda *_: None  # cells are runs of train.py, in processes that take seconds to start
        code = main(list(words))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def _wait(child: int, seconds: float) -> int:
    """Return the exit code of a process; it is killed, with its own children, after some seconds of the clock."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _kill_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    _kill_group(child)
    os.waitpid(child, 0)
    return -signal.SIGALRM


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _meaning(code: int) -> str:
    if code in (-signal.SIGALRM, -signal.SIGXCPU):
        return "hangs"
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _remove(folder: Path) -> None:
    """Remove a folder, however deep it is."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def cases(kinds: Iterable[str], seed: int) -> Iterator[tuple[str, int]]:
    """Yield inputs endlessly: each kind in turn, with increasing seeds."""
    for number in itertools.count(seed * 1_000_000):
        for kind in kinds:
            yield kind, number


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="fuzz.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--seconds", type=float, default=60, metavar="S", help="stop after this many, default 60")
    flags.add_argument("--inputs", type=int, metavar="N", help="stop after N inputs instead")
    flags.add_argument("--seed", type=int, default=1, metavar="N", help="other inputs for each")
    flags.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND", help=f"of {', '.join(KINDS)}; all by default")
    flags.add_argument("--only", metavar="KIND:SEED", help="one input again")
    flags.add_argument("--cpu", type=int, default=60, metavar="S", help="seconds of a core that an input may take, default 60")
    return flags


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """Yield the inputs that the flags ask for; raises ConfigError for an unknown kind."""
    kind, _, seed = (arguments.only or f"{arguments.kinds[0]}:0").partition(":")
    for name in (kind, *arguments.kinds):
        if name not in KINDS:
            raise ConfigError(f"unknown kind {name!r}; {did_you_mean(name, KINDS)}")
    if arguments.only:
        if not seed.isdecimal():
            raise ConfigError(f"--only is {arguments.only!r}, but must be KIND:SEED, such as cache:17")
        return iter([(kind, int(seed))])
    every = cases(arguments.kinds, arguments.seed)
    if arguments.inputs is not None:
        return itertools.islice(every, arguments.inputs)
    end = time.monotonic() + arguments.seconds
    return itertools.takewhile(lambda _: time.monotonic() < end, every)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    torch.set_num_threads(1)  # forks of a process with more threads would wait for threads that they lack
    n_faults = 0
    try:
        arguments = parser().parse_args(argv)
        inputs = chosen(arguments)
        with Fuzzer(arguments.cpu) as fuzzer:
            for kind, seed in inputs:
                if fault := fuzzer.fault(kind, seed):
                    n_faults += 1
                    print(f"{fault}\nagain: python scripts/fuzz.py --only {kind}:{seed}\n", flush=True)
    except UserError as error:
        print(f"fuzz.py: {error}", file=sys.stderr)
        return error.exit_code
    counts = ", ".join(f"{number} with {code}" for code, number in sorted(fuzzer.codes.items()))
    print(f"{fuzzer.codes.total()} inputs ended, {counts}; {n_faults} faults")
    return 1 if n_faults else 0


if __name__ == "__main__":
    command("fuzz.py", main)
