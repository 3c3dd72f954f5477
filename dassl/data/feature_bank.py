"""The cache of frozen features: extracted once, in one file, bound to all that they depend on.

An extraction that is stopped goes on where it was, and of a data set in which some images have changed those alone are
extracted: both look for rows whose image has the same bytes and the same place in the split, since features of another place
in a batch may differ in their last digits.

However large it is, a bank is written and read by memory map. What is extracted is kept in shards first, which the bank is
joined from: one file is one tensor, which samplers and learners index like any other, and several files are not.
"""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dassl.data.digests import Contents
from dassl.data.feature_blocks import Blocks, Extract, Kept, Key, drop_blocks, kept_blocks, own_blocks, same_but_files, types_of
from dassl.data.shard_index import Shard, write_index
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import UserError
from dassl.utils.files import json_hash, lock, remove_leftovers
from dassl.utils.paths import exists, reason
from dassl.utils.tensors import HINT, key_of, load_tensors, save_tensors, tensors_to_fill

JOINED = 2**16  # rows that are copied at once

logger = logging.getLogger(__name__)

Precision = Literal["float32", "float16"]  # of the features that are kept


@dataclass(frozen=True)
class FeatureBank:
    """Features of the frozen image tower, float32 or float16 [N, D] in the order of a split, mapped, and what they describe.

    They are of unit norm, or, where the key has an entry `reads`, what it names.
    """

    features: Tensor
    key: Key


class Source(NamedTuple):
    """Where the features of a split are kept, what they are of, and how they are made."""

    folder: Path
    key: Key
    contents: Contents
    extract: Extract


