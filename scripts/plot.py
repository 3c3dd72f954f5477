"""Draw the figures of many runs: curves, ranks, wins, class balance, and what the samplers picked.

    python scripts/plot.py output/experiment
    python scripts/plot.py output/experiment --methods random badge coreset --metric macro_f1 --to figures
    python scripts/plot.py output/experiment --picks all --root DATA --projection tsne

OUTPUT is any number of folders that hold runs at any depth, or results.json files. Every figure is written as PNG and PDF, to
OUTPUT/figures or the folder of --to: one set for each learner, backbone and query size. The contact sheets need the images,
and the projection needs the feature cache; if these are missing, a line says so. The exit code is 0 if anything was drawn.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from active.analysis.album import LeftOut, add_flags, chosen, folder_of, pictures
from active.analysis.style import write_figure
from active.analysis.tables import table_sets
from dassl.config.cli import Parser, command
from dassl.utils.errors import UserError


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="plot.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(flags)
    flags.add_argument("--to", metavar="DIR", type=Path, help="where the figures go, instead of OUTPUT/figures")
    return flags


def plot(arguments: argparse.Namespace) -> int:
    """Write all figures, say which, and return how many there are."""
    records = chosen(arguments)
    folder, names = arguments.to or folder_of(arguments.output[0]) / "figures", []
    for _, part in table_sets(records):
        for picture in pictures(records, part, arguments):
            if isinstance(picture, LeftOut):
                print(picture.line, file=sys.stderr)
                continue
            same = names.count(picture.name)
            names.append(picture.name)
            files = write_figure(picture.figure, folder, f"{picture.name}-{same + 1}" if same else picture.name)
            print(*files)
    return len(names)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        return 0 if plot(parser().parse_args(argv)) else 1
    except UserError as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    command("plot.py", main)
