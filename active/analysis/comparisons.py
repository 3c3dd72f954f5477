"""Methods against one another: average ranks with their critical difference, and the wins of every pair.

The functions take the records of one table (one learner, backbone and query size) and count only finished runs. Where
there is nothing to compare, DataError says why.
"""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from active.analysis.figures import finished_rounds
from active.analysis.records import Records
from active.analysis.style import BLACK, plain, styled
from active.analysis.tests_of_difference import (
    DIGITS,
    Friedman,
    by_block,
    friedman,
    last_values,
    wins_ties_losses,
)
from dassl.evaluation.metrics import lower_is_better, title_of
from dassl.utils.errors import DataError

ALPHA = 0.05  # of the critical difference


def average_ranks(part: Records, metric: str = "accuracy") -> Friedman:
    """Return the average ranks, 1 is best, over the (data set, seed) in which all methods have the last round.

    Raises DataError if there are fewer than two methods, or no such block.
    """
    blocks = by_block(last_values(part, metric))
    if len(blocks.columns) < 2:
        raise DataError("ranks need finished runs of two methods")
    result = friedman(blocks, lower_is_better=lower_is_better(metric))
    if not result.n_blocks:
        raise DataError("there is no data set and seed for which all methods have finished")
    return result


def critical_difference(n_methods: int, n_blocks: int, alpha: float = ALPHA) -> float:
    """Return by how much two average ranks must differ for Nemenyi's test to call the methods different at level alpha.

    Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, section 3.2.2.
    """
    from scipy.stats import studentized_range

    q = studentized_range.ppf(1 - alpha, n_methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks)))


def win_shares(part: Records, metric: str = "accuracy") -> pd.DataFrame:
    """Return [method, method], in [0, 1]: the share of (data set, seed, round) in which the row is better than the column.

    A tie is half a win for both. Each pair is compared where both methods have a value; where they never do, and on the
    diagonal, the share is NaN. Methods are ordered by their mean share, best first.
    """
    values = finished_rounds(part, metric).pivot(index=["dataset", "seed", "round"], columns="method", values=metric)
    if len(values.columns) < 2:
        raise DataError("wins need finished runs of two methods")
    shares = pd.DataFrame(np.nan, list(values), list(values))
    for row in values:
        for column in values.columns.drop(row):
            differences = (values[row] - values[column]).dropna().to_numpy()
            if len(differences):
                wins, ties, _ = wins_ties_losses(differences, lower_is_better=lower_is_better(metric))
                shares.loc[row, column] = (wins + ties / 2) / len(differences)
    order = shares.mean(axis=1).round(DIGITS).sort_values(ascending=False, kind="stable").index
    return shares.loc[order, order]


@styled
def draw_ranks(part: Records, metric: str = "accuracy") -> Figure:
    """Return the average ranks, best on top, each with a bar of one critical difference around it.

    Two methods differ at the level ALPHA if their bars do not overlap.
    """
    result = average_ranks(part, metric)
    ranks = result.ranks.sort_values(ascending=False, kind="stable")
    reach = critical_difference(len(ranks), result.n_blocks) / 2
    figure = Figure(figsize=(6.5, 1.2 + 0.26 * len(ranks)), layout="constrained")
    axes = figure.add_subplot()
    best = ranks.iloc[-1]
    axes.axvspan(best - reach, best + reach, color="0.92", linewidth=0)
    for height, rank in enumerate(ranks):
        apart = rank - best > 2 * reach
        axes.plot([rank - reach, rank + reach], [height, height], color="0.45" if apart else BLACK, linewidth=2.2)
        axes.plot(rank, height, marker="o", color="white" if apart else BLACK, markeredgecolor=BLACK, markersize=6)
        axes.annotate(f"{rank:.2f}", (rank, height), (0, 4), textcoords="offset points", ha="center", fontsize=7)
    axes.set_yticks(range(len(ranks)), [plain(method) for method in ranks.index])
    axes.set_ylim(-0.6, len(ranks) - 0.2)
    axes.set_xticks(range(1, len(ranks) + 1, 1 + len(ranks) // 10))
    axes.set_xlabel(f"average rank by {title_of(metric)} (1 is best); pairs of data set and seed: {result.n_blocks}; bars: "
                    f"critical difference {2 * reach:.2f}", fontsize=8)
    axes.grid(axis="y", visible=False)
    return figure


@styled
def draw_wins(part: Records, metric: str = "accuracy") -> Figure:
    """Return the matrix of win shares in percent, darker where higher."""
    shares = win_shares(part, metric)
    side = 0.42 * len(shares)
    longest = 0.075 * max(map(len, shares))
    figure = Figure(figsize=(side + longest + 0.6, side + longest + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        text = "" if row == column else "–" if math.isnan(share) else f"{100 * share:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.6 else BLACK)
    names = [plain(method) for method in shares]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("row better than column [%]")
    return figure
