"""One number per run, and tests of methods against one another, paired over (data set, seed).

Everything takes and gives fractions. A block is one data set with one seed: there all methods had the same images, the same
first weights and the same random streams, so their numbers are compared within it. Tests treat blocks as independent,
though those of one data set share its images. What cannot be computed is NaN, without a warning.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from active.analysis.records import KEYS, Records
from dassl.utils.errors import UserError, did_you_mean

TABLE = ["learner", "backbone", "query_size"]  # what one set of tables has in common
FULL = "full"  # the method whose runs have all labels in one round: a line to compare with, not a method to test
DIGITS = 9  # values that agree to this many decimals are equal; one test image makes a larger difference


def last_values(records: Records, metric: str = "accuracy") -> pd.DataFrame:
    """Return KEYS and `value`: the metric of each finished run in the last round of its data set.

    That is the last round that any finished run of the table has on the data set; a run that ended earlier has no row.
    """
    rounds = _finished(records, metric)
    last = rounds.groupby([*TABLE, "dataset"])["round"].transform("max")
    return rounds.loc[rounds["round"] == last, [*KEYS, metric]].rename(columns={metric: "value"}).reset_index(drop=True)


def areas(records: Records, metric: str = "accuracy") -> pd.DataFrame:
    """Return KEYS, `value`, `low` and `high`: each finished run's area under the curve of the metric over paid labels.

    Areas of one data set run over the paid labels `low` to `high` that all its finished runs of the table cover, from the
    latest first round to the earliest last one; where every method pays for all it asks, that is from the first round to
    the last. Runs whose paid labels do not grow, and data sets without a common range, have no row.
    """
    rows = []
    for _, rounds in _finished(records, metric).groupby([*TABLE, "dataset"], sort=False):
        curves = [(keys, curve.n_paid.to_numpy(float), curve[metric].to_numpy(float))
                  for keys, curve in rounds.sort_values("round").groupby(KEYS, sort=False)]
        curves = [(keys, paid, values) for keys, paid, values in curves if paid[-1] > paid[0]]
        low, high = (max((paid[0] for _, paid, _ in curves), default=0), min((paid[-1] for _, paid, _ in curves), default=0))
        if low < high:
            rows += [(*keys, area_under_curve(paid, values, low, high), low, high) for keys, paid, values in curves]
    return pd.DataFrame(rows, columns=[*KEYS, "value", "low", "high"])


def area_under_curve(paid: np.ndarray, values: np.ndarray, low: float, high: float) -> float:
    """Return the mean of the values [R] over the labels from `low` to `high`: the area by trapezoids, divided by the range.

    `paid` [R] does not fall; between its points, values are interpolated linearly. Where it stays equal, the curve jumps.
    """
    from scipy import integrate  # imported here because tables without tests need no scipy

    inside = (paid >= low) & (paid <= high)
    ends = np.interp([low, high], paid, values)
    labels = np.concatenate(([low], paid[inside], [high]))
    return float(integrate.trapezoid(np.concatenate((ends[:1], values[inside], ends[1:])), labels) / (high - low))


def by_block(values: pd.DataFrame) -> pd.DataFrame:
    """Return the values with a row for each (data set, seed) and a column for each method, NaN where there is none."""
    return values.pivot(index=["dataset", "seed"], columns="method", values="value")


def compare(blocks: pd.DataFrame, against: str = "random", *, lower_is_better: bool = False) -> pd.DataFrame:
    """Return one row for each other method: how it compares with `against` over the blocks in which both have a value.

    Columns: method, n_pairs; wins, ties, losses (equal to DIGITS decimals is a tie); difference (method - against, mean over
    the pairs) with its 95 % t interval low, high; p-values of the paired t-test (t) and of Wilcoxon's signed-rank test,
    without zeros (wilcoxon), two-sided; t_holm and wilcoxon_holm are corrected over the methods. With fewer than two pairs,
    or if all differences are equal, there is no interval and no p-value. Raises UserError if `against` is not among the
    methods.
    """
    if against not in blocks:
        raise UserError(f"there is no finished run of {against!r} to compare with; {did_you_mean(against, blocks)}")
    rows = [{"method": method} | _paired((blocks[method] - blocks[against]).dropna().to_numpy(), lower_is_better)
            for method in blocks if method != against]
    table = pd.DataFrame(rows, columns=["method", "n_pairs", "wins", "ties", "losses", "difference", "low", "high",
                                        "t", "wilcoxon"])
    return table.assign(t_holm=holm(table.t.to_numpy(float)), wilcoxon_holm=holm(table.wilcoxon.to_numpy(float)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return the p-values corrected for their number by Holm's step-down method (1979); NaN, for no test, stays NaN."""
    corrected = np.full(len(p_values), np.nan)
    order = [index for index in np.argsort(p_values, kind="stable") if not np.isnan(p_values[index])]
    largest = 0.0
    for position, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(order) - position)))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Friedman:
    """Average ranks of the methods (1 is best, ties share theirs) over `n_blocks`, with Friedman's test that all are equal."""

    ranks: pd.Series
    n_blocks: int
    statistic: float
    p: float


def friedman(blocks: pd.DataFrame, *, lower_is_better: bool = False) -> Friedman:
    """Return average ranks and Friedman's test over the blocks in which all methods have a value.

    The test needs three methods and two blocks that are not all ties, otherwise statistic and p are NaN; without a
    common block the ranks are NaN, too.
    """
    from scipy import stats  # imported here because tables without tests need no scipy

    whole = blocks.dropna().round(DIGITS)
    ranks = whole.rank(axis=1, ascending=lower_is_better).mean()
    tied = (whole.nunique(axis=1) <= 1).all()
    if len(whole) < 2 or len(whole.columns) < 3 or tied:
        return Friedman(ranks, len(whole), np.nan, np.nan)
    statistic, p = stats.friedmanchisquare(*(whole[method] for method in whole))
    return Friedman(ranks, len(whole), float(statistic), float(p))


def wins_ties_losses(differences: np.ndarray, *, lower_is_better: bool = False) -> tuple[int, int, int]:
    """Return the numbers of wins, of ties (equal to DIGITS decimals) and of losses; NaN counts as none."""
    better = np.round(differences, DIGITS) * (-1 if lower_is_better else 1)
    return int((better > 0).sum()), int((better == 0).sum()), int((better < 0).sum())


def _finished(records: Records, metric: str) -> pd.DataFrame:
    """Return the rounds of finished runs of methods, where the metric was measured."""
    done = records.runs.loc[(records.runs.status == "done") & (records.runs.method != FULL), KEYS]
    rounds = records.rounds.astype({metric: float}).dropna(subset=[metric])
    return rounds.merge(done, on=KEYS)


def _paired(differences: np.ndarray, lower_is_better: bool) -> dict[str, float]:
    """Return the columns of `compare` for one method."""
    from scipy import stats  # imported here because tables without tests need no scipy

    wins, ties, losses = wins_ties_losses(differences, lower_is_better=lower_is_better)
    row = {"n_pairs": len(differences), "wins": wins, "ties": ties, "losses": losses,
           "difference": differences.mean() if len(differences) else np.nan}
    differences = np.round(differences, DIGITS)  # so that equal differences, and zeros, are equal in the ranks too
    if len(np.unique(differences)) < 2:
        return row
    test = stats.ttest_1samp(differences, 0)
    interval = test.confidence_interval(0.95)
    return row | {"low": interval.low, "high": interval.high, "t": test.pvalue,
                  "wilcoxon": stats.wilcoxon(differences[differences != 0]).pvalue}
