"""The list of an extraction's shards: a JSON file beside them, written last, that says what each of them must hold.

Shards describe themselves, so a run can do without it; with it, a shard that was lost or replaced on the way to another machine
is noticed and named.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dassl.utils.errors import DataError
from dassl.utils.files import read_json, write_json
from dassl.utils.paths import exists
from dassl.utils.tensors import stated_in

INDEX = "index.json"

logger = logging.getLogger(__name__)

Shard = dict[str, Any]


def write_index(folder: Path, files: Sequence[Path]) -> list[Shard]:
    """Write the index of shards in a folder, ascending by their first rows, and return its entries."""
    shards = [described(path) for path in files]
    if shards:
        write_json(folder / INDEX, {"key": stated_in(folder / shards[0]["file"]).get("key"), "shards": shards})
    return shards


def described(path: Path) -> Shard:
    """Return a shard's entry: file, first row, number of rows, type and width of its features, checksum; or the file alone."""
    try:
        with safe_open(path, "pt") as file:
            features, rows = file.get_slice("features"), file.get_slice("rows")
            n_rows, width = features.get_shape()
            return {"file": path.name, "first": int(rows[:1][0]), "rows": n_rows, "dtype": features.get_dtype(), "width": width,
                    "crc32": stated_in(path).get("crc32")}
    except (OSError, SafetensorError, ValueError, IndexError):
        return {"file": path.name}


def drop_index(folder: Path) -> None:
    """Remove the index of a folder whose shards change."""
    (folder / INDEX).unlink(missing_ok=True)


def others_than_listed(folder: Path) -> set[str]:
    """Return the shard files that differ from the index of their folder; a warning names each of them, and missing ones."""
    index, others = folder / INDEX, set()
    if not exists(index):
        return others
    try:
        listed = {str(shard["file"]): shard for shard in read_json(index)["shards"]}
    except (DataError, KeyError, TypeError) as error:
        logger.warning("the index %s is damaged (%s) and is not used: shards say themselves what they hold", index, error)
        return others
    for name, shard in listed.items():
        if not exists(folder / name):
            logger.warning("the cache %s is missing, which %s lists: its images are extracted anew", folder / name, INDEX)
        elif (found := described(folder / name)) != shard:
            others.add(name)
            differs = [f"{what} {found.get(what, 'unreadable')}, not {own}" for what, own in shard.items()
                       if found.get(what) != own]
            logger.warning("the cache %s is not what %s lists (%s) and is made anew", folder / name, INDEX, "; ".join(differs))
    return others
