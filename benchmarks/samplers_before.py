"""Compare what samplers cost, and pick, with another checkout of this project.

    OMP_NUM_THREADS=1 python -m benchmarks.samplers_before FOLDER > benchmarks/samplers_before.md

FOLDER holds the other checkout. Both take turns, each in a process of its own; a figure is the least CPU time of all selections
of the same context by one thread.
"""

import json
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

SIZES = {"DTD": (2820, 47, 28), "Caltech101": (4128, 100, 41)}  # images, classes, labels asked for
TURNS, REPEATS = 3, 3
HERE = Path(__file__).resolve().parents[1]
MEASURE = """
import json, sys, time
import torch
from benchmarks.samplers import choosing_samplers, select, synthetic
from active.testing import sampler_by_name
torch.set_num_threads(1)
found = {}
for name in choosing_samplers():
    for size in json.loads(sys.argv[1]):
        seconds = []
        for _ in range(int(sys.argv[2])):
            ctx = synthetic(*size)
            start = time.process_time()
            rows = select(sampler_by_name(name), ctx).rows.tolist()
            seconds.append(time.process_time() - start)
        found[f"{name} {size[0]}"] = [min(seconds), rows]
print(json.dumps(found))
"""
HEAD = """# What samplers cost beside an earlier commit

Written by `OMP_NUM_THREADS=1 python -m benchmarks.samplers_before FOLDER`, FOLDER being a checkout of {commit}.
CPU seconds of one thread, the least of {n} selections of one context; *ratio* is now / before. *picks*: whether they are the
same.

"""


def measured(folder: Path) -> dict[str, tuple[float, list[int]]]:
    """Return the least seconds and the picks of every sampler of a checkout at each size."""
    command = [sys.executable, "-c", MEASURE, json.dumps(list(SIZES.values())), str(REPEATS)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table of all samplers that both checkouts have."""
    other = Path(sys.argv[1])
    runs = {folder: [] for folder in (other, HERE)}
    for _ in range(TURNS):
        for folder, own in runs.items():
            own.append(measured(folder))
    rows = []
    for key in runs[other][0]:
        if key in runs[HERE][0]:
            before, now = (min(run[key][0] for run in runs[folder]) for folder in (other, HERE))
            same = runs[other][0][key][1] == runs[HERE][0][key][1]
            name, size = key.split()
            place = next(place for place, own in SIZES.items() if str(own[0]) == size)
            rows.append([name, place, f"{before:.3f}", f"{now:.3f}", f"{now / before:.2f}", "same" if same else "others"])
    commit = subprocess.run(["git", "log", "-1", "--format=%h of %as"], cwd=other, capture_output=True, text=True).stdout
    print(HEAD.format(commit=commit.strip(), n=TURNS * REPEATS)
          + tabulate(rows, ["sampler", "size", "before", "now", "ratio", "picks"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
