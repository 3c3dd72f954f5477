"""Mean and standard deviation over seeds, per data set, method and round or budget; what is missing stays missing.

The frames of this module are in long form: a row for each number, as a fraction, in the order of printing. `column` is
"round 0", "round 1", ... or a budget such as "2%", and "area" (`tests_of_difference.areas`).

Budgets are in percent of the train split. In a run that asks for a share each round, budget b is the round by which the shares
add up to b: with "1%", budget 2 is round 1. In a run that asks for a number of images, it is the round in which b percent of
the train split, rounded to an image, are labeled. Images that a sampler labels by itself count like those paid for.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from active.analysis.records import KEYS, Records
from active.analysis.tests_of_difference import FULL, TABLE, areas
from dassl.evaluation.metrics import factor_of, is_percent, lower_is_better
from dassl.utils.errors import UserError

ZERO_SHOT = "zero-shot"
REFERENCES = (ZERO_SHOT, FULL)  # rows with the same value in every round
AREA = "area"
AVERAGE = "average over data sets"
CELL = [*TABLE, "dataset", "method", "column"]
ORDER = (ZERO_SHOT, "random", "entropy", "coreset", "badge", "alfa_mix", "gcnal", "pcb", "cec", "dual_prompt",
         "dual_prompt_full")  # in the papers' order; others follow by name, then FULL


def in_order(methods: Iterable[str]) -> list[str]:
    """Return the methods in the order of the papers' tables, others by name after them, full labels last."""
    return sorted(set(methods), key=lambda name: (name == FULL, ORDER.index(name) if name in ORDER else len(ORDER), name))


def table_sets(records: Records) -> Iterator[tuple[tuple[str, str, str], Records]]:
    """Yield (learner, backbone, query size) and its records; runs with all labels get no table if there are others."""
    is_method = records.runs.method != FULL
    runs = records.runs[is_method] if is_method.any() else records.runs
    for keys, _ in runs.groupby(TABLE, sort=True):
        yield keys, records.of(**dict(zip(TABLE, keys, strict=True)))


def values(records: Records, metric: str = "accuracy", budgets: Sequence[float] | None = None) -> pd.DataFrame:
    """Return KEYS, column and value: one row for each cell that was asked for and each column, NaN where it has no value.

    Columns are the rounds of a table, or the budgets, and the area. The values of the methods "zero-shot" and "full" (of
    any query size of the same data set, learner and backbone) are repeated in each column.
    """
    is_method = records.runs.method != FULL
    runs = records.runs[is_method] if is_method.any() else records.runs
    rounds = at_columns(records, budgets)
    measured = _stacked([rounds[[*KEYS, "column", metric]].rename(columns={metric: "value"}).astype({"value": float}),
                         areas(records, metric)[[*KEYS, "value"]].assign(column=AREA)])
    columns = _columns(runs, rounds, budgets)
    asked = runs[KEYS].merge(columns, on=TABLE)
    table = asked.merge(measured, on=[*KEYS, "column"], how="left")
    lines = [_zero_shot(records)] if metric == "accuracy" else []
    lines += [_full(records, metric)] if is_method.any() else []
    places = runs[[*TABLE, "dataset"]].drop_duplicates()
    references = [line.merge(places, on=["learner", "backbone", "dataset"]).merge(columns, on=TABLE) for line in lines]
    table = _stacked([table, *references])[[*KEYS, "column", "value"]]
    order = {method: place for place, method in enumerate(in_order(table.method))}
    return table.sort_values([*TABLE, "dataset", "method"], kind="stable", ignore_index=True,
                             key=lambda column: column.map(order) if column.name == "method" else column)


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return mean, std (ddof 1), n and expected of `values` over the seeds of each cell, then the averages over data sets.

    `n` seeds of `expected` have a value. An average is the mean of the data sets' means, its deviation that of the seeds'
    averages; it is NaN with n = 0 unless every data set of the table has all its seeds in that column.
    """
    found = table.groupby(CELL, sort=False).value.agg(mean="mean", std="std", n="count", expected="size").reset_index()
    rows = []
    for keys, part in table.groupby(TABLE, sort=False):
        n_datasets = part.dataset.nunique()
        for (method, column), cell in part.groupby(["method", "column"], sort=False):
            if n_datasets > 1:
                rows.append((*keys, AVERAGE, method, column, *_average(cell, n_datasets)))
    return pd.concat([found, pd.DataFrame(rows, columns=found.columns).astype(found.dtypes)] if rows else [found],
                     ignore_index=True)


def best(table: pd.DataFrame, metric: str = "accuracy") -> pd.Series:
    """Return for each of the `cells` whether it is its column's best: complete, of a method, and equal as printed."""
    complete = (table.n == table.expected) & (table.n > 0) & ~table.method.isin(REFERENCES)
    printed = (factor_of(metric) * table["mean"]).round(_decimals(metric)).where(complete)
    groups = printed.groupby([table[key] for key in (*TABLE, "dataset", "column")])
    extreme = groups.transform("min" if lower_is_better(metric) else "max")
    return (printed == extreme) & (groups.transform("count") > 1)


def missing(records: Records, metric: str = "accuracy") -> pd.DataFrame:
    """Return KEYS, status and reason of each cell that is missing, failed, unfinished, shorter than others or unmeasured."""
    found = records.rounds.astype({metric: float}).groupby(KEYS).agg(n_done=("round", "count"), n_measured=(metric, "count"))
    runs = records.runs.merge(found.reset_index(), on=KEYS, how="left").fillna({"n_done": 0, "n_measured": 0})
    runs["most"] = runs.groupby([*TABLE, "dataset"]).n_done.transform("max")
    runs["reason"] = [_reason(run) for run in runs.itertuples()]
    return runs.loc[runs.reason != "", [*KEYS, "status", "reason"]].reset_index(drop=True)


