"""The tables of an experiment, ready to print: results, tests, and what is missing."""

import math
from collections.abc import Sequence

import pandas as pd

from active.analysis.printing import Table
from active.analysis.records import KEYS, Records
from active.analysis.tables import AREA, REFERENCES, best, cells, in_order, missing, shown, table_sets, values
from active.analysis.tests_of_difference import (
    FULL,
    TABLE,
    Friedman,
    areas,
    by_block,
    compare,
    friedman,
    last_values,
)
from dassl.evaluation.metrics import factor_of, head_of, lower_is_better
from dassl.utils.errors import UserError

COUNTS = ("n_pairs", "wins", "ties", "losses")
MEASURES = {"last round": last_values, AREA: areas}
LEGEND = [
    "Mean ± standard deviation over seeds (ddof 1), in percent; (2/3) means that two of three seeds have a value, - none.",
    "area: the mean of the curve over paid labels, by trapezoids, from the first round to the last; where runs of a data set "
    "pay for different numbers, over those that all of them cover.",
    "An average over data sets is given where every data set has all its seeds; its deviation is that of the seeds' averages.",
]
TEST_LEGEND = [
    "Tests are paired over (data set, seed) and two-sided, p-values; Holm's correction is over the methods of a block. Tests "
    "take pairs as independent, though those of one data set share its images.",
    "won/tied/lost counts pairs, equal values are tied; the interval of the mean difference is Student's; rank 1 is best.",
]


def results_tables(records: Records, metric: str = "accuracy", budgets: Sequence[float] | None = None) -> list[Table]:
    """Return the table of each learner, backbone and query size: a block per data set, a row per method.

    Columns are rounds or budgets, and the area.
    """
    all_cells = cells(values(records, metric, budgets))
    all_cells = all_cells.assign(best=best(all_cells, metric), text=[
        shown(*numbers, metric) for numbers in all_cells[["mean", "std", "n", "expected"]].itertuples(index=False)])
    tables = []
    for keys, part in table_sets(records):
        own = all_cells[(all_cells[TABLE] == pd.Series(keys, TABLE)).all(axis=1)]
        if len(own):
            notes = [*_budget_notes(own), *_range_notes(part, metric), *_saved_notes(part)]
            tables.append(Table(f"{_name(keys)}: {head_of(metric)}", _wide(own, "text"), own.drop(columns=["best", "text"]),
                                _wide(own, "best").astype(bool), notes))
    return tables


def tests_tables(records: Records, metric: str = "accuracy", against: str | None = None) -> tuple[list[Table], list[str]]:
    """Return the tests of each learner, backbone and query size, and a sentence for each that has none.

    Without a name, methods are tested against random where it was run. Raises UserError if `against` was run nowhere.
    """
    tables, notes, errors = [], [], []
    for keys, part in table_sets(records):
        try:
            tables.append(_tests(part, _name(keys), metric, against or "random"))
        except UserError as error:
            errors.append(error)
            notes.append(f"No tests for {_name(keys)}: {error}.")
    if against and not tables and errors:
        raise errors[0]
    return tables, notes


def missing_table(records: Records, metric: str = "accuracy") -> Table | None:
    """Return the cells that are missing, failed or unfinished, with the reason; None if there are none."""
    found = missing(records, metric)
    if found.empty:
        return None
    names = [_name(keys) for keys in found[TABLE].itertuples(index=False)]
    frame = found[["method", "dataset", "seed", "status", "reason"]].astype(str)
    frame.index = pd.MultiIndex.from_arrays([names, frame.pop("method")])
    return Table(f"Cells with no or not all results: {len(found)}", frame, found, align="left")


def _tests(records: Records, name: str, metric: str, against: str) -> Table:
    """Return the tests of one table: a block for the last round and one for the area, where the runs have one.

    Raises UserError if `against` has no finished run, or no other method has one.
    """
    lower = lower_is_better(metric)
    frames, data, notes = [], [], []
    for measure, of in MEASURES.items():
        blocks = by_block(of(records, metric))
        if blocks.empty and frames:
            continue
        ranking = friedman(blocks, lower_is_better=lower)
        compared = compare(blocks, against, lower_is_better=lower).set_index("method").reindex(in_order(blocks))
        if len(compared) < 2:
            raise UserError(f"no method other than {against!r} has finished runs")
        table = compared.astype(dict.fromkeys(COUNTS, "Int64")).assign(rank=ranking.ranks)
        frames.append(_shown_tests(table, factor_of(metric)).set_axis(pd.MultiIndex.from_product([[measure], table.index])))
        data.append(table.reset_index().assign(measure=measure, against=against, friedman=ranking.statistic,
                                               friedman_p=ranking.p, n_blocks=ranking.n_blocks))
        notes.append(_friedman_note(measure, ranking))
    rows = pd.concat(data, ignore_index=True)
    keys = pd.DataFrame([records.runs[TABLE].iloc[0]] * len(rows)).reset_index(drop=True)
    return Table(f"{name}: {head_of(metric)} against {against}", pd.concat(frames), keys.join(rows), notes=notes)


