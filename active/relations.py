"""What the images of a train split are to each other: neighbor lists and clusters of frozen features, made once and kept.

They are of all images, labeled or not, so that they serve every round; other seeds and samplers find them in a folder, by the
bytes of the features: learners that tune the text alone never change these, and one that tunes the image tower gets others.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import active.kernels.neighbor_lists as listing
from active.devices import CPU
from active.kernels.neighbor_lists import NeighborLists, neighbor_lists
from active.kernels.neighbors import neighbors
from active.kernels.scores import row_blocks
from dassl.utils.errors import UserError
from dassl.utils.files import json_hash, lock, remove_leftovers
from dassl.utils.linear import TORCH, product_of_pairs
from dassl.utils.tensors import load_tensors, save_tensors

WIDTH = 32  # neighbors of a list, if no more are asked for: one serves all samplers, also once some neighbors are labeled
MAX_BYTES = 8 * 2**30  # of all files in a folder; the oldest make room
VERSION = 1  # of how they are made
INDEX = ("CELLS", "TRAINED", "PROBES", "MOST_PROBES", "CHECKED", "LEAST_RECALL")  # what decides approximate lists

logger = logging.getLogger(__name__)


Known = dict[tuple[str, str], dict[str, Tensor]]  # the hash of the features, and what is known of them


class Relations:
    """Those of features [N, D], unit norm and of any float type, made when they are asked for.

    With a folder they are kept there. `known` holds those of the last features that were asked for, for later objects.
    """

    def __init__(self, features: Tensor, folder: Path | None = None, known: Known | None = None):
        self.features, self._folder, self._known = features, folder, {} if known is None else known
        self._digest = ""

    def neighbors(self, k: int, *, exact: bool = False, device: torch.device = CPU) -> NeighborLists:
        """Return lists of at least k neighbors of each row, from all pairs if `exact`; UserError where too many are missed.

        They lie on the device, where all pairs are compared. What is cached is on the CPU.
        """

        def make() -> dict[str, Tensor]:
            lists = all_pairs(self.features.to(device), width) if exact else neighbor_lists(self.features, width)
            lists = lists.to(CPU)
            return {"rows": lists.rows, "cosines": lists.cosines, "facts": _bytes(json.dumps(lists.facts))}

        width = max(WIDTH, k)
        how = "all pairs" if exact else [getattr(listing, name) for name in INDEX]
        where = {"device": device.type} if exact and device != CPU else {}  # a card's last digits differ
        # oneDNN's too, and approximate lists are checked by exact ones
        where |= {"product": product_of_pairs()} if product_of_pairs() != TORCH else {}
        kept = self._kept("neighbors", {"k": width, "how": how} | where, make,
                          {"rows": torch.int32, "cosines": torch.float32, "facts": torch.uint8})
        return NeighborLists(kept["rows"], kept["cosines"], json.loads(kept["facts"].numpy().tobytes())).to(device)

    def clusters(self, k: int) -> Tensor:
        """Return the cluster [N] of each row by k-means of k clusters, from a seed of its own, on the CPU."""

        def make() -> dict[str, Tensor]:
            from active.kernels.k_means import k_means  # here, as scikit-learn takes long to import

            return {"clusters": k_means(self.features, k, np.random.default_rng(0))[1].int().cpu()}

        return self._kept("clusters", {"k": k}, make, {"clusters": torch.int32})["clusters"]

    def _kept(
        self, kind: str, how: dict[str, Any], make: Callable[[], dict[str, Tensor]], types: dict[str, torch.dtype]
    ) -> dict[str, Tensor]:
        """Return tensors as they were made before, here or by another process; or make and keep them."""
        name = self._hash(), f"{kind}_{json_hash(how)[:8]}"
        if name not in self._known:
            for other in [own for own in self._known if own[0] != self._hash()]:
                del self._known[other]
            self._known[name] = make() if self._folder is None else self._stored(kind, how, make, types)
        return self._known[name]

    def _stored(
        self, kind: str, how: dict[str, Any], make: Callable[[], dict[str, Tensor]], types: dict[str, torch.dtype]
    ) -> dict[str, Tensor]:
        assert self._folder is not None
        key = {"kind": kind, "version": VERSION, "features": self._hash()} | how
        path = self._folder / f"{kind}_{json_hash(key)[:16]}.safetensors"
        with lock(self._folder / f".{path.stem}.lock", wait=True):
            remove_leftovers(self._folder, path.name)
            if (kept := load_tensors(path, key, types)) is not None:
                logger.info("%s of the features are those in %s", kind, path)
                return kept
            made = make()
            _store(path, key, made)
        return made

    def _hash(self) -> str:
        """Return the SHA-256 of the features."""
        if not self._digest:
            digest = hashlib.sha256(f"{self.features.dtype} {tuple(self.features.shape)}".encode())
            for block in row_blocks(*self.features.shape):
                digest.update(self.features[block].contiguous().cpu().numpy().data)
            self._digest = digest.hexdigest()
        return self._digest


def all_pairs(features: Tensor, k: int) -> NeighborLists:
    """Return lists of the k nearest others of each row, all pairs compared."""
    rows, cosines = neighbors(features, k)
    return NeighborLists(rows.int(), cosines, {})


def _store(path: Path, key: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a file, and remove the oldest ones that are too many; what does not fit is made anew the next time."""
    n_bytes, others = sum(tensor.nbytes for tensor in tensors.values()), []
    if n_bytes > MAX_BYTES:
        logger.warning("%s of the features take %d MiB and are not kept", key["kind"], n_bytes >> 20)
        return
    for other in path.parent.glob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room too
            others.append((other.stat().st_mtime, other.stat().st_size, other))
    total = n_bytes + sum(size for _, size, _ in others)
    for _, size, other in sorted(others):
        if total > MAX_BYTES:
            other.unlink(missing_ok=True)
            total -= size
    try:
        save_tensors(path, key, tensors)
    except UserError as error:
        logger.warning("%s", error)


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