def _reason(run: Any) -> str:
    """Return why a run has no or not all values; "" if it has them."""
    if run.status == "failed":
        return next(iter(run.error.strip().splitlines()), "no reason given")
    if run.status == "missing":
        return "never run"
    if run.status == "unfinished":
        return f"{run.n_done:.0f} of {run.n_rounds:.0f} rounds done"
    if run.n_done < run.most:
        why = f": {run.error}" if run.error else ""
        return f"ended after {run.n_done:.0f} rounds, others after {run.most:.0f}{why}"
    return "" if run.n_measured else "nothing was measured: no test images"


def shown(mean: float, std: float, n: int, expected: int, metric: str = "accuracy") -> str:
    """Return a cell: "62.1 ± 0.8", with "(2/3)" where two of three seeds have a value, "-" for none."""
    if n == 0 or math.isnan(mean):
        return "-"
    middle, spread = (f"{factor_of(metric) * value:.{_decimals(metric)}f}" for value in (mean, std))
    return middle + ("" if spread == "nan" else f" ± {spread}") + (f" ({n:.0f}/{expected:.0f})" if n < expected else "")


def _decimals(metric: str) -> int:
    return 1 if is_percent(metric) else 3


def check_budgets(records: Records, budgets: Sequence[float]) -> None:
    """Raise UserError for a budget that no round of any run has."""
    rounds = at_columns(records, budgets)
    rounds = rounds[rounds.method != FULL]
    for budget in budgets:
        if not (rounds.column == f"{budget:g}%").any():
            sized = _sized(records)
            there = sorted({f"{value:.4g}" for value in _percent(sized[sized.method != FULL])}, key=float)
            raise UserError(f"no round has the budget {budget:g} %; there are {', '.join(there) + ' %' if there else 'none'}")


def at_columns(records: Records, budgets: Sequence[float] | None) -> pd.DataFrame:
    """Return the rounds that a table shows, with their column: all of them, or those of the budgets."""
    if budgets is None:
        return records.rounds.assign(column="round " + records.rounds["round"].astype(str))
    rounds = _sized(records)
    of_a_share = rounds.query_size.str.endswith("%")
    parts = []
    for budget in budgets:
        n_images = np.floor(rounds.n_train * budget / 100 + 0.5)  # as `active.pool.query_size` rounds
        fits = np.where(of_a_share, np.isclose(_percent(rounds), budget), rounds.n_labeled == n_images)
        parts.append(rounds[fits].assign(column=f"{budget:g}%"))
    return pd.concat(parts)


def _stacked(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the frames stacked, without empty ones, whose untyped columns would change the types."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def _sized(records: Records) -> pd.DataFrame:
    """Return the rounds with the number of images in their train split."""
    return records.rounds.merge(records.runs[[*KEYS, "n_train"]], on=KEYS).astype({"n_train": float, "round": int})


def _percent(rounds: pd.DataFrame) -> pd.Series:
    """Return the budget of each round in percent: of the shares asked for so far, or of the images labeled."""
    share = pd.to_numeric(rounds.query_size.str.removesuffix("%"), errors="coerce") * (rounds["round"] + 1)
    return share.where(rounds.query_size.str.endswith("%"), 100 * rounds.n_labeled / rounds.n_train)


def _columns(runs: pd.DataFrame, rounds: pd.DataFrame, budgets: Sequence[float] | None) -> pd.DataFrame:
    """Return TABLE and column: the columns of each table in their order."""
    if budgets is not None:
        names = pd.DataFrame({"column": [*(f"{budget:g}%" for budget in budgets), AREA]})
        return runs[TABLE].drop_duplicates().merge(names, how="cross")
    of_rounds = rounds.merge(runs[KEYS], on=KEYS).sort_values("round")[[*TABLE, "column"]].drop_duplicates()
    return pd.concat([of_rounds, of_rounds[TABLE].drop_duplicates().assign(column=AREA)])


def _zero_shot(records: Records) -> pd.DataFrame:
    """Return the zero-shot values of each learner, backbone and data set: one for each seed, or one if all are equal."""
    keys = ["learner", "backbone", "dataset"]
    runs = records.runs.dropna(subset=["zero_shot"]).drop_duplicates([*keys, "seed"])
    differs = runs.groupby(keys).zero_shot.transform("nunique") > 1
    runs = pd.concat([runs[differs], runs[~differs].drop_duplicates(keys)])
    return runs[[*keys, "seed"]].assign(method=ZERO_SHOT, value=runs.zero_shot.astype(float))


def _full(records: Records, metric: str) -> pd.DataFrame:
    """Return the values of the runs with all labels, NaN where one is missing."""
    last = records.rounds.sort_values("round").drop_duplicates(KEYS, keep="last")
    runs = records.runs.loc[records.runs.method == FULL, KEYS].merge(last[[*KEYS, metric]], on=KEYS, how="left")
    return runs.drop(columns=["query_size", metric]).assign(value=runs[metric].astype(float))


def _average(cell: pd.DataFrame, n_datasets: int) -> tuple[float, float, int, int]:
    """Return mean, std, n and expected over data sets of the values of one method in one column."""
    seeds = cell.groupby("seed").value.agg(["mean", "size"])
    if cell.value.isna().any() or cell.dataset.nunique() < n_datasets:
        return np.nan, np.nan, 0, len(seeds)
    std = seeds["mean"].std() if (seeds["size"] == n_datasets).all() else np.nan
    return cell.groupby("dataset").value.mean().mean(), std, len(seeds), len(seeds)
