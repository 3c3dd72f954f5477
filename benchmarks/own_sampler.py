"""Which form of `promptherding` to ship, by a protocol that was fixed before the first run.

    OMP_NUM_THREADS=1 nice python -m benchmarks.own_sampler output/own_sampler --workers 2    runs what is missing
    python -m benchmarks.own_sampler output/own_sampler --table                               prints the tables
    python -m benchmarks.own_sampler output/part --learners GDA --seeds 1 --data dtd    a part

Candidates K0 to K3 are `FORMS`; `uherding` is to be beaten, others are for comparison. Development sets are Caltech101, DTD and
Flowers102 of `../shared/data` through the surrogate text tower (`benchmarks/surrogate.py`): the pool is their val split, the
test set their test split. Six rounds of 1 % and of one label a class. A seed is a random 80 % of the pool, shared by all
samplers, since herding has no randomness of its own. Learners: GDA and LinearProbe as their pages say, masked, and CoOp of
four words with 100 epochs for 1 % and 30 for one label a class. The score is the mean accuracy of the six rounds minus
uherding's on the same sub-pool. Seeds are averaged within a set, and sets are the units of a sign-flip permutation test, with
Holm's correction over the two protocols.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import permutation_test
from yacs.config import CfgNode

from active.analysis.tests_of_difference import holm
from active.build import carry_out
from active.record.results import RunResult
from active.registry import SAMPLERS
from benchmarks.learners import KEPT, PROTOCOLS
from benchmarks.surrogate import NAMES, RealFeatures, build_feature_trainer, load_features, load_text_tower
from dassl.config.reading import read_yaml
from dassl.config.setup import drop_unused, setup_config
from dassl.utils.environment import PROJECT
from dassl.utils.run_folder import RESULTS
from dassl.utils.seeding import rng_for
from trainers.registry import LEARNERS

SHARE = 0.8  # of the pool in a sub-pool
FORMS = {  # keys below ACTIVE.PROMPTHERDING
    "K0": {"KERNEL": "plain", "BALANCE": "0.0"},
    "K1": {"KERNEL": "whitened", "BALANCE": "0.0"},
    "K2": {"KERNEL": "whitened", "BALANCE": "0.25"},
    "K3": {"KERNEL": "guided", "BALANCE": "0.0"},
    "K1, u = 1": {"KERNEL": "whitened", "BALANCE": "0.0", "UNCERTAINTY": "none"},  # is whitening alone enough?
}
BESIDE = ("uherding", "maxherding", "cb", "cec", "typiclust", "badge", "margin", "random")
TUNED = ("GDA", "LinearProbe", "CoOp")
EPOCHS = {"1%": "100", "per_class": "30"}  # of CoOp


class Cell(NamedTuple):
    """One run."""

    learner: str
    data: str
    protocol: str
    sampler: str
    seed: int


def sub_pool(data: RealFeatures, seed: int) -> RealFeatures:
    """Return a data set whose pool is a random share of the pool, the same for all samplers."""
    n = len(data.dataset.train)
    kept = np.sort(rng_for(seed, "sub-pool", data.dataset.name).permutation(n)[: round(SHARE * n)])
    dataset = replace(data.dataset, train=tuple(data.dataset.train[row] for row in kept))
    return RealFeatures(dataset, data.features | {"train": data.features["train"][torch.from_numpy(kept)]})


def folder_of(output: Path, cell: Cell) -> Path:
    """Return where a run's record is."""
    return output.joinpath(*(own.replace("%", "_percent").replace(", u = 1", "_u1") for own in cell[:4]), f"seed{cell.seed}")


