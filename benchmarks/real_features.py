"""Every sampler on real ViT-B/32 features: test accuracy of CoOp by round, random's beside it.

    OMP_NUM_THREADS=1 nice python -m benchmarks.real_features output/real_features --workers 2    runs what is missing
    python -m benchmarks.real_features output/real_features --table                                    prints the tables
    python -m benchmarks.real_features output/other --data dtd --samplers random badge --pairs OPTIM.MAX_EPOCH 50       a part

Three data sets x two protocols x fifteen samplers x seeds 1, 2, 3; each run is a folder with its `results.json`, and the same
command continues an interrupted study. Reads `../shared/data` through the surrogate text tower, see `benchmarks/surrogate.py`:
the pool is the val split. Decided before any test accuracy was seen, and not changed since:

- CoOp of four words, "a photo of a", shared, SGD 0.002, batch 32, cosine, one warm-up epoch, unaugmented (CEC's recipe with
  CoOp's weight decay). 100 epochs for rounds of 1 % (11 to 98 labels), 30 for rounds of one label a class (47 to 612 labels);
  CoOp's own rule, 50 for one and 100 for a few labels a class, would take twice as long for the latter.
- Samplers as in `configs/active`, with six rounds in either protocol; round 0 as `ACTIVE.INITIAL_SAMPLER: auto` says.
- `dual_prompt` selects by a DualPrompt learner without visual prompts, since there are features and no images; 16 tokens of
  either sign, learning rate 0.01, batches of 16 + 64, 10 epochs (the paper's: 10 or 20). CoOp is what is reported.
- Runs of one data set, protocol and seed share fits to the same labels in the same round: the random first rounds.
"""

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from yacs.config import CfgNode

from active.build import carry_out
from active.record.results import RunResult
from active.registry import SAMPLERS, choosing_samplers
from benchmarks.surrogate import NAMES, build_feature_inputs, load_features, load_text_tower
from dassl.config.setup import drop_unused, setup_config
from dassl.utils.run_folder import RESULTS
from trainers.core.build import build_selector, build_trainer
from trainers.core.trainer import PromptTrainer
from trainers.registry import LEARNERS

CONFIGS = Path(__file__).parents[1] / "configs" / "active"
PROTOCOLS = {"1%": 100, "per_class": 30}  # the query size and its epochs
SEEDS = (1, 2, 3)
PAIRS = {"MODEL.BACKBONE.NAME": "surrogate", "TRAINER.COOP.CTX_INIT": "a photo of a", "ACTIVE.ROUNDS": "6",
         "TRAINER.DUALPROMPT.N_CTX_VISION": "0", "ACTIVE.SELECTOR_OPTIM.LR": "0.01", "ACTIVE.SELECTOR_OPTIM.MAX_EPOCH": "10",
         "ACTIVE.SELECTOR_OPTIM.BATCH_SIZE": "16", "TRAIN.PRINT_FREQ": "0"}


class SharedFits:
    """A trainer that fits the same labels in the same round once, for the runs of one data set, protocol and seed."""

    def __init__(self, trainer: PromptTrainer):
        self.trainer = trainer
        self.models: dict[tuple, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)

    def fit(self, rows: Tensor, labels: Tensor, round: int, mined: tuple[Tensor, Tensor] | None = None) -> Any:
        """Return the trainer's model of these labels; its randomness depends on the seed and the round alone."""
        key = (round, *(tuple(values.tolist()) for values in (rows, labels, *(mined or ()))))
        if key not in self.models:
            self.models[key] = self.trainer.fit(rows, labels, round, mined)
        return self.models[key]


def folder_of(output: Path, name: str, protocol: str, sampler: str, seed: int) -> Path:
    """Return where a run's record is."""
    return output / name / protocol.replace("%", "_percent") / sampler / f"seed{seed}"


def config_of(output: Path, name: str, protocol: str, sampler: str, seed: int, other: Mapping[str, str]) -> CfgNode:
    """Return the config of a run, with `other` keys than the study's."""
    pairs = PAIRS | {"DATASET.NAME": name, "ACTIVE.QUERY_SIZE": protocol, "SEED": str(seed),
                     "OPTIM.MAX_EPOCH": str(PROTOCOLS[protocol]),
                     "OUTPUT_DIR": str(folder_of(output, name, protocol, sampler, seed))} | other
    cfg = setup_config([str(CONFIGS / f"{sampler}.yaml")], list(pairs.items()), [LEARNERS, SAMPLERS])
    drop_unused(cfg, [LEARNERS, SAMPLERS], always=("ZeroShot",))
    cfg.freeze()
    return cfg


