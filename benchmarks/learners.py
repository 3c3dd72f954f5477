"""Learners on real ViT-B/32 features: test accuracy, recall on classes without a label, seconds of a fit.

    OMP_NUM_THREADS=1 nice python -m benchmarks.learners output/learners --workers 2     runs what is missing
    python -m benchmarks.learners output/learners --table                                prints the tables
    python -m benchmarks.learners output/learners --figure benchmarks/learners.png       draws accuracy over labels a class
    python -m benchmarks.learners output/part --data dtd --learners GDA CoOp --seeds 1    a part
    python -m benchmarks.learners output/samplers --learners GDA --samplers random cec cb --absent masked    other samplers
    python -m benchmarks.learners output/samplers --against random    prints what samplers gain

Three data sets x rounds of 1 % and of one label a class x `random` and `cec` x `TRAINER.ABSENT` masked and pushed x seeds,
six rounds each; a run is a folder with `results.json` and `watched.json`, and the same command continues an interrupted study.
Reads `../shared/data` through the surrogate text tower, see `benchmarks/surrogate.py`: the pool is the val split, one fixed
view an image. Decided before any test accuracy was seen: each learner as its page `configs/trainers/<Learner>/vit_b32.yaml`
says, but for augmentation, of which cached features have none, and for CoOp's and ProGrad's epochs, 50, as their papers take
with one label a class; heads with 5 seeds, learners of prompts with 3. Temperatures (`TRAINER.CALIBRATION`) are fitted at one
and three labels a class under `random`, with seed 1. Constants that a learner's file marks as chosen on DTD, Flowers102 or
Caltech101 were chosen on these very sets.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor
from yacs.config import CfgNode

from active.build import carry_out
from active.record.results import RunResult
from active.registry import SAMPLERS
from benchmarks.surrogate import NAMES, build_feature_trainer, load_features, load_text_tower
from dassl.config.reading import read_yaml
from dassl.config.setup import drop_unused, setup_config
from dassl.evaluation.metrics import expected_calibration_error
from dassl.utils.environment import PROJECT
from dassl.utils.run_folder import RESULTS
from trainers.core.recipe import Setting
from trainers.core.trainer import PromptTrainer
from trainers.registry import LEARNERS

PROMPTS = ("CoOp", "KgCoOp", "ProGrad")
HEADS = ("LinearProbe", "GDA", "RLA", "TipAdapter", "TipAdapterF", "LPpp", "CrossModal", "CLIPAdapter")
PROTOCOLS, CHOOSERS, ABSENT = ("1%", "per_class"), ("random", "cec"), ("masked", "pushed")
EPOCHS = {"CoOp": "50", "ProGrad": "50"}
CALIBRATED = {"protocol": "per_class", "sampler": "random", "absent": "masked", "seed": 1}
KEPT = ("OPTIM", "DATALOADER", "TRAINER")  # of a page; its backbone and augmentation are not at hand


class Cell(NamedTuple):
    """One run."""

    data: str
    protocol: str
    sampler: str
    absent: str
    learner: str
    seed: int


class Watched:
    """A trainer that notes, for each fit, its seconds and the recall on test images of classes without a label.

    With `calibrates`, also the calibration error on the test split before and after temperature scaling, in rounds 0 and 2.
    """

    def __init__(self, trainer: PromptTrainer, *, calibrates: bool = False):
        self.trainer, self.seen, self.given = trainer, [], ()
        recipe = replace(trainer.recipe, calibrated=True)
        self.calibrated = PromptTrainer(Setting(trainer.inputs, trainer.texts, recipe)) if calibrates else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    def fit(self, rows: Tensor, labels: Tensor, round: int) -> Any:
        start = time.process_time()
        model = self.trainer.fit(rows, labels, round)
        self.given = rows, labels, round
        self.seen.append({"seconds": time.process_time() - start, "labels": len(labels), "present": labels.unique().tolist()})
        return model

    def predict(self, model: Any, split: str) -> Any:
        found = self.trainer.predict(model, split)
        if split == "test" and self.seen:
            truth = self.trainer.inputs.dataset.labels("test")
            absent = ~torch.isin(truth, torch.tensor(self.seen[-1]["present"]))
            hits = (found.logits.argmax(1) == truth)[absent]
            self.seen[-1]["absent_recall"] = float(hits.double().mean()) if len(hits) else None
            if self.calibrated and self.given[2] in (0, 2):
                temperature = self.calibrated.fit(*self.given).temperature
                errors = (expected_calibration_error((found.logits / own).softmax(1).numpy(), truth.numpy())
                          for own in (1.0, temperature))
                self.seen[-1] |= dict(zip(("ece", "calibrated_ece"), errors, strict=True), temperature=temperature)
        return found


def folder_of(output: Path, cell: Cell) -> Path:
    """Return where a run's record is."""
    return output.joinpath(cell.data, cell.protocol.replace("%", "_percent"), *cell[2:5], f"seed{cell.seed}")