def _shown_tests(table: pd.DataFrame, factor: int) -> pd.DataFrame:
    """Return the columns of `compare` as they are printed; the method that the others are compared with has none."""
    return pd.DataFrame({
        "pairs": _texts(table.n_pairs, "{}"),
        "won/tied/lost": ["-" if pd.isna(row.n_pairs) else f"{row.wins}/{row.ties}/{row.losses}" for row in table.itertuples()],
        "difference": _texts(factor * table.difference, "{:+.2f}"),
        "95 % interval": ["-" if math.isnan(row.low) else f"{factor * row.low:+.2f} to {factor * row.high:+.2f}"
                          for row in table.itertuples()],
        "t-test": _p_values(table.t), "t, Holm": _p_values(table.t_holm),
        "Wilcoxon": _p_values(table.wilcoxon), "Wilcoxon, Holm": _p_values(table.wilcoxon_holm),
        "average rank": _texts(table["rank"], "{:.2f}")})


def _friedman_note(measure: str, ranking: Friedman) -> str:
    test = ("no Friedman test" if math.isnan(ranking.p) else
            f"Friedman's test that all methods are alike: chi-square {ranking.statistic:.2f}, p {_p(ranking.p)}")
    return (f"{measure}: {test}; ranks over the {ranking.n_blocks} pairs of data set and seed that all "
            f"{len(ranking.ranks)} methods have.")


def _budget_notes(own: pd.DataFrame) -> list[str]:
    """Return a sentence for each column of a table in which no method has a value."""
    n_values = own[~own.method.isin(REFERENCES) & (own.column != AREA)].groupby("column", sort=False).n.sum()
    return [f"{column}: no run of this table has a round of this budget." for column in n_values[n_values == 0].index]


def _range_notes(records: Records, metric: str) -> list[str]:
    """Return a sentence for each data set whose area does not cover the curves of all its finished runs."""
    found = areas(records, metric)
    ends = records.rounds.groupby(KEYS).n_paid.agg(["min", "max"]).reset_index().merge(found, on=KEYS)
    finished = records.runs[(records.runs.status == "done") & (records.runs.method != FULL)]
    notes = [f"area on {dataset}: none, as its finished runs have no range of paid labels in common."
             for dataset in sorted(set(finished.dataset) - set(found.dataset))]
    for dataset, part in ends.groupby("dataset"):
        if (part["min"] < part.low).any() or (part["max"] > part.high).any():
            notes.append(f"area on {dataset}: over {part.low.iloc[0]:.0f} to {part.high.iloc[0]:.0f} paid labels, which all "
                         f"finished runs cover; the longest curve ends at {part['max'].max():.0f}.")
    return notes


def _saved_notes(records: Records) -> list[str]:
    """Return a sentence for each method that labeled images by itself, on how many labels it paid for."""
    last = records.rounds.sort_values("round").drop_duplicates(KEYS, keep="last")
    last = last[last.method != FULL].groupby(["dataset", "method"])[["n_paid", "n_labeled"]].mean()
    return [f"{method} on {dataset}: {row.n_paid:.1f} of {row.n_labeled:.1f} labels at the last round were paid, on average."
            for (dataset, method), row in last[last.n_paid < last.n_labeled].iterrows()]


def _name(keys: Sequence[str]) -> str:
    learner, backbone, query_size = keys
    return f"{learner}, {backbone}, {query_size} a round"


def _wide(own: pd.DataFrame, what: str) -> pd.DataFrame:
    """Return one entry of the cells with rows (data set, method) and the columns of a table, in order."""
    wide = own.pivot(index=["dataset", "method"], columns="column", values=what)
    return wide.reindex(index=pd.MultiIndex.from_frame(own[["dataset", "method"]].drop_duplicates()),
                        columns=own.column.drop_duplicates())


def _texts(numbers: pd.Series, style: str) -> list[str]:
    return ["-" if pd.isna(number) else style.format(number) for number in numbers]


def _p_values(numbers: pd.Series) -> list[str]:
    return [_p(number) for number in numbers]


def _p(number: float) -> str:
    return "-" if math.isnan(number) else "<0.001" if number < 0.001 else f"{number:.3f}"
