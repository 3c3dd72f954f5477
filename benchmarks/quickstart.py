"""Measure the quickstart: its time by step, its memory, and the accuracies of samplers over seeds.

    python benchmarks/quickstart.py > benchmarks/quickstart.md

Each run is a process of its own, `configs/quickstart.yaml` with another sampler and seed. The first one starts from an
empty data root, so that it writes the images and extracts the features; the others find both.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

PROJECT = Path(__file__).parents[1]
SAMPLERS = ("random", "entropy", "coreset")
SEEDS = (1, 2, 3)


def run(folder: Path, sampler: str, seed: int) -> tuple[dict, float]:
    """Return the record of one run and the seconds of its whole process."""
    output = folder / f"{sampler}_{seed}"
    words = ["--config-file", "configs/quickstart.yaml", "--root", folder / "data", "--output-dir", output,
             "--seed", seed, "ACTIVE.SAMPLER", sampler]
    start = time.perf_counter()
    subprocess.run([sys.executable, "train.py", *map(str, words)], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)
    return json.loads((output / "results.json").read_text()), time.perf_counter() - start


def mean_and_deviation(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        runs = {(sampler, seed): run(Path(name), sampler, seed) for sampler in SAMPLERS for seed in SEEDS}
    records = {key: record for key, (record, _) in runs.items()}
    first, *others = [seconds for _, seconds in runs.values()]
    steps = {step: statistics.median(sum(round_["seconds"][step] for round_ in record["rounds"]) for record in records.values())
             for step in ("select", "fit", "evaluate")}
    any_record = records[SAMPLERS[0], SEEDS[0]]
    print("# Quickstart: time, memory, accuracy\n")
    print("Command: `python benchmarks/quickstart.py > benchmarks/quickstart.md`\n")
    print(f"Python {platform.python_version()}, torch {any_record['environment']['torch']}, one thread of "
          f"{platform.machine()}. {len(runs)} processes of `configs/quickstart.yaml`, other samplers and seeds.\n")
    print(tabulate([
        ["first run, images written and features extracted, whole process", f"{first:.1f} s"],
        ["later runs, whole process, median", f"{statistics.median(others):.1f} s"],
        *([f"of it {step}, all rounds, median", f"{seconds:.2f} s"] for step, seconds in steps.items()),
        ["peak memory, largest", f"{max(record['rounds'][-1]['peak_memory_mb'] for record in records.values()):.0f} MiB"],
    ], ["what", "measured"], tablefmt="github"))
    print(f"\nTest accuracy in %, mean ± standard deviation over seeds {', '.join(map(str, SEEDS))}; "
          f"zero-shot {100 * any_record['zero_shot']['accuracy']:.1f}.\n")
    labels = [round_["n_labeled"] for round_ in any_record["rounds"]]
    accuracies = {key: [round_["metrics"]["accuracy"] for round_ in record["rounds"]] for key, record in records.items()}
    print(tabulate([[sampler, *(mean_and_deviation([accuracies[sampler, seed][index] for seed in SEEDS])
                                for index in range(len(labels)))] for sampler in SAMPLERS],
                   ["sampler", *(f"{n} labels" for n in labels)], tablefmt="github"))


if __name__ == "__main__":
    main()
