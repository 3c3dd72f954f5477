"""Measure what a bank of K augmented views costs in accuracy and saves in CPU seconds (`INPUT.VIEWS`).

    python -m benchmarks.views > benchmarks/views.md

The digits with the embedded tiny CLIP: CoOp and a head (CLIP-Adapter) on 100 random labels, with K = 1, 5 and 20 views of each
image, a new view every epoch, and the fixed view alone. Runs share a process, decoded images and the cache. Seconds are those
of a run without the start, of the first seed, which encodes the views, and of the others, which find a part of them.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from tabulate import tabulate

from dassl.utils.held import Held
from scripts.experiments.cell import configured
from trainers.core import job

LEARNERS = {"CoOp": "50", "CLIPAdapter": "200"}  # with their epochs
STEPS = {"crops": "['random_resized_crop', 'normalize']",
         "crops and flips": "['random_resized_crop', 'random_flip', 'normalize']"}
VIEWS = {"fixed view": None, "1": 1, "5": 5, "20": 20, "new every epoch": 0}


def run(folder: Path, learner: str, steps: str, n_views: int | None, seed: int, held: Held) -> tuple[float, float]:
    """Return the accuracy in % of a run of one round, and its CPU seconds."""
    config, epochs = f"configs/trainers/{learner}/tiny_clip.yaml", LEARNERS[learner]
    views = [] if n_views is None else ["INPUT.TRANSFORMS", STEPS[steps], "INPUT.VIEWS", str(n_views)]
    words = ["--config-file", "configs/quickstart.yaml", config, "--root", str(folder / "data"), "--seed", str(seed),
             "--output-dir", str(folder / f"{learner} {steps} {n_views} {seed}"), "ACTIVE.SAMPLER", "random",
             "ACTIVE.ROUNDS", "1", "ACTIVE.QUERY_SIZE", "100", "OPTIM.MAX_EPOCH", epochs, "VERBOSE", "false", *views]
    start = time.process_time()
    result = job.train(configured(words), held).result
    return 100 * result.rounds[-1].accuracy, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    seeds, rows, held = parser.parse_args().seeds, [], Held()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), "CoOp", "crops", None, 0, held)  # images are written and features extracted
        for learner in LEARNERS:
            for steps in STEPS:
                for what, n_views in VIEWS.items():
                    if n_views is None and steps != next(iter(STEPS)):
                        continue
                    found, seconds = zip(*(run(Path(name), learner, steps, n_views, seed, held) for seed in seeds), strict=True)
                    rows.append([learner, "none" if n_views is None else steps, what,
                                 f"{statistics.mean(found):.1f} ± {statistics.stdev(found):.1f}", seconds[0],
                                 statistics.median(seconds[1:])])
                    print(*rows[-1], file=sys.stderr, flush=True)
    print("# Views: what a bank of augmented views costs and saves\n")
    print("Command: `python -m benchmarks.views > benchmarks/views.md`\n")
    print(f"The digits, the embedded tiny CLIP, 100 random labels, seeds {', '.join(map(str, seeds))}, one thread of "
          f"{platform.machine()}. Accuracy in % on the test split, mean ± standard deviation; CPU seconds of a run without its "
          "start.\n")
    print(tabulate(rows, ["learner", "augmentation", "views of an image", "accuracy", "CPU s, first seed", "CPU s, others"],
                   tablefmt="github", floatfmt=".2f"))


if __name__ == "__main__":
    main()