def config_of(output: Path, cell: Cell) -> CfgNode:
    """Return the config of a run."""
    page = read_yaml(PROJECT / "configs" / "trainers" / cell.learner / "vit_b32.yaml")
    registries = [LEARNERS, SAMPLERS]
    cfg = setup_config([], [
        ("MODEL.BACKBONE.NAME", "surrogate"), ("DATASET.NAME", cell.data), ("ACTIVE.QUERY_SIZE", cell.protocol),
        ("ACTIVE.SAMPLER", cell.sampler), ("ACTIVE.ROUNDS", "6"), ("SEED", str(cell.seed)), ("TRAIN.PRINT_FREQ", "0"),
        ("OUTPUT_DIR", str(folder_of(output, cell))), ("TRAINER.ABSENT", cell.absent),
        *[("OPTIM.MAX_EPOCH", EPOCHS[name]) for name in (cell.learner,) if name in EPOCHS]], registries,
        recorded={node: page[node] for node in KEPT if node in page})
    drop_unused(cfg, registries, always=("ZeroShot",))
    cfg.freeze()
    return cfg


def is_calibrated(cell: Cell) -> bool:
    """Tell whether a run fits temperatures."""
    return cell.learner in HEADS and CALIBRATED.items() <= cell._asdict().items()


def run(output: Path, cell: Cell) -> None:
    """Do one run, unless it is there."""
    torch.set_num_threads(1)
    notes = folder_of(output, cell) / "watched.json"
    if notes.exists():
        return
    cfg, data = config_of(output, cell), load_features(cell.data)
    watched = Watched(build_feature_trainer(cfg, load_text_tower(), data), calibrates=is_calibrated(cell))
    carry_out(cfg, data.dataset, watched)
    if len(watched.seen) == cfg.ACTIVE.ROUNDS:  # else it was continued, and begins anew the next time
        notes.write_text(json.dumps([{key: own for key, own in seen.items() if key != "present"} for seen in watched.seen]))
    else:
        (folder_of(output, cell) / RESULTS).unlink()


def read(output: Path) -> pd.DataFrame:
    """Return all rounds of all runs, a row each; accuracies in percent, `shots` labels a class."""
    rows = []
    for notes in sorted(output.rglob("watched.json")):
        record = RunResult.read(notes.with_name(RESULTS))
        cell = Cell(*notes.parent.relative_to(output).parts[:-1], record.config["SEED"])
        for own, seen in zip(record.rounds, json.loads(notes.read_text()), strict=True):
            recall = seen["absent_recall"]
            rows.append((*cell, own.round, own.n_paid / record.dataset["n_classes"], 100 * own.accuracy,
                         None if recall is None else 100 * recall, seen["seconds"], 100 * record.zero_shot["accuracy"],
                         *(seen.get(name) for name in ("ece", "calibrated_ece", "temperature"))))
    return pd.DataFrame(rows, columns=[*Cell._fields, "round", "shots", "accuracy", "absent_recall", "seconds", "zero_shot",
                                       "ece", "calibrated_ece", "temperature"])


def tables(rounds: pd.DataFrame) -> str:
    """Return a table for each data set, protocol and sampler: accuracy and recall on absent classes by round, both losses."""
    parts = []
    for (data, protocol, sampler), own in rounds.groupby(["data", "protocol", "sampler"], sort=False):
        mean = own.groupby(["learner", "absent", "round"])[["accuracy", "absent_recall", "seconds"]].mean()
        shown = {keys: [*(f"{part.accuracy:.1f}" + (f" ({part.absent_recall:.0f})" if pd.notna(part.absent_recall) else "")
                          for part in group.itertuples()), f"{group.seconds.mean():.2f}"]
                 for keys, group in mean.groupby(level=[0, 1], sort=False)}
        frame = pd.DataFrame(shown, index=[*(f"round {round}" for round in range(6)), "s a fit"]).T
        frame.index = [" ".join(names) for names in frame.index]
        parts.append(f"## {data}, {protocol.replace('_percent', ' %')}, {sampler}\n\nZero-shot {own.zero_shot.mean():.1f}; "
                     f"{own.shots.min():.2g} to {own.shots.max():.2g} labels a class.\n\n{frame.to_markdown()}")
    return "\n\n".join(parts)


