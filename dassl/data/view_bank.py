"""K augmented views of each image through a frozen tower, encoded once and shared by all runs on the same cache.

The views of an image are fixed by its bytes and their number alone, and are encoded in batches of their own. So they come out
alike, bit for bit, whatever was encoded before them, by whom, and however often that was stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dassl.data.feature_blocks import Key
from dassl.utils.files import json_hash, lock, remove_leftovers
from dassl.utils.seeding import seed_for
from dassl.utils.tensors import load_tensors, save_tensors

TYPES = {"digests": torch.uint8, "features": torch.float32}
BATCH = 32  # views of one image that are encoded at once
AT_ONCE = 256  # views, of as many images, that a kill may cost

Encode = Callable[[Sequence[int], Sequence[int], Sequence[int]], Tensor]  # rows, their seeds, sizes of batches -> [rows, D]


class ViewBank:
    """`n_views` random views of each image of a split, as `encode` makes them of rows, in files below `folder`.

    `key` says all that they depend on but the images, `digests` uint8 [N, 32] are the SHA-256 of those.
    """

    def __init__(self, folder: Path, key: Key, n_views: int, digests: Tensor, encode: Encode):
        self.n_views, self._encode = n_views, encode
        self._key = key | {"n_views": n_views}
        self._folder = folder / f"{key['dataset']}_views_{json_hash(self._key)[:16]}"
        self._digests = [bytes(digest) for digest in digests.numpy()]
        self._held: dict[bytes, Tensor] = {}
        self._read: set[str] = set()

    def of(self, rows: Sequence[int]) -> Tensor:
        """Return the views [rows, K, D] of images, after encoding and storing those that no run has encoded yet."""
        if self._missing(rows):
            with lock(self._folder / ".lock", wait=True):
                remove_leftovers(self._folder)
                self._look()
                for some in self._parts(self._missing(rows)):
                    self._add(some)
        return torch.stack([self._held[self._digests[row]] for row in rows])

    def _missing(self, rows: Sequence[int]) -> list[int]:
        """Return a row of each image that is not held."""
        first = {self._digests[row]: row for row in reversed(rows) if self._digests[row] not in self._held}
        return sorted(first.values())

    def _look(self) -> None:
        """Hold what files have that were not there at the last look."""
        for path in sorted(self._folder.glob("*.safetensors")):
            if path.name not in self._read and (kept := load_tensors(path, self._key, TYPES)) is not None:
                self._hold(path, [bytes(digest) for digest in kept["digests"].numpy()], kept["features"])

    def _parts(self, rows: list[int]) -> Iterator[list[int]]:
        size = max(1, AT_ONCE // self.n_views)
        yield from (rows[start:start + size] for start in range(0, len(rows), size))

    def _add(self, rows: list[int]) -> None:
        """Encode the views of images, and store them."""
        digests = [self._digests[row] for row in rows]
        seeds = [seed_for(0, "view of the bank", number, digest.hex()) for digest in digests for number in range(self.n_views)]
        sizes = [min(BATCH, self.n_views - start) for start in range(0, self.n_views, BATCH)] * len(rows)
        found = self._encode([row for row in rows for _ in range(self.n_views)], seeds, sizes)
        features, name = found.unflatten(0, (len(rows), -1)), json_hash([own.hex() for own in digests])[:32]
        path = self._folder / f"{name}.safetensors"
        save_tensors(path, self._key, {"digests": torch.tensor([list(own) for own in digests], dtype=torch.uint8),
                                       "features": features})
        self._hold(path, digests, features)

    def _hold(self, path: Path, digests: Sequence[bytes], features: Tensor) -> None:
        self._held |= dict(zip(digests, features, strict=True))
        self._read.add(path.name)
