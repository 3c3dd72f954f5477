"""The papers' published tables beside ours.

`configs/experiments/published/<paper>.csv` holds each as printed: percent, budgets in percent of the train split, 0 for
zero-shot, an empty mean where the paper prints none. They are compared with runs of the same learner and backbone that ask for
1 % a round, as both papers do. A difference is measured in standard deviations of a single run, pooled over both sides: (ours -
published) / sqrt((s_ours^2 + s_published^2) / 2), so that it does not depend on the number of seeds. Two means of three seeds
each that estimate the same value differ by more than 2.3 of these in 5 % of cases (2.776 sqrt(2/3), Student's t with 4 degrees
of freedom).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from active.analysis.printing import Table
from active.analysis.records import Records
from active.analysis.tables import AVERAGE, ZERO_SHOT, cells, shown, values
from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError, UserError, did_you_mean

FOLDER = PROJECT / "configs" / "experiments" / "published"
QUERY_SIZE = "1%"
SELECTED = "DualPrompt-select+"  # followed by the learner that is trained on what the dual-prompt model selects
METHODS = {  # published names -> methods of our runs, see LABEL.METHOD
    "Zero-shot": ZERO_SHOT, "Random": "random", "Entropy": "entropy", "CoreSet": "coreset", "BADGE": "badge",
    "ALFA-Mix": "alfa_mix", "GCNAL": "gcnal", "CEC": "cec", f"{SELECTED}CoOp": "dual_prompt", f"{SELECTED}VPT": "dual_prompt",
    f"{SELECTED}MaPLe": "dual_prompt", "DualPrompt-full": "dual_prompt_full",
}
LEGEND = [
    "in sd: (ours - published) / sqrt((s_ours^2 + s_published^2) / 2), standard deviations over seeds; equal methods with "
    "three seeds on either side differ by more than 2.3 in 5 % of cases.",
    "A difference needs all our seeds; the means at the end are over the cells that have one, without zero-shot and averages.",
]


def papers() -> list[str]:
    """Return the names of the published tables."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def published(paper: str) -> pd.DataFrame:
    """Return learner, backbone, dataset, budget, name (as printed), method (ours), mean and std (fractions) of a paper's table.

    Raises ConfigError if there is no such paper.
    """
    if paper not in papers():
        raise ConfigError(f"there is no published table {paper!r}; {did_you_mean(paper, papers())}")
    table = pd.read_csv(FOLDER / f"{paper}.csv").rename(columns={"peft": "learner", "method": "name"})
    return table.assign(method=table.name.map(METHODS), dataset=table.dataset.replace("Average", AVERAGE),
                        mean=table["mean"] / 100, std=table["std"] / 100).drop(columns=["paper", "table"])


def beside(records: Records, paper: str) -> pd.DataFrame:
    """Return the rows of `published` with ours: our_mean, our_std, n of expected seeds, difference and deviations.

    Learners and backbones without a run are left out. There is no difference where some of our seeds are missing, or,
    for an average, some of the paper's data sets. Raises UserError if there is no run to compare.
    """
    table = published(paper)
    runs = records.of(query_size=QUERY_SIZE)
    places = table[["learner", "backbone"]].drop_duplicates().merge(runs.runs[["learner", "backbone"]].drop_duplicates())
    if places.empty:
        wanted, there = (", ".join(f"{learner} with {backbone} at {size}" for learner, backbone, size in
                                   frame.drop_duplicates().itertuples(index=False))
                         for frame in (table[["learner", "backbone"]].assign(query_size=QUERY_SIZE),
                                       records.runs[["learner", "backbone", "query_size"]]))
        raise UserError(f"{paper} has {wanted}; the records have {there}")
    table = table.merge(places, on=["learner", "backbone"])
    ours = _ours(runs, table)
    keys = ["learner", "backbone", "dataset", "budget", "method"]
    table = table.merge(ours.rename(columns={"mean": "our_mean", "std": "our_std"}), on=keys, how="left")
    table = table.fillna({"n": 0, "expected": 0}).astype({"n": int, "expected": int})
    difference = (table.our_mean - table["mean"]).where(table.n == table.expected)
    pooled = np.sqrt((table.our_std**2 + table["std"] ** 2) / 2)
    return table.assign(difference=difference, deviations=difference / pooled.where(pooled > 0))


