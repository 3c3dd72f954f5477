"""A run as a table and as a learning curve."""

from collections.abc import Mapping
from pathlib import Path

from tabulate import tabulate

from active.record.results import RoundRecord, RunResult
from dassl.evaluation.metrics import factor_of, head_of, is_percent, title_of
from dassl.utils.files import atomic_path


def table(result: RunResult) -> str:
    """Return the run as text: round, sampler, labels paid for, its metrics, seconds.

    Runs in which people could not label each image have three further columns: how many were skipped, are of no class, and
    left them unsure. Runs that trained on the model's own guesses have three, too: their number, the labels saved by them and
    the share of them that is right. Without test images the metrics are "-".
    """
    names = list(result.rounds[0].metrics) if result.rounds else ["accuracy"]
    headers = ["round", "sampler", "labels", *map(head_of, names), "seconds"]
    rows = [["zero-shot", "", 0, *(_shown(name, result.zero_shot.get(name, "")) for name in names), None]]
    rows += [[record.round, record.sampler, record.n_paid, *(_shown(name, record.metrics[name]) for name in names),
              sum(record.seconds.values())] for record in result.rounds]
    floats = ["", "", "d", *(".2f" if is_percent(name) else ".4g" for name in names), ".1f"]
    others = [(record.n_skipped, record.n_none, record.n_unsure) for record in result.rounds]
    if any(map(any, others)):
        headers += ["skipped", "none", "unsure"]
        rows, floats = [[*row, *own] for row, own in zip(rows, [(None,) * 3, *others], strict=True)], [*floats, "d", "d", "d"]
    if any(record.n_pseudo for record in result.rounds):
        headers += ["pseudo", "saved", "precision %"]
        rows = [[*row, *own] for row, own in zip(rows, [(None,) * 3, *map(_guesses, result.rounds)], strict=True)]
        floats += ["d", "d", ".2f"]
    return tabulate(rows, headers, floatfmt=floats, tablefmt="simple")


def in_words(metrics: Mapping[str, float | None]) -> str:
    """Return metrics as part of a sentence: "accuracy 51.20 %, ECE -"."""
    return ", ".join(f"{title_of(name)} {in_unit(name, value)}" for name, value in metrics.items())


def in_unit(metric: str, value: float | None) -> str:
    """Return a metric's value as text: "51.20 %", or four digits of one that is no share; "-" for none."""
    return percent(value) if is_percent(metric) or value is None else f"{value:.4g}"


def percent(fraction: float | None) -> str:
    """Return a fraction as text with two decimals, "-" for none."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _guesses(record: RoundRecord) -> tuple[int, int, float | None]:
    precision = record.pseudo_precision
    return record.n_pseudo, record.n_saved, None if precision is None else 100 * precision


def _shown(metric: str, value: float | str | None) -> float | str | None:
    """Return a metric's value as it stands in its column: "-" where there are no test images, nothing where it is unknown."""
    if value is None or value == "":
        return "-" if value is None else None
    return factor_of(metric) * value


def plot_learning_curve(result: RunResult, path: Path) -> None:
    """Draw test accuracy over paid labels, with the zero-shot line, as a PNG."""
    from matplotlib.figure import Figure  # here, as tables are printed without it

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    zero_shot = 100 * result.zero_shot["accuracy"]
    axes.axhline(zero_shot, color="0.5", linestyle="--", label=f"zero-shot ({zero_shot:.1f} %)")
    axes.plot([record.n_paid for record in result.rounds], [100 * record.accuracy for record in result.rounds],
              color="#0072B2", marker="o", label=result.config["ACTIVE"]["SAMPLER"])
    axes.set_xlabel("labels paid for")
    axes.set_ylabel("test accuracy [%]")
    axes.set_title(f"{result.dataset['name']}, {result.config['TRAINER']['NAME']}, seed {result.config['SEED']}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png", metadata={"Software": None})
