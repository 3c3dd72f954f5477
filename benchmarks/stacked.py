"""Would runs of a sweep gain by fitting together, as one stacked batch? Steps of N_RUNS runs, one by one and stacked.

    OMP_NUM_THREADS=1 python -m benchmarks.stacked > benchmarks/stacked.md

Heads: softmax regression on features as wide as ViT-B/32's, 47 classes, by Adam, which is what the steps of every trained head
do at least. Stacked, a batched matrix product and one optimizer serve all runs. CoOp: ViT-B/32's text tower with random
weights, 16 shared tokens. Stacked is one run on N_RUNS times the classes, which is less work than it would be, as the runs
would not share their context tokens. Both take turns; a figure is the median CPU seconds of one thread.

The second table counts what a GPU would be asked to do in a fit of each head on DTD: operators that compute something, each of
which is one kernel or more. Fits are real, on ViT-B/32 features (`../shared/data`).
"""

import platform
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tabulate import tabulate
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.learner_speed import head_trainer, medians
from benchmarks.learners import HEADS
from benchmarks.surrogate import load_features
from benchmarks.trainers import build_clip, build_model, class_names, our_features, step
from trainers.clip.frozen_clip import FrozenCLIP

N_RUNS, N_CLASSES, WIDTH = 5, 47, 512
LABELED = (28, 141, 282)
STEPS = 200  # of a head in one turn
TURNS = 5
NO_WORK = {"_local_scalar_dense", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty", "empty_like",
           "empty_strided", "expand", "lift_fresh", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t",
           "transpose", "unbind", "unfold", "unsqueeze", "view"}  # operators that make a view or room, or read a value


class Launches(TorchDispatchMode):
    """Counts as `n` the operators that compute something."""

    n = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        self.n += function._schema.name.split("::")[1] not in NO_WORK
        return function(*arguments, **(named or {}))


def head_steps(n_runs: int, n_labeled: int) -> Callable[[], None]:
    """Return a function that takes STEPS steps of that many heads, stacked."""
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(n_runs, n_labeled, WIDTH, generator=generator), dim=2)
    targets = torch.randint(N_CLASSES, (n_runs * n_labeled,), generator=generator)
    weights = torch.zeros(n_runs, WIDTH, N_CLASSES, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=1e-3)

    def steps() -> None:
        for _ in range(STEPS):
            logits = 100 * torch.bmm(features, weights)
            loss = n_runs * F.cross_entropy(logits.flatten(0, 1), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return steps


def coop_steps(clip: FrozenCLIP, names: Sequence[str]) -> Callable[[], float]:
    """Return a function that takes a step of CoOp on classes of these names."""
    model = build_model(clip, names, 16, False)
    return lambda: step(model, our_features)


def launches(name: str, data: Any) -> list:
    """Return a head's name and the number of computing operators of its fits on LABELED labels."""
    _, trainer = head_trainer(name, data)
    labels, found = data.dataset.labels("train"), [name]
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    for n_labeled in LABELED:
        with Launches() as counted:
            trainer.fit(order[:n_labeled], labels[order[:n_labeled]], 0)
        found.append(counted.n)
    return found


def both(single: Sequence[Callable[[], object]], stacked: Callable[[], object]) -> list[float]:
    """Return the median CPU seconds of all single tasks, of the stacked one, and their ratio."""
    found = medians({"single": lambda: [task() for task in single], "stacked": stacked}, TURNS)
    return [found["single"], found["stacked"], found["single"] / found["stacked"]]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for n_labeled in LABELED:
        seconds = both([head_steps(1, n_labeled) for _ in range(N_RUNS)], head_steps(N_RUNS, n_labeled))
        rows.append([f"{STEPS} steps of a head on {n_labeled} labels", *seconds])
    clip, names = build_clip(), class_names(N_RUNS * N_CLASSES + 1)[:-1]  # the last one is long
    parts = [names[start:start + N_CLASSES] for start in range(0, len(names), N_CLASSES)]
    rows.append(["a step of CoOp", *both([coop_steps(clip, part) for part in parts], coop_steps(clip, names))])
    print("# Stacked runs\n\nCommand: `OMP_NUM_THREADS=1 python -m benchmarks.stacked > benchmarks/stacked.md`\n")
    print(f"{N_RUNS} runs, {N_CLASSES} classes, one thread of {platform.machine()}, torch {torch.__version__}; medians of "
          f"{TURNS} turns, CPU seconds. The head\nof the script says what is measured.\n")
    print(tabulate(rows, ["what", f"{N_RUNS} runs one by one", "stacked", "ratio"], tablefmt="github",
                   floatfmt=("", ".3f", ".3f", ".2f")))
    data = load_features("dtd")
    print("\nOperators of a fit:\n")
    print(tabulate([launches(name, data) for name in HEADS], ["learner", *(f"{n} labels" for n in LABELED)], tablefmt="github"))


if __name__ == "__main__":
    main()