def effect_of_masking(rounds: pd.DataFrame) -> str:
    """Return a table: masked minus pushed accuracy in points, mean over data sets, samplers and seeds, by round."""
    wide = rounds.pivot_table(index=["protocol", "learner", "data", "sampler", "seed"], columns=["absent", "round"],
                              values="accuracy")
    gains = (wide["masked"] - wide["pushed"]).dropna()
    shown = gains.groupby(["protocol", "learner"], sort=False).mean().round(1)
    shown["cells"] = gains.groupby(["protocol", "learner"], sort=False).size()
    shown["round 0 better in"] = (gains[0] > 0).groupby(level=["protocol", "learner"], sort=False).sum()
    return shown.reset_index().to_markdown(index=False)


def calibration(rounds: pd.DataFrame) -> str:
    """Return a table: the calibration error on the test split in percent, before and after, with the temperature."""
    own = rounds.dropna(subset="ece")
    shown = pd.DataFrame({f"{data}, {int(round) + 1} a class": part.set_index("learner").apply(
        lambda row: f"{100 * row.ece:.1f} -> {100 * row.calibrated_ece:.1f} (T {row.temperature:.2g})", axis=1)
        for (data, round), part in own.groupby(["data", "round"])})
    return shown.to_markdown()


def gains(rounds: pd.DataFrame, baseline: str) -> str:
    """Return a table: points of accuracy above a sampler, mean over rounds and seeds, by learner, protocol and data set."""
    run = ["learner", "protocol", "data", "absent", "seed"]
    means = rounds.groupby([*run, "sampler"]).accuracy.mean().unstack()
    above = means.sub(means[baseline], axis=0).groupby(run[:3]).mean()
    shown = above.groupby(level=[0, 1]).mean().T
    shown.columns = [f"{learner}, {protocol.replace('_percent', ' %').replace('per_class', 'one a class')}"
                     for learner, protocol in shown.columns]
    shown["better in"] = (above > 0).sum().astype(str) + f" of {len(above)}"
    return shown.drop(baseline).assign(mean=above.mean()).sort_values("mean", ascending=False).round(1).to_markdown()


def draw(rounds: pd.DataFrame, path: Path) -> None:
    """Draw masked accuracy above zero-shot over labels a class, one panel a data set, means over samplers and seeds."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    own = rounds[rounds.absent == "masked"].assign(gain=lambda frame: frame.accuracy - frame.zero_shot)
    for axes, (data, part) in zip(figure.subplots(1, own.data.nunique(), squeeze=False)[0], own.groupby("data"), strict=True):
        for index, (learner, line) in enumerate(part.groupby("learner")):
            mean = line.groupby(line.shots.round(2)).gain.mean()
            axes.plot(mean.index, mean, marker="osD^vPX*"[index % 8], markersize=4, label=learner)
        axes.axhline(0, color="0.5", linestyle="--")
        axes.set(xscale="log", title=data, xlabel="labels a class", ylabel="accuracy above zero-shot [points]")
        axes.set_xticks((0.25, 0.5, 1, 2, 4), ("1/4", "1/2", "1", "2", "4"))
        axes.minorticks_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("output", type=Path)
    flags.add_argument("--workers", type=int, default=1)
    flags.add_argument("--data", nargs="+", choices=NAMES, default=NAMES)
    flags.add_argument("--learners", nargs="+", choices=[*HEADS, *PROMPTS], default=[*HEADS, *PROMPTS])
    flags.add_argument("--samplers", nargs="+", default=CHOOSERS)
    flags.add_argument("--seeds", nargs="+", type=int, help="by default 1 to 5 for heads, 1 to 3 for learners of prompts")
    flags.add_argument("--absent", nargs="+", choices=ABSENT, default=ABSENT)
    flags.add_argument("--table", action="store_true")
    flags.add_argument("--against", metavar="SAMPLER")
    flags.add_argument("--figure", type=Path)
    arguments = flags.parse_args(argv)
    if arguments.table or arguments.figure or arguments.against:
        rounds = read(arguments.output)
        if arguments.against:
            print(gains(rounds, arguments.against))
        if arguments.figure:
            draw(rounds, arguments.figure)
        if arguments.table:
            print(tables(rounds), "## Masked minus pushed, points", effect_of_masking(rounds),
                  "## Calibration error, percent", calibration(rounds), sep="\n\n")
        return
    cells = [Cell(data, protocol, sampler, absent, learner, seed)
             for seed in arguments.seeds or range(1, 6)
             for learner in arguments.learners for data, protocol, sampler, absent in product(
                 arguments.data, PROTOCOLS, arguments.samplers, arguments.absent)
             if arguments.seeds or seed <= (5 if learner in HEADS else 3)]
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        jobs = {pool.submit(run, arguments.output, cell): cell for cell in cells}
        for future in as_completed(jobs):
            future.result()
            print("done:", *jobs[future], flush=True)


if __name__ == "__main__":
    main()