def config_of(output: Path, cell: Cell) -> CfgNode:
    """Return the config of a run."""
    sampler = {"ACTIVE.SAMPLER": "promptherding" if cell.sampler in FORMS else cell.sampler}
    form = {f"ACTIVE.PROMPTHERDING.{key}": value for key, value in FORMS.get(cell.sampler, {}).items()}
    learner = {"TRAINER.ABSENT": "masked"}
    if cell.learner == "CoOp":
        learner = {"OPTIM.MAX_EPOCH": EPOCHS[cell.protocol], "TRAINER.COOP.CTX_INIT": "a photo of a"}
    pairs = {"MODEL.BACKBONE.NAME": "surrogate", "DATASET.NAME": cell.data, "ACTIVE.QUERY_SIZE": cell.protocol,
             "ACTIVE.ROUNDS": "6", "SEED": str(cell.seed), "TRAIN.PRINT_FREQ": "0",
             "OUTPUT_DIR": str(folder_of(output, cell))} | sampler | form | learner
    page = read_yaml(PROJECT / "configs" / "trainers" / cell.learner / "vit_b32.yaml")
    registries = [LEARNERS, SAMPLERS]
    cfg = setup_config([], list(pairs.items()), registries, recorded={node: page[node] for node in KEPT if node in page})
    drop_unused(cfg, registries, always=("ZeroShot",))
    cfg.freeze()
    return cfg


def run(output: Path, cell: Cell) -> None:
    """Do one run, or what is missing of it."""
    torch.set_num_threads(1)
    cfg, data = config_of(output, cell), sub_pool(load_features(cell.data), cell.seed)
    carry_out(cfg, data.dataset, build_feature_trainer(cfg, load_text_tower(), data))


def scores(output: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return, of each finished run, the mean accuracy of its rounds in percent."""
    rows = []
    for cell in cells:
        path = folder_of(output, cell) / RESULTS
        rounds = RunResult.read(path).rounds if path.exists() else ()
        if len(rounds) == 6:
            rows.append((*cell, 100 * float(np.mean([own.accuracy for own in rounds]))))
    return pd.DataFrame(rows, columns=[*Cell._fields, "score"])


def sign_flip(values: np.ndarray) -> float:
    """Return the two-sided p-value of a sign-flip permutation test, over all patterns, that the mean of differences is 0."""
    return float(permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue)


def table(found: pd.DataFrame) -> str:
    """Return the scores of one learner minus uherding's: mean ± deviation over sub-pools by set, and the test over sets."""
    wide = found.set_index(["protocol", "data", "seed", "sampler"]).score.unstack()
    above = wide.sub(wide["uherding"], axis=0).stack().rename("gain").reset_index()
    groups = above.groupby(["sampler", "protocol", "data"], sort=False).gain
    mean, deviation = groups.mean().unstack(["protocol", "data"]), groups.std().unstack(["protocol", "data"])
    shown = mean.map("{:+.2f}".format) + deviation.map(" ± {:.2f}".format)
    shown.columns = [", ".join(names) for names in shown.columns]
    for protocol in PROTOCOLS:
        shown[f"mean, {protocol}"] = mean[protocol].mean(axis=1).map("{:+.2f}".format)
    tests = {sampler: holm(np.array([sign_flip(row[protocol].dropna().to_numpy()) for protocol in PROTOCOLS]))
             for sampler, row in mean.iterrows()}
    shown["p, Holm"] = [" / ".join(f"{p:.2f}" for p in tests[sampler]) for sampler in shown.index]
    order = mean.T.groupby(level="protocol").mean().T.mean(axis=1).sort_values(ascending=False).index
    return shown.loc[order].to_markdown(disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("output", type=Path)
    flags.add_argument("--workers", type=int, default=1)
    flags.add_argument("--learners", nargs="+", choices=TUNED, default=TUNED)
    flags.add_argument("--data", nargs="+", choices=NAMES, default=NAMES)
    flags.add_argument("--samplers", nargs="+", choices=[*FORMS, *BESIDE], default=[*FORMS, *BESIDE])
    flags.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    flags.add_argument("--table", action="store_true", help="print the tables of what is there and run nothing")
    arguments = flags.parse_args(argv)
    cells = [Cell(learner, data, protocol, sampler, seed) for learner, seed, data, protocol, sampler in product(
        arguments.learners, arguments.seeds, arguments.data, PROTOCOLS, arguments.samplers)]
    if not arguments.table:
        with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
            jobs = {pool.submit(run, arguments.output, cell): cell for cell in cells}
            for future in as_completed(jobs):
                future.result()
                print("done:", *jobs[future], flush=True)
    found = scores(arguments.output, cells)
    for learner, own in found.groupby("learner", sort=False):
        print(f"\n## {learner}: {len(own)} runs\n\n{table(own)}")


if __name__ == "__main__":
    main()
