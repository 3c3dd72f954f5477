"""Hashes of a data set's images: each start looks at every file once, and reads only those that have changed.

A file counts as unchanged while its size, its two times of change (mtime and ctime) and its inode are the same; for an image
in another file, that file counts. Two files that swap places have other inodes; a copied data root is read once, and
recognized by its bytes.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dassl.data.dataset import SPLITS, Dataset
from dassl.data.images import read_bytes
from dassl.data.places import Place, holder, stamp_of
from dassl.utils.errors import DataError, listed
from dassl.utils.files import json_hash, lock, remove_leftovers, sha256_of
from dassl.utils.progress import progress
from dassl.utils.tensors import load_tensors, save_tensors
from dassl.utils.text import printable

TYPES = {"stamps": torch.int64, "digests": torch.uint8, "sha256": torch.uint8}
CHANGED = 2  # column of stamps


@dataclass(frozen=True)
class Contents:
    """The bytes of the images of a split: `sha256` of all paths and bytes, and of each file's stamp and SHA-256.

    `stamps` is int64 [N, 4]: size, times of change (ns) and inode; `digests` is uint8 [N, 32].
    """

    dataset: str
    split: str
    paths: tuple[str, ...]
    stamps: Tensor
    digests: Tensor
    sha256: str

    def former_digest(self) -> str:
        """Return the digest of the files in older caches, which went by paths, sizes and times of change alone."""
        digest = hashlib.sha256()
        for path, (size, modified, _, _) in zip(self.paths, self.stamps.tolist(), strict=True):
            digest.update(repr((path, size, modified)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def changed_after(self, time: int) -> bool:
        """Tell whether anything about a file has changed after a time, in ns."""
        return bool((self.stamps[:, CHANGED] > time).any())


class ImageFiles:
    """The image files of a data set as they stood at one moment, each looked at once.

    Raises one DataError for all files that are missing. The hashes that `contents` computes are stored in `folder`.
    """

    def __init__(
        self, dataset: Dataset, folder: Path | None = None, *, n_threads: int = 1, stamps: dict[str, Tensor] | None = None
    ):
        self.dataset, self.folder, self.n_threads = dataset, folder, n_threads
        self._stamps = _stamps(dataset) if stamps is None else stamps
        self._contents: dict[str, Contents] = {}

    def digest(self) -> str:
        """Return a SHA-256 of the paths and stamps of all files."""
        return json_hash([[self._key(split), hashlib.sha256(stamps.numpy().data).hexdigest()]
                          for split, stamps in self._stamps.items()])

    def contents(self, split: str) -> Contents:
        """Return the contents of a split that has images; files that have not changed since they were last read are not read.

        Without `folder` nothing is stored. Raises DataError naming a file that cannot be read.
        """
        if split not in self._contents:
            self._contents[split] = self._read(split) if self.folder is None else self._kept(split, self.folder)
        return self._contents[split]

    def keeping(self, rows: Sequence[int]) -> "ImageFiles":
        """Return the files with only some rows of the train images; nothing is looked at or read again."""
        contents, train = self.contents("train"), tuple(self.dataset.train[row] for row in rows)
        stamps = self._stamps | {"train": self._stamps["train"][list(rows)]}
        kept = ImageFiles(replace(self.dataset, train=train), self.folder, n_threads=self.n_threads, stamps=stamps)
        digests = contents.digests[list(rows)]
        kept._contents = self._contents | {"train": kept._of("train", digests, kept._sha256("train", digests))}
        return kept

    def check(self, split: str, rows: Iterable[int]) -> None:
        """Raise DataError naming those of some images that are not what was hashed; files with new stamps alone are read."""
        known, changed = self.contents(split).digests, []
        for row in dict.fromkeys(rows):
            place = self.dataset.place(self.dataset.split(split)[row].path)
            if self._has_new_stamp(place, split, row) and _digest(place) != bytes(known[row].numpy()):
                changed.append(printable(place))
        if changed:
            raise DataError(listed(f"{self.dataset.name}: {len(changed)} images have changed since this was started; nothing "
                                   "of them is kept", changed))

    def checked(self, split: str, rows: Sequence[int], parts: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield features of rows, in parts of any size, each after a `check` of the images that it was made of."""
        n_done = 0
        for part in parts:
            self.check(split, rows[n_done:n_done + len(part)])
            n_done += len(part)
            yield part

    def _has_new_stamp(self, place: Place, split: str, row: int) -> bool:
        try:
            return list(_stamp(holder(place))) != self._stamps[split][row].tolist()
        except OSError:  # it is gone: reading it says so
            return True

    def _kept(self, split: str, folder: Path) -> Contents:
        key = self._key(split)
        path = folder / f"{self.dataset.name}_{split}_{key['paths'][:16]}.digests"
        with lock(folder / f".{path.stem}.lock", wait=True):
            remove_leftovers(folder, path.name)
            kept = load_tensors(path, key, TYPES)
            if kept is not None and torch.equal(kept["stamps"], self._stamps[split]):
                return self._of(split, kept["digests"], bytes(kept["sha256"].numpy()).hex())
            contents = self._read(split, kept)
            save_tensors(path, key, {"stamps": contents.stamps, "digests": contents.digests,
                                     "sha256": _tensor(bytes.fromhex(contents.sha256))})
        return contents

    def _read(self, split: str, kept: dict[str, Tensor] | None = None) -> Contents:
        """Return the contents of a split after reading all files except those whose stamps equal the stored ones."""
        stamps, files = self._stamps[split], self.dataset.files(split)
        digests, unread = torch.zeros(len(files), 32, dtype=torch.uint8), torch.ones(len(files), dtype=torch.bool)
        if kept is not None:
            digests, unread = kept["digests"].clone(), (kept["stamps"] != stamps).any(1)
        rows = unread.nonzero()[:, 0].tolist()
        for row, digest in zip(rows, _hashes([files[row] for row in rows], split, self.n_threads), strict=True):
            digests[row] = _tensor(digest)
        return self._of(split, digests, self._sha256(split, digests))

    def _sha256(self, split: str, digests: Tensor) -> str:
        texts = (bytes(row).hex() for row in digests.numpy())
        return json_hash([[datum.path, text] for datum, text in zip(self.dataset.split(split), texts, strict=True)])

    def _of(self, split: str, digests: Tensor, sha256: str) -> Contents:
        paths = tuple(datum.path for datum in self.dataset.split(split))
        return Contents(self.dataset.name, split, paths, self._stamps[split], digests, sha256)

    def _key(self, split: str) -> dict[str, str]:
        paths = "\0".join(datum.path for datum in self.dataset.split(split))
        return {"paths": hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()}


def data_hash(files: ImageFiles, texts: Iterable[Path] = ()) -> str:
    """Return the SHA-256 of class names, template, and the path, label and bytes of every image, by split.

    `texts`, such as description files, are hashed by their bytes.
    """
    dataset = files.dataset
    labels = [[datum.label for datum in dataset.split(split)] for split in SPLITS]
    contents = [files.contents(split).sha256 for split in SPLITS if dataset.split(split)]
    return json_hash([dataset.name, dataset.classnames, dataset.template, labels, contents, *map(sha256_of, texts)])


def _stamps(dataset: Dataset) -> dict[str, Tensor]:
    """Return the stamps of each split that has images; raises one DataError for all files that are not there."""
    stamps, faults = {}, []
    for split in SPLITS:
        rows = []
        for datum in dataset.split(split):
            try:
                rows.append(_stamp(holder(dataset.place(datum.path))))
            except (OSError, ValueError) as error:
                faults.append((dataset.place(datum.path), error))
        if rows:
            stamps[split] = torch.tensor(rows, dtype=torch.int64)
    if faults:
        lines = [printable(path) if isinstance(error, FileNotFoundError) else
                 f"{printable(path)}: {getattr(error, 'strerror', None) or error}" for path, error in faults]
        raise DataError(listed(f"{dataset.name}: {len(faults)} image files are missing below {dataset.root}; put them back or, "
                               "for new runs, remove the file of a split that was drawn with them (split_*.json)", lines))
    return stamps


def _stamp(path: str | Path) -> tuple[int, int, int, int]:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(path)
    return stamp_of(status)


def _tensor(digest: bytes) -> Tensor:
    return torch.frombuffer(bytearray(digest), dtype=torch.uint8)


def _digest(file: Place) -> bytes:
    return hashlib.sha256(read_bytes(file)).digest()


def _hashes(files: Sequence[Place], split: str, n_threads: int) -> list[bytes]:
    with ThreadPoolExecutor(max(1, n_threads)) as threads:
        hashes = threads.map(_digest, files)
        return list(progress(hashes, f"hashing {split}", total=len(files), unit="img"))
