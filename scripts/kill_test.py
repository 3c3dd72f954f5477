"""Kill `train.py` again and again and compare what is left with an uninterrupted run.

    python scripts/kill_test.py --kills 100 > benchmarks/kills.md

Each run is `configs/quickstart.yaml` with another sampler or learner and few epochs, from an empty data root and cache. It is
started and killed with SIGKILL, at a named event (`dassl.utils.events`, any of its first occurrences) or at a random
moment of the time that an uninterrupted run takes, started again, and so on; at last it is left alone until it ends.
A start is a fork of a process that has imported `train.py` and done nothing else, which saves the seconds of the import.
Then every file but the log must equal that of the uninterrupted run bit for bit, `results.json` without its times.
"""

import argparse
import contextlib
import gc
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from active.record.results import MEASURED  # noqa: E402
from dassl.config.cli import command  # noqa: E402
from dassl.utils import events  # noqa: E402
from dassl.utils.run_folder import LOCK, LOG, RESULTS  # noqa: E402

RUNS = {
    "coreset, CoOp": (),
    "entropy, CoOp": ("ACTIVE.SAMPLER", "entropy"),
    "badge, CoOp": ("ACTIVE.SAMPLER", "badge"),
    "cbsq, CoOp": ("ACTIVE.SAMPLER", "cbsq"),
    "pcb, CoOp": ("ACTIVE.SAMPLER", "pcb"),
    "gcnal, CoOp": ("ACTIVE.SAMPLER", "gcnal"),
    "dual_prompt, DualPrompt": ("ACTIVE.SAMPLER", "dual_prompt", "--config-file", "configs/trainers/DualPrompt/tiny_clip.yaml"),
    "typiclust, VPT": ("ACTIVE.SAMPLER", "typiclust", "--config-file", "configs/trainers/VPT/tiny_clip.yaml"),
    "alfa_mix, MaPLe": ("ACTIVE.SAMPLER", "alfa_mix", "--config-file", "configs/trainers/MaPLe/tiny_clip.yaml"),
}
FEW = ("ACTIVE.ROUNDS", "3", "OPTIM.MAX_EPOCH", "3")


@dataclass
class Outcome:
    """What became of one run: kills by what they hit, and the files that differ at the end."""

    kills: Counter = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)
    n_files: int = 0


def run(folder: Path, words: tuple[str, ...], kill_at: str) -> None:
    """Run `train.py` in this process, in a folder that holds its own data root, output and what it says."""
    import train

    gc.freeze()  # what a collection looks at is copied
    events.kill_at(kill_at)
    os.chdir(PROJECT)
    folder.mkdir(exist_ok=True)
    with (folder / "said.txt").open("w") as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = train.main(["--config-file", "configs/quickstart.yaml", "--root", str(folder / "data"),
                           "--output-dir", str(folder / "run"), *FEW, *words])
    sys.exit(code)


def start(folder: Path, words: tuple[str, ...], plan: str | float) -> int:
    """Return the exit code of a run that is killed at an event, or after some seconds.

    Raises RuntimeError with what the run said if it failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train"])
    process = context.Process(target=run, args=(folder, words, plan if isinstance(plan, str) else ""))
    process.start()
    process.join(None if isinstance(plan, str) else plan)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{folder} {words} ended with {process.exitcode}: {(folder / 'said.txt').read_text()}")
    return process.exitcode


def finish(folder: Path, words: tuple[str, ...]) -> float:
    """Run to the end and return the seconds it took."""
    begin = time.perf_counter()
    start(folder, words, "")
    return time.perf_counter() - begin


def killed(folder: Path, words: tuple[str, ...], plan: str | float) -> str | None:
    """Start a run, kill it at an event or after some seconds, and return what it hit; None if it ended before."""
    if start(folder, words, plan) == 0:
        return None
    return plan.split(":")[0] if isinstance(plan, str) else "any moment"


def plans(rng: random.Random, seconds: float) -> Iterator[str | float]:
    """Yield where to kill, without end: each event at one of its first occurrences, then a random moment, and so on."""
    while True:
        for event in rng.sample(events.EVENTS, len(events.EVENTS)):
            yield f"{event}:{rng.choice((1, 1, 2, 3))}"
            yield rng.uniform(0, 1.1) * seconds


def content(folder: Path) -> dict[str, str]:
    """Return each file of an output folder, in hexadecimal; the record without times, no log, no lock."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes().hex() for path in sorted(folder.rglob("*"))
             if path.is_file() and path.name not in (LOG, LOCK, RESULTS)}
    record = json.loads((folder / RESULTS).read_text())
    record.pop("checksum")  # covers the times
    for part in (*record["rounds"], record["config"]):
        for key in (*MEASURED, "OUTPUT_DIR"):
            part.pop(key, None)
    record["config"]["DATASET"].pop("ROOT")
    return files | {RESULTS: json.dumps(record)}


