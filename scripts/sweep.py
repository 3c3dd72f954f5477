"""Run an experiment: every cell of data sets x learners x backbones x samplers x seeds that is not done yet.

    python scripts/sweep.py --config-file configs/experiments/tiny.yaml
    python scripts/sweep.py --config-file configs/experiments/cec_table1.yaml --root DATA --workers 4 [KEY VALUE ...]
    python scripts/sweep.py --config-file E.yaml --backend ray --address auto
    python scripts/sweep.py --config-file E.yaml --backend slurm --slurm partition=gpu gpus_per_node=1 timeout_min=240

Kill it at any moment and give the same command again: finished cells are left alone, unfinished ones go on after their last
round. One cell's failure stops no other; what failed for a reason of its config is tried again only with --retry-failed.
The exit code is 0 if every cell is done, 1 if one failed, 3 if one waits for people's labels, 2 for a wrong experiment.
"""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from active.analysis.records import CELLS, failure_of, keys_of
from active.record.certificate import code_hash, config_hash
from dassl.config.cli import Parser, command
from dassl.config.setup import as_dict
from dassl.utils.errors import ConfigError, DataError, UserError
from dassl.utils.events import stop_on_sigterm, stopped_by
from dassl.utils.files import write_json
from dassl.utils.run_folder import FAILED as NOTE
from scripts.experiments.backends import add_backend, build_workers
from scripts.experiments.cell import DONE, FAILED, REFUSED, WAITING, Outcome, is_done
from scripts.experiments.experiment import Cell, read_experiment
from scripts.experiments.schedule import Schedule, Worker
from trainers.core import job

UNFINISHED = "unfinished"


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="sweep.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                   epilog="KEY VALUE pairs are given to every cell and win over the experiment's keys.")
    flags.add_argument("--config-file", required=True, metavar="YAML", help="experiment, see scripts/experiments/experiment.py")
    flags.add_argument("--root", metavar="DIR", help="folder that holds the data sets (DATASET.ROOT)")
    flags.add_argument("--output-dir", metavar="DIR", help="where the runs go, instead of the experiment's OUTPUT_DIR")
    add_backend(flags, "cells")
    flags.add_argument("--retry-failed", action="store_true", help="try again what failed for a reason of its config")
    flags.add_argument("--list", action="store_true", help="print each cell's train.py command and exit")
    return flags


