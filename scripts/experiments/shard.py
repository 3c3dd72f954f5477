"""A part of an extraction, as a worker of a sweep runs it: the frozen features of some images of a split.

The words that ask for it are `SHARD`, the split, what is read, the images as START:STOP, the key of the features as JSON, and
the words of a `train.py` command.
"""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dassl.utils.errors import ConfigError
from dassl.utils.held import Held
from scripts.experiments.cell import Outcome, configured, outcome_of, run_cell
from trainers.core import job

if TYPE_CHECKING:
    from yacs.config import CfgNode

    from dassl.data.digests import ImageFiles
    from dassl.data.feature_bank import Source
    from dassl.data.feature_blocks import Key

SHARD = "shard"


def run_task(words: Sequence[str], held: Held, *, wait: bool = False) -> Outcome:
    """Run what a worker is asked for: a shard, or else the cell of a `train.py` command; see `run_cell`."""
    return run_shard(words[1:], held) if words[0] == SHARD else run_cell(words, held, wait=wait)


def run_shard(words: Sequence[str], held: Held) -> Outcome:
    """Extract a shard and return what became of it; nothing but a request to stop is raised."""
    from dassl.data.feature_bank import extract_rows, missing_rows

    split, reads, images, key, *rest = words

    def extract() -> None:
        source = source_of(configured(rest), held, split, reads)
        check_same(json.loads(json.dumps(source.key)), json.loads(key))
        missing = held.get("missing", (source.folder, source.key), lambda: missing_rows(source))
        start, stop = map(int, images.split(":"))
        rows = missing[(missing >= start) & (missing < stop)]
        if len(rows):
            extract_rows(source, rows)

    return outcome_of(extract)


def check_same(own: "Key", asked: "Key") -> None:
    """Raise ConfigError if a worker would make other features than those that are asked for, such as those of another card."""
    if differs := [f"{name} {own.get(name)} instead of {asked.get(name)}" for name in sorted(own.keys() | asked.keys())
                   if own.get(name) != asked.get(name)]:
        raise ConfigError(f"a worker would make other features than those of this machine ({', '.join(differs)}), which no run "
                          "here would find; give the command where workers run, such as in a job on a node of their kind")


def shard_words(source: "Source", reads: str, images: range, words: Sequence[str]) -> tuple[str, ...]:
    """Return what asks a worker for a shard of a source; `words` are those of a `train.py` command."""
    return SHARD, source.contents.split, reads, f"{images.start}:{images.stop}", json.dumps(source.key), *words


def source_of(cfg: "CfgNode", held: Held, split: str, reads: str) -> "Source":
    """Return where the frozen features of a split that has images are kept, and how they are made."""
    from trainers.core.build import bank_source, build_clip

    return bank_source(cfg, build_clip(cfg, held), files_of(cfg, held), split, reads)


def files_of(cfg: "CfgNode", held: Held) -> "ImageFiles":
    """Return the data set of a config and the state of its files, looked at once a process."""
    return held.get("files", (cfg.DATASET, cfg.CACHE_DIR), lambda: job.image_files(cfg, held))


def shards(missing: Sequence[int], size: int) -> Iterator[range]:
    """Yield ranges of images that hold all missing ones, ascending; each begins at a multiple of `size` and has at most that.

    A range is as narrow as the missing images in it allow.
    """
    start, stop = None, 0
    for row in missing:
        if start is not None and row // size != start // size:
            yield range(start, stop)
            start = None
        start, stop = row if start is None else start, row + 1
    if start is not None:
        yield range(start, stop)
