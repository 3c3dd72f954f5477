"""CPU seconds of learners at DTD's size: fits and six rounds of heads, low-rank forms beside full ones, steps of text prompts.

    OMP_NUM_THREADS=1 python -m benchmarks.learner_speed

Heads are timed on real ViT-B/32 features, see `benchmarks/surrogate.py`; text prompts on ViT-B/32's text tower with random
weights, as time does not depend on them. One thread; medians of what takes turns, CPU time of the process.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from tabulate import tabulate

from active.build import carry_out
from benchmarks.learners import HEADS, Cell, config_of
from benchmarks.surrogate import build_feature_trainer, load_features, load_text_tower
from benchmarks.trainers import build_clip, class_names
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Batch, ClassTexts, Labels
from trainers.registry import LEARNERS

SIZES, TURNS = (28, 141, 282), 3
LOW_RANK = {"LinearProbe": "trainers.linear_probe.row_basis", "RLA": "trainers.rla.row_basis"}
PROMPTS = {"CoOp": {"n_ctx": 4}, "KgCoOp": {}, "ProGrad": {"n_ctx": 4}, "TCP": {}}


def medians(tasks: Mapping[str, Callable[[], object]], turns: int = TURNS) -> dict[str, float]:
    """Return the median CPU seconds of each task; they take turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(turns + 1):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(own[1:]) for name, own in seconds.items()}


def head_trainer(name: str, data, protocol: str = "per_class", output: Path = Path("unused")):
    """Return the config of a run of a head by its page, and its trainer."""
    cfg = config_of(output, Cell("dtd", protocol, "random", "masked", name, 1))
    return cfg, build_feature_trainer(cfg, load_text_tower(), data)


def fits(data) -> list[list]:
    """Return a row for each head: seconds of a fit at each size, and of a run of six rounds by either protocol."""
    labels, rows = data.dataset.labels("train"), []
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    for name in HEADS:
        _, trainer = head_trainer(name, data)
        found = medians({size: lambda size=size, trainer=trainer: trainer.fit(order[:size], labels[order[:size]], 0)
                         for size in SIZES})
        runs = []
        for protocol in ("1%", "per_class"):
            with tempfile.TemporaryDirectory() as folder:
                cfg, trainer = head_trainer(name, data, protocol, Path(folder))
                start = time.process_time()
                carry_out(cfg, data.dataset, trainer)
                runs.append(time.process_time() - start)
        rows.append([name, *found.values(), *runs])
    return rows


@torch.no_grad()
def ratios(data) -> list[list]:
    """Return, of the exact low-rank forms, seconds to solve 28 labels, of the full form, and how many times more that is."""
    labels, rows = data.dataset.labels("train"), torch.arange(0, 1120, 40)
    found = []
    for name, basis in LOW_RANK.items():
        _, trainer = head_trainer(name, data)
        model = trainer._fresh(0)
        everything = trainer._labels({"labeled": (rows, labels[rows])}, model.learner)

        def solve(trainer=trainer, model=model, everything=everything) -> None:
            trainer._prepare(model, everything)

        def full(basis=basis, solve=solve) -> None:
            with mock.patch(basis, lambda features: torch.eye(features.shape[1], dtype=torch.float64)):
                solve()

        own = medians({"low rank": solve, "full": full}, turns=9)
        found.append([name, own["low rank"], own["full"], own["full"] / own["low rank"]])
    return found


def steps() -> list[list]:
    """Return seconds of a step of text prompts on 28 features and 47 classes, and the ratio to CoOp's."""
    clip, rng, texts = build_clip(), np.random.default_rng(0), ClassTexts(class_names(47), "a photo of a {}.")
    features = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(28, 512))).float(), dim=1)
    batch = Batch(features, torch.arange(28), clip.logit_scale, None, rng)
    with torch.no_grad():
        template = PromptedCLIP(clip, LEARNERS["ZeroShot"].build(clip, texts, rng)).classifier(
            LEARNERS["ZeroShot"].build(clip, texts, rng)()).texts
    tasks = {}
    for name, parameters in PROMPTS.items():
        learner = LEARNERS[name].build(clip, texts, np.random.default_rng(0), **parameters)
        with torch.no_grad():
            learner.prepare(some_labels(features), template, clip.logit_scale)
        model = PromptedCLIP(clip, learner)

        def step(model=model) -> None:
            model.learner.zero_grad()
            model.learner.loss(model.classifier(model.learner()), batch).backward()

        tasks[name] = step
    found = medians(tasks, 5)
    return [[name, seconds, seconds / found["CoOp"]] for name, seconds in found.items()]


def some_labels(features: torch.Tensor) -> Labels:
    """Return labels of 28 images, one a class, as `prepare` is given them."""
    counted = torch.zeros(47, dtype=torch.bool)
    counted[:28] = True
    return Labels(features, torch.arange(28), torch.ones(28), counted, features)


def main() -> None:
    """Print the three tables."""
    torch.set_num_threads(1)
    data = load_features("dtd")
    heads = ["learner", *(f"{size} labels" for size in SIZES), "six rounds of 1 %", "six rounds of one a class"]
    print(tabulate(fits(data), heads, "pipe", floatfmt=".2f"), end="\n\n")
    print(tabulate(ratios(data), ["learner", "low rank", "full", "ratio"], "pipe", floatfmt=".3f"), end="\n\n")
    print(tabulate(steps(), ["learner", "s a step", "to CoOp's"], "pipe", floatfmt=".3f"))


if __name__ == "__main__":
    main()