@dataclass
class Sweep:
    """The cells of one experiment and what has become of them."""

    folder: Path
    cells: list[Cell]
    retry: bool
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)  # of config and code, of each cell that is not done
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def open(self) -> list[Cell]:
        """Return the cells that are still to be run, after a look at every config and every folder."""
        asked, names, flags = [], {}, job.parser()
        for cell in tqdm(self.cells, "checking", unit="cell", leave=False, disable=None, delay=1):
            try:
                cfg = job.build_config(*flags.parse(cell.words))
                keys = keys_of(as_dict(cfg))
                asked.append(keys | {"folder": cell.folder.relative_to(self.folder).as_posix()})
                if (other := names.setdefault(tuple(keys.values()), cell.name)) != cell.name:
                    raise ConfigError(f"{other} and {cell.name} would be one cell in tables: data set and backbone go by the "
                                      "names in their configs; LABEL.DATASET names a data set otherwise")
                job.check(cfg)
                job.settle(cfg)
                if is_done(cfg):
                    self.note(cell, Outcome(DONE))
                    continue
                self.hashes[cell.name] = {"config": config_hash(as_dict(cfg)), "code": code_hash(cfg.ACTIVE.PLUGINS)}
                job.check_parts(cfg)  # not for finished cells: it imports the libraries that do the work
                if (before := self._refused_before(cell)) and not self.retry:
                    self.outcomes[cell.name] = before
            except ConfigError as error:
                self.note(cell, Outcome(REFUSED, str(error)))
            except UserError as error:
                self.outcomes[cell.name] = Outcome(FAILED, str(error))
        write_json(self.folder / CELLS, {"cells": asked})
        return [cell for cell in self.cells if cell.name not in self.outcomes]

    def note(self, cell: Cell, outcome: Outcome) -> None:
        """Keep the outcome of a cell, a failure also in its folder."""
        self.outcomes[cell.name] = outcome
        file = cell.folder / NOTE
        if outcome.kind in (FAILED, REFUSED):
            with contextlib.suppress(UserError):  # a folder that cannot be written may be what the cell failed for
                write_json(file, asdict(outcome) | self.hashes.get(cell.name, {}))
        else:
            file.unlink(missing_ok=True)

    def summary(self) -> str:
        """Return the number of cells by what became of them, and every reason with its cells."""
        kinds = Counter(self.outcomes[cell.name].kind if cell.name in self.outcomes else UNFINISHED for cell in self.cells)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines = [f"{counts} of {len(self.cells)} cells in {self.folder}"]
        by_error: dict[tuple[str, str], list[str]] = {}
        for name, outcome in self.outcomes.items():
            if outcome.error:
                by_error.setdefault((outcome.kind, _reason(outcome.error)), []).append(name)
        rows = [[kind, len(names), names[0], error] for (kind, error), names in by_error.items()]
        if rows:
            lines += ["", tabulate(rows, ["what", "cells", "first", "reason"], maxcolwidths=[None, None, None, 90])]
        return "\n".join(lines)

    def _refused_before(self, cell: Cell) -> Outcome | None:
        """Return how a cell failed before, if it was for a reason of its config, and config and code are what they were."""
        try:
            kept = failure_of(cell.folder / NOTE)
        except DataError:
            return None
        same = {key: kept.get(key) for key in ("config", "code")} == self.hashes[cell.name]
        return Outcome(REFUSED, kept["error"]) if same and kept.get("kind") == REFUSED else None

    @property
    def exit_code(self) -> int:
        kinds = {outcome.kind for outcome in self.outcomes.values()}
        return 1 if kinds - {DONE, WAITING} else 3 if WAITING in kinds else 0


def _reason(error: str) -> str:
    """Return the line of an error that says what is wrong: the first one, of a traceback the last one."""
    lines = error.splitlines()
    return lines[-1 if lines[0].startswith("Traceback") else 0]


def run(sweep: Sweep, cells: Sequence[Cell], workers: Sequence[Worker]) -> None:
    """Run cells behind one progress bar, or, where no terminal shows it, with a line for each."""
    with tqdm(total=len(sweep.cells), initial=len(sweep.cells) - len(cells), desc="cells", unit="cell", disable=None) as bar:

        def report(cell: Cell, outcome: Outcome) -> None:
            sweep.note(cell, outcome)
            n_failed = sum(kept.kind in (FAILED, REFUSED) for kept in sweep.outcomes.values())
            bar.set_postfix_str(f"{n_failed} failed, last {cell.name}", refresh=False)
            bar.update()
            if bar.disable:
                print(f"{outcome.kind}: {cell.name} ({len(sweep.outcomes)} of {len(sweep.cells)})", flush=True)

        Schedule(cells, workers, report).run()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    sweep = None
    try:
        arguments, pairs = parser().parse(sys.argv[1:] if argv is None else argv)
        pairs = [*([("DATASET.ROOT", arguments.root)] if arguments.root else []), *pairs]
        folder, cells = read_experiment(arguments.config_file, output=arguments.output_dir, pairs=pairs)
        if arguments.list:
            print("\n".join(cell.command for cell in cells))
            return 0
        stop_on_sigterm()
        sweep = Sweep(folder, cells, arguments.retry_failed)
        if left := sweep.open():
            run(sweep, left, build_workers(arguments, folder, len(left)))
    except UserError as error:
        print(f"sweep.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        code, by = stopped_by(error)
        summary = f"\n{sweep.summary()}" if sweep else ""
        print(f"\nsweep.py: stopped by {by}; the same command goes on{summary}", file=sys.stderr)
        return code
    print(sweep.summary())
    return sweep.exit_code


if __name__ == "__main__":
    command("sweep.py", main)
