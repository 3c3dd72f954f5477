"""Write tables and figures of many runs as one self-contained HTML page, without network, script or other files.

    python scripts/report.py output/experiment
    python scripts/report.py output/experiment --methods random badge --metric macro_f1 --to report.html

OUTPUT is any number of folders that hold runs at any depth, or results.json files. The page goes to OUTPUT/report.html or the
file of --to: first the notes and the cells without results, then for each learner, backbone and query size the results, the
tests against random and the figures of `scripts/plot.py`, each with an explanation.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from active.analysis import summary
from active.analysis.album import add_flags, chosen, folder_of, pictures
from active.analysis.page import Section, page
from active.analysis.printing import Table
from active.analysis.records import Records
from active.analysis.tables import table_sets
from active.analysis.tests_of_difference import TABLE
from dassl.config.cli import Parser, command
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.files import write_text
from dassl.utils.paths import is_folder, resolved


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(flags)
    flags.add_argument("--to", metavar="FILE", type=Path, help="the page, instead of OUTPUT/report.html")
    return flags


def sections(records: Records, arguments: argparse.Namespace) -> list[Section]:
    """Return the parts of the page, with all tables and figures."""
    results = summary.results_tables(records, arguments.metric)
    tests, untested = summary.tests_tables(records, arguments.metric)
    missing = summary.missing_table(records, arguments.metric)
    nothing = [] if missing else ["Every cell has all its results, and all runs were made by the same code."]
    found = [Section("What to know first", [missing] if missing else [], lines=[*records.notes, *untested] or nothing)]
    for keys, part in table_sets(records):
        tables = [*_of(keys, results, summary.LEGEND), *_of(keys, tests, summary.TEST_LEGEND)]
        found.append(Section("{}, {}, {} a round".format(*keys), tables, pictures(records, part, arguments)))
    return found


def _of(keys: tuple[str, ...], tables: Iterable[Table], legend: Sequence[str]) -> list[Table]:
    """Return the tables of this learner, backbone and query size, with an explanation below."""
    return [replace(table, notes=[*table.notes, *legend]) for table in tables if tuple(table.data[TABLE].iloc[0]) == keys]


def extent(records: Records) -> str:
    """Return a sentence on the number of runs, and of what they are."""
    runs = records.runs
    counts = [f"{runs[key].nunique()} {name}{'s' if runs[key].nunique() > 1 else ''}"
              for key, name in (("dataset", "data set"), ("method", "method"), ("seed", "seed"))]
    return f"{(runs.status == 'done').sum()} of {len(runs)} runs are finished: {', '.join(counts)}."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments = parser().parse_args(argv)
        if arguments.to and is_folder(arguments.to):
            raise ConfigError(f"--to is the folder {arguments.to}, but must be the file of the page")
        records = chosen(arguments)
        names = ", ".join(dict.fromkeys(resolved(folder_of(output)).name for output in arguments.output))
        file = arguments.to or folder_of(arguments.output[0]) / "report.html"
        write_text(file, page(f"Results of {names}", [extent(records)], sections(records, arguments)))
        print(file)
    except UserError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    command("report.py", main)
