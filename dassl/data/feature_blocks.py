"""What an extraction of frozen features has made so far, in files beside the bank that it will be."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dassl.data.digests import Contents
from dassl.data.shard_index import drop_index, others_than_listed
from dassl.utils.errors import UserError
from dassl.utils.tensors import HINT, key_of, load_tensors, save_tensors

MAX_BLOCKS = 256  # files that an extraction in hand is kept in, and one more for each time that it is stopped
BLOCK_SECONDS = 10.0  # of work that a kill may cost, if that is more than a 256th of all
BLOCK_BYTES = 2**28  # of features that wait to be written, at most

Key = dict[str, Any]
Kept = tuple[Tensor, Tensor, Tensor]  # rows of a split, and their places in the third, a mapped tensor of features
Extract = Callable[[Sequence[int]], Iterator[Tensor]]  # rows in ascending order -> their features, in parts of any size


def types_of(key: Key) -> dict[str, torch.dtype]:
    """Return the types of a bank's tensors by its key."""
    return {"digests": torch.uint8, "features": torch.float16 if key.get("features") == "float16" else torch.float32}


def same_but_files(key: Key) -> Key:
    return {name: value for name, value in key.items() if name != "files"}


def kept_blocks(folder: Path, key: Key, contents: Contents, first: int = 0, last: int | None = None) -> Iterator[Kept]:
    """Yield what an extraction in hand has written of these images, of blocks whose first row is one of first..last."""
    others, own = others_than_listed(folder), _block_key(key, len(contents.digests))
    for path in sorted(folder.glob("*.safetensors")):
        start = path.stem.partition("-")[0]
        if path.name in others or not start.isdecimal() or int(start) < first or (last is not None and int(start) > last):
            continue
        if key_of(path) in (own, {}) and (kept := load_tensors(path, own, _block_types(key))) is not None:
            places = (kept["digests"] == contents.digests[kept["rows"]]).all(1).nonzero()[:, 0]
            yield kept["rows"][places], places, kept["features"]


def own_blocks(folder: Path, key: Key, contents: Contents) -> list[Path]:
    """Return the blocks that hold nothing but these images, ascending, after removing those that cannot be read.

    Others are of a data set of the same name: another folder of photos, or this one before it changed.
    """
    found, own = [], _block_key(key, len(contents.digests))
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                fits = key_of(path) == own
                is_own = fits and bool((file.get_tensor("digests") == contents.digests[file.get_tensor("rows")]).all())
            if fits and not is_own and load_tensors(path, own, _block_types(key)) is None:
                _remove(folder, path)  # its digests are damaged, not another data set's
        except (SafetensorError, IndexError):
            _remove(folder, path)
        except OSError:
            continue
        else:
            found += [path] if is_own else []
    return found


def drop_blocks(folder: Path, key: Key, contents: Contents) -> None:
    """Remove the blocks of an extraction whose bank is there, and the folder if nothing else is in it."""
    for path in own_blocks(folder, key, contents):
        _remove(folder, path)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _remove(folder: Path, block: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, who shares the cache
        drop_index(folder)
        block.unlink(missing_ok=True)


class Blocks:
    """The features of an extraction in hand, written to a folder now and then, and when it stops for any reason.

    A block's name is its first row and a digest of its rows and images. So what several processes write at once is kept side by
    side, and the same images give the same file.
    """

    def __init__(self, folder: Path, key: Key, digests: Tensor):
        self._folder, self._key, self._types = folder, _block_key(key, len(digests)), _block_types(key)
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
        digests = self._digests[rows]
        path = self._folder / f"{int(rows[0]):010d}-{_name_of(rows, digests)}.safetensors"
        drop_index(self._folder)
        save_tensors(path, self._key, {"digests": digests, "features": features, "rows": rows})
        self._files.append(path)
        self._pending, self._written = [], time.monotonic()

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(UserError):  # a full disk is perhaps what it has stopped for
                self.write()


def _name_of(rows: Tensor, digests: Tensor) -> str:
    """Return what tells a block from others that begin at the same row: of other rows, or of another data set's images."""
    return hashlib.sha256(rows.numpy().tobytes() + digests.numpy().tobytes()).hexdigest()[:8]


def _block_key(key: Key, n_rows: int) -> Key:
    return same_but_files(key) | {"n_rows": n_rows}


def _block_types(key: Key) -> dict[str, torch.dtype]:
    return types_of(key) | {"rows": torch.int64}
