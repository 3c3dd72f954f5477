"""A run as a table and as a learning curve."""

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from active.record.results import RoundRecord, RunResult
from dassl.evaluation.metrics import factor_of, head_of, is_percent, title_of
from dassl.utils.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table(result: RunResult) -> str:
    """Return the run as text: round, sampler, labels paid for, its metrics, seconds.

    Further columns appear where they hold information: answers that are not labels (images that were skipped, are of no
    class, or left people unsure), the audit, kappa, and, for runs that trained on the model's own guesses, the number of
    guesses, the labels that they saved and the share that is right. Without test images the metrics are "-".
    """
    rounds = result.rounds
    names = list(rounds[0].metrics) if rounds else ["accuracy"]
    measured = [result.zero_shot, *(own.metrics for own in rounds)]
    metrics = [(head_of(name), [_shown(name, own.get(name, "")) for own in measured],
                ".2f" if is_percent(name) else ".4g") for name in names]
    columns = [
        ("round", ["zero-shot", *(own.round for own in rounds)], ""), ("sampler", ["", *(own.sampler for own in rounds)], ""),
        ("labels", [0, *(own.n_paid for own in rounds)], "d"), *metrics,
        ("seconds", [None, *(sum(own.seconds.values()) for own in rounds)], ".1f"),
        *((head, [None, *map(value, rounds)], form) for head, form, is_shown, value in FURTHER if any(map(is_shown, rounds)))]
    heads, values, forms = zip(*columns, strict=True)
    return tabulate([*zip(*values, strict=True)], heads, floatfmt=forms, tablefmt="simple")


def audit_in_words(audit: Mapping[str, float]) -> str:
    """Return an audit as a sentence: "82 % of new images like these are labeled right, between ..."."""
    share, low, high = (f"{100 * audit[name]:.0f}" for name in ("accuracy", "low", "high"))
    return (f"{share} % of new images like these are labeled right, between {low} and {high} % at 95 % confidence, by "
            f"{audit['n']:.0f} random labels")


def in_words(metrics: Mapping[str, float | None]) -> str:
    """Return metrics as part of a sentence: "accuracy 51.20 %, ECE -"."""
    return ", ".join(f"{title_of(name)} {in_unit(name, value)}" for name, value in metrics.items())


def in_unit(metric: str, value: float | None) -> str:
    """Return a metric's value as text: "51.20 %", or with four digits if it is not a share; "-" for none."""
    return percent(value) if is_percent(metric) or value is None else f"{value:.4g}"


def percent(fraction: float | None) -> str:
    """Return a fraction as text with two decimals, "-" for none."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def _has_others(own: RoundRecord) -> bool:
    return bool(own.n_skipped or own.n_none or own.n_unsure)


def _has_guesses(own: RoundRecord) -> bool:
    return bool(own.n_pseudo)


def _has_audit(own: RoundRecord) -> bool:
    return bool(own.audit)


# head, format, the rounds in which it holds information, and its value
FURTHER = (
    ("skipped", "d", _has_others, attrgetter("n_skipped")), ("none", "d", _has_others, attrgetter("n_none")),
    ("unsure", "d", _has_others, attrgetter("n_unsure")),
    ("audit %", ".1f", _has_audit, lambda own: 100 * own.audit["accuracy"] if own.audit else None),
    ("95 % interval", "", _has_audit, lambda own: _interval(own.audit)),
    ("kappa", ".3f", lambda own: own.kappa is not None, attrgetter("kappa")),
    ("pseudo", "d", _has_guesses, attrgetter("n_pseudo")), ("saved", "d", _has_guesses, attrgetter("n_saved")),
    ("precision %", ".2f", _has_guesses, lambda own: None if own.pseudo_precision is None else 100 * own.pseudo_precision))


def _interval(audit: Mapping[str, float]) -> str | None:
    return f"{100 * audit['low']:.1f} - {100 * audit['high']:.1f}" if audit else None


def _shown(metric: str, value: float | str | None) -> float | str | None:
    """Return a metric's value as shown in its column: "-" without test images, nothing where it is unknown."""
    if value is None or value == "":
        return "-" if value is None else None
    return factor_of(metric) * value


def has_curve(result: RunResult) -> bool:
    """Tell whether there is anything to draw: test images, or an audit."""
    return bool(result.dataset["n_test"]) or any(record.audit for record in result.rounds)


def plot_learning_curve(result: RunResult, path: Path) -> None:
    """Write the learning curve as a PNG file."""
    with atomic_path(path) as temporary:
        learning_curve(result).savefig(temporary, dpi=150, format="png", metadata={"Software": None})


def learning_curve(result: RunResult) -> "Figure":
    """Return test accuracy over paid labels, with the zero-shot line and the audit's intervals."""
    from matplotlib.figure import Figure  # imported here because tables are printed without it

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    if result.zero_shot["accuracy"] is not None:
        zero_shot = 100 * result.zero_shot["accuracy"]
        axes.axhline(zero_shot, color="0.5", linestyle="--", label=f"zero-shot ({zero_shot:.1f} %)")
        axes.plot([record.n_paid for record in result.rounds], [100 * record.accuracy for record in result.rounds],
                  color="#0072B2", marker="o", label=result.config["ACTIVE"]["SAMPLER"])
    if audits := [(record.n_paid, record.audit) for record in result.rounds if record.audit]:
        shares = [100 * own["accuracy"] for _, own in audits]
        ends = [[abs(100 * own[end] - share) for (_, own), share in zip(audits, shares, strict=True)]
                for end in ("low", "high")]
        axes.errorbar([paid for paid, _ in audits], shares, yerr=ends, color="#D55E00", marker="s", capsize=3,
                      label="by the audit, 95 %")
    axes.set_xlabel("labels paid for")
    axes.set_ylabel("accuracy [%]" if audits else "test accuracy [%]")
    axes.set_title(f"{result.dataset['name']}, {result.config['TRAINER']['NAME']}, seed {result.config['SEED']}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure
