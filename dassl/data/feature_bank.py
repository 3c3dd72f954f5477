"""The cache of frozen features: extracted once, in one file, bound to all that they depend on.

An extraction that is stopped goes on where it was, and of a data set in which some images have changed those alone are
extracted: both look for rows whose image has the same bytes and the same place in the split, since features of another place
in a batch may differ in their last digits.

However large it is, a bank is written and read by memory map. What is extracted is kept in shards first, which the bank is
joined from: one file is one tensor, which samplers and learners index like any other, and several files are not.
"""

import contextlib
import glob
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dassl.data.digests import Contents
from dassl.data.shard_index import Shard, drop_index, others_than_listed, write_index
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import UserError
from dassl.utils.files import json_hash, lock, remove_leftovers
from dassl.utils.paths import exists, reason
from dassl.utils.tensors import HINT, key_of, load_tensors, save_tensors, tensors_to_fill

MAX_BLOCKS = 256  # files that an extraction in hand is kept in, and one more for each time that it is stopped
BLOCK_SECONDS = 10.0  # of work that a kill may cost, if that is more than a 256th of all
BLOCK_BYTES = 2**28  # of features that wait to be written, at most
JOINED = 2**16  # rows that are copied at once

logger = logging.getLogger(__name__)

Key = dict[str, Any]
Kept = tuple[Tensor, Tensor, Tensor]  # rows of a split, and their places in the third, a mapped tensor of features
Precision = Literal["float32", "float16"]  # of the features that are kept
Extract = Callable[[Sequence[int]], Iterator[Tensor]]  # rows in ascending order -> their features, in parts of any size


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


def types_of(key: Key) -> dict[str, torch.dtype]:
    """Return the types of a bank's tensors by its key."""
    return {"digests": torch.uint8, "features": torch.float16 if key.get("features") == "float16" else torch.float32}


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
            shutil.rmtree(_blocks_folder(folder, key), ignore_errors=True)
    return FeatureBank(kept["features"], key)


def missing_rows(source: Source) -> Tensor:
    """Return the images of a split, ascending, whose features are in no file yet."""
    missing = torch.ones(len(source.contents.digests), dtype=torch.bool)
    for rows, *_ in _known(*source[:3]):
        missing[rows] = False
    return missing.nonzero()[:, 0]


def list_shards(source: Source) -> list[Shard]:
    """Write an index of the shards that an extraction has made, and return its entries; there are none once they are joined."""
    return write_index(_blocks_folder(source.folder, source.key))


def extract_rows(source: Source, rows: Tensor) -> None:
    """Extract the features of some images [n], ascending, into files of which `load_bank` makes the bank.

    Several processes may do so at the same time for other images. What one that was killed had written is not done again.
    """
    folder, key, contents, extract = source
    for kept, *_ in _kept_blocks(folder, key, contents, int(rows[0]), int(rows[-1])):
        rows = rows[~torch.isin(rows, kept)]
    with _Blocks(folder, key, contents.digests) as blocks:
        blocks.make(rows, extract)
        blocks.write()


def stored_features(folder: Path, key: Key, paths: Sequence[str]) -> dict[str, Tensor] | None:
    """Return `digests` and `features` of images that need not be there, from the newest file of a key and of these paths.

    What the key says of the files is left out. None if there is no such file.
    """
    names = glob.escape(f"{key['dataset']}_{key['split']}_")
    for path in sorted(folder.glob(f"{names}*.safetensors"), key=os.path.getmtime, reverse=True):
        own = key_of(path)
        if _same_but_files(own) == _same_but_files(key) and (kept := load_tensors(path, own, types_of(own))) is not None:
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
    with _Blocks(path.parent, key, contents.digests) as blocks:
        blocks.make(rows, extract)
        _join([*known, *blocks.parts()], path, key, contents.digests)


def _join(parts: Sequence[Kept], path: Path, key: Key, digests: Tensor) -> None:
    """Write a bank from files that hold parts of it, a few rows at a time; where several hold a row, the last one counts."""
    types = types_of(key)
    shapes = {"features": (types["features"], (len(digests), parts[0][2].shape[1])), "digests": (torch.uint8, digests.shape)}
    with tensors_to_fill(path, key, shapes) as bank:
        bank["digests"].copy_(digests)
        for rows, places, features in parts:
            for own, place in zip(rows.split(JOINED), places.split(JOINED), strict=True):
                bank["features"][own] = features[place]