def writable(folder: Path) -> Path:
    """Return the folder where features and hashes of images are kept, made if absent; UserError unless it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.listdir(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {reason(error)}; {HINT}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {folder}; {HINT}")
    return folder


def bank_key(weights: str, preprocessing: Preprocessing, contents: Contents, precision: str, device: str) -> Key:
    """Return all that the features of a split depend on: weights, preprocessing, files, precision and device of the tower.

    `device` is its type, "cpu" or "cuda": they round differently. A file counts by its relative path and its bytes, so a
    moved or copied data root keeps its cache and a changed image does not.
    """
    return {"weights": weights, "size": list(preprocessing.size), "mean": list(preprocessing.mean),
            "std": list(preprocessing.std), "interpolation": preprocessing.interpolation,
            "decoding": asdict(preprocessing.decoding),
            "dataset": contents.dataset, "split": contents.split, "files": contents.sha256, "files_by": "bytes",
            "precision": precision, "device": device} | preprocessing.shape


def kept_as(precision: Precision) -> Key:
    """Return the entry of a key for features kept in a precision; none for float32, as in older caches."""
    return {} if precision == "float32" else {"features": precision}


def load_bank(folder: Path, key: Key, contents: Contents, extract: Extract) -> FeatureBank:
    """Return the bank of a key from its file in `folder`, or with what `extract` yields, which is then stored there.

    A file that is damaged or holds another key is said so and made anew. Of two processes that want the same bank one
    extracts and the other waits. Raises UserError, with the bytes that it takes, if the folder cannot be written.
    """
    path = bank_path(folder, key)
    with lock(folder / f".{path.stem}.lock", wait=True):
        remove_leftovers(folder, path.name)
        if (kept := load_tensors(path, key, types_of(key))) is None:
            if (features := _of_former_version(folder, key, contents)) is not None:
                save_tensors(path, key, {"digests": contents.digests, "features": features})
            else:
                _extracted(path, key, contents, extract)
            if (kept := load_tensors(path, key, types_of(key))) is None:
                raise UserError(f"{path} could not be read as soon as it was written; the disk may be failing; {HINT}")
        drop_blocks(_blocks_folder(folder, key), key, contents)
    return FeatureBank(kept["features"], key)


def missing_rows(source: Source) -> Tensor:
    """Return the images of a split, ascending, whose features are in no file yet."""
    missing = torch.ones(len(source.contents.digests), dtype=torch.bool)
    for rows, *_ in _known(*source[:3]):
        missing[rows] = False
    return missing.nonzero()[:, 0]


def list_shards(source: Source) -> list[Shard]:
    """Write an index of the shards that an extraction has made, and return its entries; there are none once they are joined."""
    folder = _blocks_folder(source.folder, source.key)
    return write_index(folder, own_blocks(folder, source.key, source.contents))


def extract_rows(source: Source, rows: Tensor) -> None:
    """Extract the features of some images [n], ascending, into files of which `load_bank` makes the bank.

    Several processes may do so at the same time for other images. What one that was killed had written is not done again.
    """
    folder, key, contents, extract = source
    for kept, *_ in kept_blocks(_blocks_folder(folder, key), key, contents, int(rows[0]), int(rows[-1])):
        rows = rows[~torch.isin(rows, kept)]
    with Blocks(_blocks_folder(folder, key), key, contents.digests) as blocks:
        blocks.make(rows, extract)
        blocks.write()


def stored_features(folder: Path, key: Key, paths: Sequence[str]) -> dict[str, Tensor] | None:
    """Return `digests` and `features` of images that need not be there, from the newest file of a key and of these paths.

    What the key says of the files is left out. None if there is no such file.
    """
    names = glob.escape(f"{key['dataset']}_{key['split']}_")
    for path in sorted(folder.glob(f"{names}*.safetensors"), key=os.path.getmtime, reverse=True):
        own = key_of(path)
        if same_but_files(own) == same_but_files(key) and (kept := load_tensors(path, own, types_of(own))) is not None:
            digests = (bytes(row).hex() for row in kept["digests"].numpy())
            if len(kept["digests"]) == len(paths) and json_hash([list(pair) for pair in zip(paths, digests)]) == own["files"]:  # noqa: B905
                return kept
    return None


def bank_path(folder: Path, key: Key) -> Path:
    """Return the file of a key: readable in front, a digest of the whole key behind."""
    digest = json_hash(key)[:16]
    return folder / f"{key['dataset']}_{key['split']}_{digest}.safetensors"


def _of_former_version(folder: Path, key: Key, contents: Contents) -> Tensor | None:
    """Return the features of a cache that went by sizes and times alone, if no file has changed in any way since then."""
    former = {name: value for name, value in key.items() if name != "files_by"} | {"files": contents.former_digest()}
    path = bank_path(folder, former)
    if not exists(path) or contents.changed_after(path.stat().st_mtime_ns):
        return None
    kept = load_tensors(path, former, {"features": torch.float32})
    return None if kept is None or len(kept["features"]) != len(contents.digests) else kept["features"]


def _extracted(path: Path, key: Key, contents: Contents, extract: Extract) -> None:
    """Write the bank of all images; extract those that are in no other bank and in no extraction that was stopped."""
    n_rows, known = len(contents.digests), list(_known(path.parent, key, contents))
    missing = torch.ones(n_rows, dtype=torch.bool)
    for own, *_ in known:
        missing[own] = False
    rows = missing.nonzero()[:, 0]
    if len(rows) and len(rows) < n_rows:
        logger.info("%s %s: %d of %d images have features already", key["dataset"], key["split"], n_rows - len(rows), n_rows)
    with Blocks(_blocks_folder(path.parent, key), key, contents.digests) as blocks:
        blocks.make(rows, extract)
        _join([*known, *blocks.parts()], path, key, contents.digests)


def _join(parts: Sequence[Kept], path: Path, key: Key, digests: Tensor) -> None:
    """Write a bank from files that hold parts of it, a few rows at a time; where several hold a row, the last one counts."""
    types = types_of(key)
    shapes = {"features": (types["features"], (len(digests), parts[0][2].shape[1])), "digests": (torch.uint8, digests.shape)}
    missing = torch.ones(len(digests), dtype=torch.bool)
    with tensors_to_fill(path, key, shapes) as bank:
        bank["digests"].copy_(digests)
        for rows, places, features in parts:
            missing[rows] = False
            for own, place in zip(rows.split(JOINED), places.split(JOINED), strict=True):
                bank["features"][own] = features[place]
        if missing.any():
            raise UserError(f"{path} lacks the features of {int(missing.sum())} images; the same command makes them")


def _known(folder: Path, key: Key, contents: Contents) -> Iterator[Kept]:
    """Yield what other files hold of a bank, for those images in these places whose bytes are the same."""
    same, n_rows = same_but_files(key), len(contents.digests)
    for path in sorted(folder.glob(f"{glob.escape(key['dataset'])}_{key['split']}_*.safetensors")):
        own = key_of(path)
        if same_but_files(own) == same and path == bank_path(folder, own):
            kept = load_tensors(path, own, types_of(own))
            if kept is not None and len(kept["digests"]) == n_rows:
                rows = (kept["digests"] == contents.digests).all(1).nonzero()[:, 0]
                yield rows, rows, kept["features"]
    yield from kept_blocks(_blocks_folder(folder, key), key, contents)


def _blocks_folder(folder: Path, key: Key) -> Path:
    return bank_path(folder, key | {"files": ""}).with_suffix(".blocks")
