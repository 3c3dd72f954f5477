"""Curves over rounds: the metric over paid labels, and how even the labeled classes are.

The functions take the records of one table (one learner, backbone and query size). Only finished runs are drawn; a method
that lacks some says so in its label. Where there is nothing to draw, DataError says why.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from active.analysis.records import KEYS, Records
from active.analysis.style import legend_below, method_styles, name_axes, panels, plain, styled
from active.analysis.tables import in_order
from active.analysis.tests_of_difference import FULL
from dassl.evaluation.metrics import factor_of, is_percent, title_of
from dassl.utils.errors import DataError

MANY = 8  # with more methods, panels are larger and bands fainter
ZERO_SHOT = {"color": "0.35", "linestyle": (0, (1, 2)), "marker": "", "linewidth": 1.6}
ALL_LABELS = {"color": "0.35", "linestyle": (0, (8, 2)), "marker": "", "linewidth": 1.6}


def finished_rounds(records: Records, metric: str | None = None) -> pd.DataFrame:
    """Return the rounds of the methods' finished runs, given a metric those that measured it; DataError if none."""
    done = records.runs.loc[(records.runs.status == "done") & (records.runs.method != FULL), KEYS]
    rounds = records.rounds.merge(done, on=KEYS)
    if metric:
        rounds = rounds.astype({metric: float}).dropna(subset=[metric])
    if rounds.empty:
        raise DataError("no method has a finished run" if done.empty else f"no finished run has a measured {title_of(metric)}")
    return rounds


def curves(records: Records, metric: str = "accuracy") -> pd.DataFrame:
    """Return dataset, method, round, paid, mean, std and n: the metric over the seeds of finished runs.

    `paid` is the mean number of labels paid for. `std` has ddof 1 and is NaN for a single seed.
    """
    groups = finished_rounds(records, metric).groupby(["dataset", "method", "round"])
    return groups.agg(paid=("n_paid", "mean"), mean=(metric, "mean"), std=(metric, "std"), n=(metric, "count")).reset_index()


def all_labels(records: Records, part: Records, metric: str = "accuracy") -> pd.Series:
    """Return by data set the mean metric of the finished runs with all labels that belong to the table `part`."""
    done = records.runs.loc[(records.runs.status == "done") & (records.runs.method == FULL), KEYS]
    same = ["learner", "backbone", "dataset"]
    rounds = records.rounds.merge(done, on=KEYS).merge(part.runs[same].drop_duplicates(), on=same)
    last = rounds.sort_values("round").drop_duplicates(KEYS, keep="last").astype({metric: float})
    return last.groupby("dataset")[metric].mean().dropna()


def balance(records: Records) -> pd.DataFrame:
    """Return dataset, method, round, evenness and covered: means over the seeds of finished runs.

    `evenness` is that of the labeled images' classes (see the function); `covered` the number of classes with a labeled image.
    """
    rounds = finished_rounds(records)
    rounds = rounds.assign(evenness=rounds.class_counts.map(evenness), covered=rounds.class_counts.map(np.count_nonzero))
    return rounds.groupby(["dataset", "method", "round"])[["evenness", "covered"]].mean().reset_index()


def evenness(counts: list[int]) -> float:
    """Return the entropy of class counts [C] over log C, in [0, 1]; 1 for a single class, NaN if all counts are 0."""
    total = sum(counts)
    if total == 0:
        return math.nan
    shares = np.array([count / total for count in counts if count])
    return float((shares * np.log(1 / shares)).sum() / math.log(len(counts))) if len(counts) > 1 else 1.0


@styled
def draw_curves(records: Records, part: Records, metric: str = "accuracy") -> Figure:
    """Return the metric over paid labels, one panel per data set, with bands of one standard deviation to both sides.

    Lines without points are the frozen model (for accuracy only) and the runs of `records` with all labels.
    """
    table, full = curves(part, metric), all_labels(records, part, metric)
    zero_shot = part.runs.groupby("dataset").zero_shot.mean().dropna() if metric == "accuracy" else pd.Series()
    datasets, styles = sorted(part.runs.dataset.unique()), method_styles(methods_of(part))
    many, factor = len(styles) > MANY, factor_of(metric)
    figure, axes = panels(len(datasets), size=(3.2, 2.7) if many else (2.6, 2.2))
    for panel, dataset in zip(axes, datasets, strict=True):
        for values, style in ((zero_shot, ZERO_SHOT), (full, ALL_LABELS)):
            if dataset in values:
                panel.axhline(factor * values[dataset], **style)
        lines = dict(list(table[table.dataset == dataset].groupby("method")))
        for method in [method for method in styles if method in lines]:
            paid, mean, std = (lines[method][key].to_numpy() for key in ("paid", "mean", "std"))
            low, high = factor * (mean - np.nan_to_num(std)), factor * (mean + np.nan_to_num(std))
            panel.fill_between(paid, low, high, color=styles[method]["color"], alpha=0.06 if many else 0.15, linewidth=0)
            panel.plot(paid, factor * mean, **styles[method])
        if not lines:
            panel.text(0.5, 0.5, "no finished run", ha="center", va="center", transform=panel.transAxes)
        panel.set_title(plain(dataset))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, steps=[1, 2, 5, 10]))
    name_axes(axes, "labels paid for", f"test {title_of(metric)}" + (" [%]" if is_percent(metric) else ""))
    references = ({"zero-shot": ZERO_SHOT} if len(zero_shot) else {}) | ({"all labels": ALL_LABELS} if len(full) else {})
    add_legend(figure, part, styles, references)
    return figure


@styled
def draw_balance(part: Records) -> Figure:
    """Return two panels for each data set: evenness, and number of covered classes, over the rounds."""
    table, styles = balance(part), method_styles(methods_of(part))
    datasets, n_classes = sorted(table.dataset.unique()), part.runs.groupby("dataset").n_classes.max()
    wanted = [(dataset, key) for dataset in datasets for key in ("evenness", "covered")]
    figure, axes = panels(len(wanted), size=(2.0, 1.9), n_columns=2 if len(datasets) == 3 else 4)  # pairs stay together
    for panel, (dataset, key) in zip(axes, wanted, strict=True):
        lines = dict(list(table[table.dataset == dataset].groupby("method")))
        if key == "covered":
            panel.axhline(n_classes[dataset], **ALL_LABELS)
        for method in [method for method in styles if method in lines]:
            panel.plot(lines[method]["round"], lines[method][key], **styles[method])
        panel.set_title(plain(dataset), loc="left")
        panel.set_ylabel("evenness" if key == "evenness" else "classes covered")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    name_axes(axes, "round")
    add_legend(figure, part, styles, {"number of classes": ALL_LABELS})
    return figure


def methods_of(part: Records) -> list[str]:
    """Return the methods that were asked for, in the order of the tables, without the runs that have all labels."""
    return [method for method in in_order(part.runs.method) if method != FULL]


def label_of(part: Records, method: str) -> str:
    """Return a method's name for a legend, with the number of finished runs if some that were asked for are missing."""
    runs = part.runs[part.runs.method == method]
    n_done = (runs.status == "done").sum()
    return plain(method) if n_done == len(runs) else f"{plain(method)} ({n_done} of {len(runs)} runs)"


def add_legend(figure: Figure, part: Records, styles: dict[str, Any], references: dict[str, Any]) -> None:
    """Add the legend of methods, then of reference lines, below the panels."""
    entries = {label_of(part, method): style for method, style in styles.items()} | references
    legend_below(figure, [Line2D([], [], **style) for style in entries.values()], list(entries))