def run_samplers(output: Path, name: str, protocol: str, seed: int, samplers: Sequence[str], other: Mapping[str, str]) -> None:
    """Run what is missing of the samplers' runs on one data set with one protocol and seed, with `other` keys."""
    torch.set_num_threads(1)
    clip, data, shared = load_text_tower(), load_features(name), {}
    for sampler in samplers:
        cfg = config_of(output, name, protocol, sampler, seed, other)
        inputs = build_feature_inputs(cfg, clip, data)
        learners = build_trainer(cfg, inputs), build_selector(cfg, inputs)
        carry_out(cfg, data.dataset, *(own and shared.setdefault(own.recipe.name, SharedFits(own)) for own in learners))


def run_study(output: Path, n_workers: int, names: Sequence[str], samplers: Sequence[str], other: Mapping[str, str]) -> None:
    """Run all that is missing, the runs of a data set, protocol and seed one after another in one process."""
    samplers = sorted(samplers, key="random".__ne__)  # random first: tables of a part compare with it
    with ProcessPoolExecutor(n_workers, get_context("spawn")) as pool:
        jobs = {pool.submit(run_samplers, output, *job, samplers, other): job for job in product(names, PROTOCOLS, SEEDS)}
        for future in as_completed(jobs):
            future.result()
            print("done:", *jobs[future], flush=True)


def read(output: Path) -> pd.DataFrame:
    """Return all rounds of all runs, a row each: accuracy in percent, labels paid for, classes with a label."""
    rows = []
    for name, protocol, sampler, seed in product(NAMES, PROTOCOLS, choosing_samplers(), SEEDS):
        path = folder_of(output, name, protocol, sampler, seed) / RESULTS
        for record in RunResult.read(path).rounds if path.exists() else ():
            rows.append([name, protocol, sampler, seed, record.round, 100 * record.accuracy, record.n_paid,
                         sum(count > 0 for count in record.class_counts)])
    return pd.DataFrame(rows, columns=["data", "protocol", "sampler", "seed", "round", "accuracy", "paid", "classes"])


def accuracy_table(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy by round, mean ± standard deviation over seeds, of the runs on one data set with one protocol.

    ▼ and ▲: more than one standard deviation of random's below or above random in that round.
    """
    groups = rounds.groupby(["sampler", "round"])
    mean, deviation = groups.accuracy.mean().unstack(), groups.accuracy.std().unstack()
    far = (mean - mean.loc["random"]) / deviation.loc["random"]
    marks = far.map(lambda value: " ▼" if value < -1 else " ▲" if value > 1 else "")
    table = mean.map("{:.1f}".format) + deviation.map(" ± {:.1f}".format) + marks
    paid, classes = (groups[name].mean().unstack().map("{:.0f}".format) for name in ("paid", "classes"))
    table.columns = [f"{n} labels" for n in paid.loc["random"]]
    table["paid"], table["classes, first / last"] = paid.iloc[:, -1], classes.iloc[:, 0] + " / " + classes.iloc[:, -1]
    return table.loc[["random", *table.index.drop("random")]]


def difference_table(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracy above random's with the same seed, mean over the rounds, mean ± deviation over seeds; best first."""
    accuracy = rounds.groupby(["sampler", "seed", "data", "protocol"], sort=False).accuracy.mean().unstack(["data", "protocol"])
    groups = (accuracy - accuracy.loc["random"]).groupby("sampler")
    mean, deviation = groups.mean(), groups.std()
    table = mean.map("{:+.1f}".format) + deviation.map(" ± {:.1f}".format)
    table.columns = [", ".join(column) for column in table.columns]
    table["mean"] = mean.mean(axis=1).map("{:+.2f}".format)
    table["mean rank"] = mean.rank(ascending=False).mean(axis=1).map("{:.1f}".format)
    return table.loc[mean.mean(axis=1).sort_values(ascending=False, kind="stable").index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder of the records")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there and run nothing")
    parser.add_argument("--data", nargs="+", choices=NAMES, default=NAMES, help="only these data sets")
    parser.add_argument("--samplers", nargs="+", choices=choosing_samplers(), default=choosing_samplers(), help="only these")
    parser.add_argument("--pairs", nargs="+", default=[], metavar="KEY VALUE", help="other keys than the study's")
    arguments = parser.parse_args()
    if not arguments.table:
        other = dict(zip(arguments.pairs[::2], arguments.pairs[1::2], strict=True))
        run_study(arguments.output, arguments.workers, arguments.data, arguments.samplers, other)
    rounds = read(arguments.output)
    print(f"## Against random\n\n{difference_table(rounds).to_markdown(disable_numparse=True)}")
    for (name, protocol), runs in rounds.groupby(["data", "protocol"], sort=False):
        print(f"\n## {name}, {protocol}\n\n{accuracy_table(runs).to_markdown(disable_numparse=True)}")


if __name__ == "__main__":
    main()
