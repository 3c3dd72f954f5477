"""Extract the frozen features of a data set by several processes, cards or machines; runs then find them in the cache.

    python scripts/extract.py --config-file configs/datasets/dtd.yaml configs/trainers/CoOp/vit_b16.yaml --root DATA
    python scripts/extract.py --config-file ... --backend ray --address auto
    python scripts/extract.py --config-file ... --backend slurm --workers 8 --slurm partition=gpu gpus_per_node=1
    python scripts/extract.py --config-file ... MODEL.FEATURES float16      half the room

The config is that of the runs, by the same files and KEY VALUE pairs: weights, data set, input size, precision, and the
learner, which says what is read. Workers take shards of images in turn. Kill it at any moment and give the same command again:
what has been written is not extracted anew. `CACHE_DIR` must be one folder for all workers, and the command is given on a
machine of their kind: features of another card, or of a CPU, differ in their last digits. In the end the shards are
joined to one file, which runs map; `--keep-shards` leaves that to the first run, so that shards and their index can be moved to
another machine first. The exit code is 0 if all features are there.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from dassl.config.cli import Parser, command
from dassl.config.setup import cache_path
from dassl.data.dataset import SPLITS
from dassl.utils.errors import UserError
from dassl.utils.events import stop_on_sigterm, stopped_by
from dassl.utils.held import Held
from scripts.experiments.backends import add_backend, build_workers
from scripts.experiments.cell import DONE, REFUSED, Outcome, configured
from scripts.experiments.experiment import Cell
from scripts.experiments.schedule import Schedule
from scripts.experiments.shard import files_of, shard_words, shards, source_of

if TYPE_CHECKING:
    from dassl.data.feature_bank import Source

SHARD_IMAGES = 16_384


def parser() -> Parser:
    """Return the command line's parser."""
    flags = Parser(prog="extract.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                   epilog="KEY VALUE pairs win over files and flags.")
    flags.add_argument("--config-file", nargs="+", action="extend", default=[], metavar="YAML", help="merged left to right")
    flags.add_argument("--root", metavar="DIR", help="folder that holds the data sets (DATASET.ROOT)")
    flags.add_argument("--splits", nargs="+", choices=SPLITS, default=["train", "test"], help="by default what runs read")
    flags.add_argument("--shard-images", type=images, default=SHARD_IMAGES, metavar="N", help="that a worker takes at once, in "
                       "whole batches of DATALOADER.TEST.BATCH_SIZE")
    flags.add_argument("--keep-shards", action="store_true", help="do not join them; their folder has an index.json then")
    add_backend(flags, "shards")
    return flags


def images(text: str) -> int:
    """Return a number of images from the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def words_of(arguments: argparse.Namespace, pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return the words of a `train.py` command for the same config."""
    files = ["--config-file", *arguments.config_file] if arguments.config_file else []
    return [*files, *(["--root", arguments.root] if arguments.root else []), *(word for pair in pairs for word in pair)]


def extract(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Extract what is missing, say what there is, and return the exit code."""
    from dassl.data.feature_bank import missing_rows
    from trainers.core.build import build_clip, kinds_read

    cfg, held, failed = configured(words), Held(), 0
    words = [*words, "MODEL.LINEAR", build_clip(cfg, held).linear]  # which "auto" may choose otherwise on another machine
    batch = cfg.DATALOADER.TEST.BATCH_SIZE
    size = max(1, arguments.shard_images // batch) * batch  # whole batches: features may depend on who else is in one
    splits = [split for split in arguments.splits if files_of(cfg, held).dataset.split(split)]
    for split, reads in product(splits, kinds_read(cfg)):
        source = source_of(cfg, held, split, reads)
        missing = missing_rows(source).tolist()
        cells = [Cell(f"{split} {reads} {own.start}:{own.stop}", cache_path(cfg), shard_words(source, reads, own, words))
                 for own in shards(missing, size)]
        failed += run(arguments, cells, cache_path(cfg)) if cells else 0
        if not failed:
            print(f"{source.contents.dataset} {split}: {reads} of {kept(source, joins=not arguments.keep_shards)}, "
                  f"{len(missing):,} of them extracted now")
    return 1 if failed else 0


def kept(source: "Source", *, joins: bool) -> str:
    """Write the index of a split's shards, join them if asked to, and return in words what there is now."""
    from dassl.data.feature_bank import list_shards, load_bank

    shards = list_shards(source)
    if shards and not joins:
        n_images = len(source.contents.paths)
        n_rows = min(n_images, sum(shard["rows"] for shard in shards))  # a part of them may be there twice
        found = f"{n_rows:,} images in {len(shards)} shards, {shards[0]['width']} numbers each"
        return found if n_rows == n_images else (
            f"{found}; the other {n_images - n_rows:,} are in an earlier bank, which does not move with them")
    features = load_bank(*source).features
    return f"{len(features):,} images, {features.shape[1]} numbers each"


def run(arguments: argparse.Namespace, cells: Sequence[Cell], folder: Path) -> int:
    """Run the shards on workers, behind a progress bar, and return how many have failed."""
    failed: list[str] = []
    with tqdm(total=len(cells), desc="shards", unit="shard", disable=None) as bar:

        def report(cell: Cell, outcome: Outcome) -> None:
            bar.update()
            if outcome.kind == REFUSED:  # as every other shard would be
                raise UserError(outcome.error)
            if outcome.kind != DONE:
                failed.append(cell.name)
                bar.write(f"extract.py: {cell.name}: {outcome.error}", file=sys.stderr)

        def written(cell: Cell) -> int:
            """Return the number of files that begin in a shard."""
            start, stop = map(int, cell.name.split()[-1].split(":"))
            firsts = (int(path.name[:10]) for path in folder.glob(f"*.blocks/{10 * '[0-9]'}*.safetensors"))
            return sum(start <= first < stop for first in firsts)

        Schedule(cells, build_workers(arguments, folder, len(cells)), report, written).run()
    return len(failed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        arguments, pairs = parser().parse(sys.argv[1:] if argv is None else argv)
        stop_on_sigterm()
        return extract(arguments, words_of(arguments, pairs))
    except UserError as error:
        print(f"extract.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        code, by = stopped_by(error)
        print(f"\nextract.py: stopped by {by}; the same command goes on", file=sys.stderr)
        return code


if __name__ == "__main__":
    command("extract.py", main)