def paper_tables(records: Records, paper: str) -> list[Table]:
    """Return a table for each learner and backbone of a paper that we ran: a block for each data set and budget."""
    tables = []
    for (learner, backbone), part in beside(records, paper).groupby(["learner", "backbone"], sort=False):
        rows = [((_block(row.dataset, row.budget), row.name),
                 (shown(row.mean, row.std, 1, 1), shown(row.our_mean, row.our_std, row.n, row.expected),
                  _signed(100 * row.difference), _signed(row.deviations)))
                for row in part.itertuples()]
        rows += _means(part)
        frame = pd.DataFrame([texts for _, texts in rows], columns=["published", "ours", "difference", "in sd"],
                             index=pd.MultiIndex.from_tuples([index for index, _ in rows]))
        tables.append(Table(f"{paper}: {learner}, {backbone}, accuracy %", frame, part, notes=_slips(part)))
    return tables


def _ours(records: Records, table: pd.DataFrame) -> pd.DataFrame:
    """Return our cells of the paper's data sets and budgets, with the zero-shot ones at budget 0."""
    datasets = set(table.dataset) - {AVERAGE}
    chosen = Records(*(frame[frame.dataset.isin(datasets)] for frame in (records.runs, records.rounds)), [])
    budgets = sorted(set(table.budget) - {0})
    ours = cells(values(chosen, budgets=budgets))
    n_datasets = chosen.runs.groupby(["learner", "backbone"]).dataset.nunique().rename("n_datasets")
    ours = ours.join(n_datasets, on=["learner", "backbone"])
    ours = ours[(ours.dataset != AVERAGE) | (ours.n_datasets == len(datasets))]
    zero_shot = ours[(ours.method == ZERO_SHOT) & (ours.column == f"{budgets[0]:g}%")].assign(budget=0)
    others = [ours[(ours.method != ZERO_SHOT) & (ours.column == f"{budget:g}%")].assign(budget=budget) for budget in budgets]
    return pd.concat([zero_shot, *others]).drop(columns=["query_size", "column", "n_datasets"])


def _means(part: pd.DataFrame) -> list[tuple[tuple[str, str], Sequence[str]]]:
    """Return the rows of mean differences, for each method and for all, over the cells that have one."""
    counted = part[(part.dataset != AVERAGE) & (part.method != ZERO_SHOT)]
    rows = []
    for name, own in [*counted.groupby("name", sort=False), ("all methods", counted)]:
        own = own.dropna(subset=["mean"])
        both = own.dropna(subset=["difference"])
        rows.append((("mean over cells", f"{name} ({len(both)} of {len(own)})"),
                     (shown(both["mean"].mean(), np.nan, 1, 1), shown(both.our_mean.mean(), np.nan, 1, 1),
                      _signed(100 * both.difference.mean()), _signed(both.deviations.mean()))))
    return rows


def _slips(part: pd.DataFrame) -> list[str]:
    """Return a sentence for each printed average that differs from that of its rows by more than rounding."""
    keys = ["budget", "name"]
    rows = part[part.dataset != AVERAGE].groupby(keys)["mean"].mean().rename("of_rows")
    averages = part[part.dataset == AVERAGE].join(rows, on=keys)
    return [f"The paper prints the average {100 * row.mean:.1f} for {row.name} at {row.budget} %; that of its rows is "
            f"{100 * row.of_rows:.2f}." for row in averages.itertuples() if abs(row.mean - row.of_rows) > 0.0006]


def _block(dataset: str, budget: int) -> str:
    return f"{dataset}, {budget} %" if budget else f"{dataset}, zero-shot"


def _signed(number: float) -> str:
    return "-" if np.isnan(number) else f"{number:+.1f}"
