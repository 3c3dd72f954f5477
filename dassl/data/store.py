"""Decoded images in memory, each file read once a run and shared by all that asks for it."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dassl.data.images import Undecodable, printable, read_image
from dassl.data.transforms import Transform
from dassl.utils.errors import DataError, listed
from dassl.utils.progress import progress


class ImageStore:
    """Pixels of files, uint8 [height, width, 3], kept from their first use on while `max_bytes` last.

    A deterministic transform's view is kept at the size the tower takes; for random transforms the whole decoded image is,
    because a crop of something smaller would be another augmentation. What finds no room is decoded again at each use, and a
    file anew whose size or time of change is another one now.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._kept: dict[tuple, np.ndarray] = {}

    def pixels(self, path: str | Path, transform: Transform) -> np.ndarray:
        """Return the view of a file, uint8 [height, width, 3]; raises DataError if it cannot be decoded."""
        key = _key(path, transform)
        kept = self._kept.get(key)
        if kept is None:
            kept = _to_keep(path, transform)
            self._keep(key, kept)
        return kept if transform.name else _view(path, transform, Image.fromarray(kept))

    def holds(self, paths: Iterable[str | Path], transform: Transform) -> bool:
        """Tell whether all these files are in memory, as this transform needs them."""
        return all(_key(path, transform) in self._kept for path in paths)

    def fill(self, paths: Sequence[str | Path], transform: Transform, *, n_threads: int) -> None:
        """Decode what is not kept yet, until the memory is used up.

        Raises one DataError that lists the files that cannot be decoded.
        """
        missing = [path for path in dict.fromkeys(map(str, paths)) if _key(path, transform) not in self._kept]
        errors = []

        def load(path: str) -> np.ndarray | DataError | None:
            try:
                return _to_keep(path, transform) if self.n_bytes < self.max_bytes else None
            except DataError as error:
                return error

        with ThreadPoolExecutor(max(1, n_threads)) as threads:  # decoding and resizing run outside Python's lock
            loaded = progress(threads.map(load, missing), "decoding", total=len(missing), unit="img")
            for path, pixels in zip(missing, loaded, strict=True):
                if isinstance(pixels, DataError):
                    errors.append(pixels)
                elif pixels is not None:
                    self._keep(_key(path, transform), pixels)
        if errors:
            raise undecodable(errors)

    def _keep(self, key: tuple, pixels: np.ndarray) -> None:
        if self.n_bytes + pixels.nbytes <= self.max_bytes:
            self._kept[key] = pixels
            self.n_bytes += pixels.nbytes


def undecodable(errors: Sequence[DataError]) -> DataError:
    """Return one error for all files that could not be had, with the first twenty."""
    if len(errors) == 1:
        return errors[0]
    lines = [str(error) for error in errors]
    if all(isinstance(error, Undecodable) for error in errors):
        return Undecodable(listed(f"{len(errors)} images cannot be decoded; DATASET.CORRUPT skip leaves them out", lines))
    return DataError(listed(f"{len(errors)} images cannot be read or decoded", lines))


def _key(path: str | Path, transform: Transform) -> tuple:
    try:
        status = os.stat(path)
    except OSError:  # reading it says what is wrong
        return str(path), transform.name, transform.decoding
    return str(path), status.st_size, status.st_mtime_ns, transform.name, transform.decoding


def _to_keep(path: str | Path, transform: Transform) -> np.ndarray:
    image = read_image(path, transform.decoding)
    return _view(path, transform, image) if transform.name else np.asarray(image)


def _view(path: str | Path, transform: Transform, image: Image.Image) -> np.ndarray:
    try:
        return transform.pixels(image)
    except MemoryError as error:
        raise DataError(f"cannot resize {printable(path)}: out of memory") from error
