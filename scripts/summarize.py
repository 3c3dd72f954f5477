"""Summarize the records of many runs: means over seeds, areas, tests against a baseline, published numbers beside ours.

    python scripts/summarize.py output/experiment
    python scripts/summarize.py output/experiment --columns 1% 2% 5% --format latex > table.tex
    python scripts/summarize.py output/experiment --format csv --tables tests --against entropy
    python scripts/summarize.py output/cec_table1 --paper cec_table1

OUTPUT is any number of folders that hold runs at any depth, or results.json files. There is one table of results and one of
tests for each learner, backbone and query size; runs that began with ACTIVE.KNOWN_LABELS count as a separate method. Budgets
are percentages of the train split: with 1 % a round, 2% is round 1. CSV holds one kind of table, as fractions with all digits,
and the notes go to standard error.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from active.analysis import published, summary
from active.analysis.printing import FORMATS, Table, document
from active.analysis.records import Records, check_metric, load_records
from active.analysis.tables import check_budgets
from dassl.config.cli import Parser, command
from dassl.utils.errors import ConfigError, UserError

KINDS = ("results", "tests", "missing")


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="summarize.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("output", nargs="+", metavar="OUTPUT", help="folders of runs, or results.json files")
    flags.add_argument("--metric", metavar="NAME", default="accuracy", help="one of the metrics that the runs have measured")
    flags.add_argument("--columns", nargs="+", default=["rounds"], metavar="COLUMN",
                       help="rounds, or budgets such as 1%% 2%% 5%%")
    flags.add_argument("--format", choices=FORMATS, default="text")
    flags.add_argument("--tables", nargs="+", choices=KINDS, metavar="KIND",
                       help=f"of {', '.join(KINDS)}; all by default, in CSV results")
    flags.add_argument("--against", metavar="METHOD", help="test the others against this one instead of random")
    flags.add_argument("--paper", metavar="NAME", help=f"compare with a published table: {', '.join(published.papers())}")
    return flags


def budgets(columns: Sequence[str]) -> list[float] | None:
    """Return the budgets in percent that columns name, None for rounds; raises ConfigError for anything else."""
    if list(columns) == ["rounds"]:
        return None
    wrong = [column for column in columns if not re.fullmatch(r"\d+(\.\d+)?%", column) or float(column[:-1]) == 0]
    if wrong:
        raise ConfigError(f"--columns has {wrong[0]!r}, but takes rounds, or budgets such as 1% 2% 5%")
    return list(dict.fromkeys(float(column[:-1]) for column in columns))


def tables(arguments: argparse.Namespace, records: Records) -> tuple[list[Table], list[str]]:
    """Return the tables asked for, and the notes on all of them."""
    chosen = budgets(arguments.columns)
    check_metric(records, arguments.metric)
    if chosen:
        check_budgets(records, chosen)
    kinds = arguments.tables or (KINDS[:1] if arguments.format == "csv" else KINDS)
    found, notes = [], list(records.notes)
    if arguments.paper:
        found += published.paper_tables(records, arguments.paper)
        notes += published.LEGEND
    elif "results" in kinds:
        found += summary.results_tables(records, arguments.metric, chosen)
        notes += summary.LEGEND
    if "tests" in kinds and not arguments.paper:
        tested, none = summary.tests_tables(records, arguments.metric, arguments.against)
        found += tested
        notes += [*none, *(summary.TEST_LEGEND if tested else [])]
    missing = summary.missing_table(records, arguments.metric) if "missing" in kinds else None
    return [*found, *([missing] if missing else [])], notes


def check(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that do not fit together or name unknown things, before anything is read."""
    chosen = budgets(arguments.columns)
    if arguments.format == "csv" and len(arguments.tables or []) > 1:
        raise ConfigError("--format csv holds one kind of table; choose one by --tables")
    if arguments.paper:
        published.published(arguments.paper)
        if arguments.metric != "accuracy" or chosen:
            raise ConfigError("--paper compares accuracy at the budgets of the paper; leave out --metric and --columns")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments = parser().parse_args(argv)
        check(arguments)
        found, notes = tables(arguments, load_records(arguments.output))
    except UserError as error:
        print(f"summarize.py: {error}", file=sys.stderr)
        return error.exit_code
    print(document(found, notes, arguments.format), end="")
    if arguments.format == "csv":
        print(*notes, sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command("summarize.py", main)