def _known(folder: Path, key: Key, contents: Contents) -> Iterator[Kept]:
    """Yield what other files hold of a bank, for those images in these places whose bytes are the same."""
    same, n_rows = _same_but_files(key), len(contents.digests)
    for path in sorted(folder.glob(f"{glob.escape(key['dataset'])}_{key['split']}_*.safetensors")):
        own = key_of(path)
        if _same_but_files(own) == same and path == bank_path(folder, own):
            kept = load_tensors(path, own, types_of(own))
            if kept is not None and len(kept["digests"]) == n_rows:
                rows = (kept["digests"] == contents.digests).all(1).nonzero()[:, 0]
                yield rows, rows, kept["features"]
    yield from _kept_blocks(folder, key, contents)


def _kept_blocks(folder: Path, key: Key, contents: Contents, first: int = 0, last: int | None = None) -> Iterator[Kept]:
    """Yield as `_known` what an extraction in hand has written, of blocks whose first row is one of first..last."""
    folder = _blocks_folder(folder, key)
    others = others_than_listed(folder)
    for path in sorted(folder.glob("*.safetensors")):
        if path.name in others or int(path.stem) < first or (last is not None and int(path.stem) > last):
            continue
        kept = load_tensors(path, _block_key(key, len(contents.digests)), _block_types(key))
        if kept is not None:
            places = (kept["digests"] == contents.digests[kept["rows"]]).all(1).nonzero()[:, 0]
            yield kept["rows"][places], places, kept["features"]


class _Blocks:
    """The features of an extraction in hand, written to a folder now and then, and when it stops for any reason."""

    def __init__(self, folder: Path, key: Key, digests: Tensor):
        self._folder, self._key, self._types = _blocks_folder(folder, key), _block_key(key, len(digests)), _block_types(key)
        self._digests, self._files = digests, []
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._written = time.monotonic()

    def make(self, rows: Tensor, extract: Extract) -> None:
        """Extract the features of rows and keep them. Raises RuntimeError if fewer or more come."""
        n_done = 0
        for part in extract(rows.tolist()) if len(rows) else ():
            self._add(rows[n_done:n_done + len(part)], part.to(self._types["features"]))
            n_done += len(part)
        if n_done != len(rows):
            self._pending = []  # nobody knows which images they are of
            raise RuntimeError(f"features of {len(rows)} images were asked for, but {n_done} came")

    def parts(self) -> Iterator[Kept]:
        """Yield all parts that were made."""
        for path in self._files:
            if (kept := load_tensors(path, self._key, self._types)) is None:
                raise UserError(f"{path} could not be read as soon as it was written; the disk may be failing; {HINT}")
            yield kept["rows"], torch.arange(len(kept["rows"])), kept["features"]
        yield from ((rows, torch.arange(len(rows)), features) for rows, features in self._pending)

    def _add(self, rows: Tensor, features: Tensor) -> None:
        """Keep the features of rows, on disk if there is enough of them."""
        self._pending.append((rows, features))
        n_pending = sum(len(own) for own, _ in self._pending)
        is_due = n_pending * MAX_BLOCKS >= len(self._digests) and time.monotonic() - self._written >= BLOCK_SECONDS
        if is_due or n_pending * features[0].nbytes >= BLOCK_BYTES:
            self.write()

    def write(self) -> None:
        """Write what is pending, if anything is, as one file."""
        if not self._pending:
            return
        rows, features = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        path = self._folder / f"{int(rows[0]):010d}.safetensors"
        drop_index(self._folder)
        save_tensors(path, self._key, {"digests": self._digests[rows], "features": features, "rows": rows})
        self._files.append(path)
        self._pending, self._written = [], time.monotonic()

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(UserError):  # a full disk is perhaps what it has stopped for
                self.write()


def _same_but_files(key: Key) -> Key:
    return {name: value for name, value in key.items() if name != "files"}


def _block_key(key: Key, n_rows: int) -> Key:
    return _same_but_files(key) | {"n_rows": n_rows}


def _block_types(key: Key) -> dict[str, torch.dtype]:
    return types_of(key) | {"rows": torch.int64}


def _blocks_folder(folder: Path, key: Key) -> Path:
    return bank_path(folder, key | {"files": ""}).with_suffix(".blocks")
