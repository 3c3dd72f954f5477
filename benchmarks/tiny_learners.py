"""All learners on the digits: one table and one figure of the runs of `configs/experiments/tiny_learners.yaml`.

    python scripts/sweep.py --config-file configs/experiments/tiny_learners.yaml
    python -m benchmarks.tiny_learners output/tiny_learners --figure benchmarks/tiny/learners.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from active.analysis.records import load_records

SHOWN = (0, 2, 5)  # rounds of the table


def read(output: Path) -> pd.DataFrame:
    """Return a row for each round of each run: learner, method, seed, round, n_paid, accuracy in percent, zero_shot."""
    records = load_records([output])
    zero_shot = records.runs[["learner", "method", "seed", "zero_shot"]]
    rounds = records.rounds.merge(zero_shot, on=["learner", "method", "seed"])
    return rounds.assign(accuracy=100 * rounds.accuracy, zero_shot=100 * rounds.zero_shot)


def table(rounds: pd.DataFrame) -> str:
    """Return mean and deviation over seeds of each learner and sampler, by the mean of all rounds, the best first."""
    shown = {}
    for (learner, _), own in rounds.groupby(["learner", "method"]):
        by_round = own[own["round"].isin(SHOWN)].groupby("round").accuracy
        cells = [f"{mean:.1f} ± {deviation:.1f}" for mean, deviation in zip(by_round.mean(), by_round.std(), strict=True)]
        shown.setdefault(learner, []).extend([*cells, f"{own.accuracy.mean():.1f}"])
    methods = sorted(rounds.method.unique())
    columns = [f"{method}, {part}" for method in methods for part in (*(f"round {own}" for own in SHOWN), "all rounds")]
    frame = pd.DataFrame(shown, index=columns).T
    return frame.loc[rounds.groupby("learner").accuracy.mean().sort_values(ascending=False).index].to_markdown()


def draw(rounds: pd.DataFrame, path: Path) -> None:
    """Draw accuracy over paid labels, one panel a sampler, means over seeds."""
    figure, methods = Figure(figsize=(11, 4.2), layout="constrained"), sorted(rounds.method.unique())
    for axes, method in zip(figure.subplots(1, len(methods), sharey=True), methods, strict=True):
        for index, (learner, own) in enumerate(rounds[rounds.method == method].groupby("learner")):
            mean = own.groupby("round")[["n_paid", "accuracy"]].mean()
            axes.plot(mean.n_paid, mean.accuracy, marker="osD^vPX*"[index % 8], linestyle=("-", "--", ":")[index // 8],
                      color=f"C{index % 8}", markersize=4, label=learner)
        axes.axhline(rounds.zero_shot.mean(), color="0.5", linestyle="-.", label="zero-shot")
        axes.set(title=method, xlabel="paid labels", ylabel="test accuracy [%]")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("output", type=Path)
    flags.add_argument("--figure", type=Path)
    arguments = flags.parse_args(argv)
    rounds = read(arguments.output)
    if arguments.figure:
        draw(rounds, arguments.figure)
    print(table(rounds))


if __name__ == "__main__":
    main()