def kill_until_done(folder: Path, words: tuple[str, ...], n_kills: int, seed: int) -> Outcome:
    """Return the outcome of a run that is killed `n_kills` times, compared with one that is not."""
    outcome, rng = Outcome(), random.Random(seed)
    seconds = finish(folder / "whole", words)
    todo = plans(rng, seconds)
    while outcome.kills.total() < n_kills:
        hit = killed(folder / "killed", words, next(todo))
        if hit is None:  # the run has ended: begin a new one, after comparing this one
            compare(folder, outcome)
            shutil.rmtree(folder / "killed")
        else:
            outcome.kills[hit] += 1
    finish(folder / "killed", words)
    compare(folder, outcome)
    return outcome


def compare(folder: Path, outcome: Outcome) -> None:
    """Note the files in which the killed run and the whole one differ."""
    whole, other = content(folder / "whole" / "run"), content(folder / "killed" / "run")
    outcome.n_files += len(whole)
    outcome.different += [name for name in sorted(whole.keys() | other.keys()) if whole.get(name) != other.get(name)]


def main() -> int:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--kills", type=int, default=100, help="in all, shared out evenly over the runs")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    arguments = flags.parse_args()
    outcomes, begin = {}, time.perf_counter()
    shares = [arguments.kills // len(arguments.runs)] * len(arguments.runs)
    for index in range(arguments.kills % len(arguments.runs)):
        shares[index] += 1
    for index, (name, share) in enumerate(zip(arguments.runs, shares, strict=True)):
        with tempfile.TemporaryDirectory() as folder:
            outcomes[name] = kill_until_done(Path(folder), RUNS[name], share, arguments.seed + index)
        print(f"{name}: {share} kills, different: {outcomes[name].different or 'nothing'}", file=sys.stderr, flush=True)
    report(outcomes, time.perf_counter() - begin)
    return 1 if any(outcome.different for outcome in outcomes.values()) else 0


def report(outcomes: dict[str, Outcome], seconds: float) -> None:
    """Print the outcomes as Markdown."""
    hits = [*events.EVENTS, "any moment"]
    rows = [[name, *(outcome.kills[hit] for hit in hits), outcome.kills.total(), outcome.n_files, len(outcome.different)]
            for name, outcome in outcomes.items()]
    totals = [sum(column) for column in itertools.islice(zip(*rows, strict=True), 1, None)]
    print("# Kills: what is left equals an uninterrupted run\n")
    print(f"Command: `python {' '.join([Path(sys.argv[0]).as_posix(), *sys.argv[1:]])}`, {seconds / 60:.0f} minutes.\n")
    print(f"{__doc__.split(chr(10) * 2)[2].strip()}\n")
    print("Kills by the event they hit; files compared with the uninterrupted run, and those that differ.\n")
    print(tabulate([*rows, ["all", *totals]], ["run", *hits, "kills", "files", "different"], tablefmt="github"))


if __name__ == "__main__":
    command("kill_test.py", main)
