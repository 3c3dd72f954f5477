"""Decoded images in memory, each file read once per run and shared by all code that asks for it."""

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from dassl.data.images import Undecodable, decode, image_bytes, read_bytes, read_image
from dassl.data.places import Place, holder, stamp_of
from dassl.data.transforms import Transform
from dassl.utils.errors import DataError, listed
from dassl.utils.progress import progress
from dassl.utils.text import printable


class ImageStore:
    """Pixels of files, uint8 [height, width, 3], kept from their first use on as long as `max_bytes` allow.

    For a deterministic transform, the view is kept at the tower's size; for random transforms the whole decoded image is
    kept, because a crop of something smaller would be another augmentation. Images that find no room are decoded at each
    use, and a file is decoded again if it has changed.

    `max_bytes` is all that a run may keep in memory: tensors computed from images are charged to it too, see `charge`. Room
    is reserved before anything is decoded. The copy in a worker process stores nothing.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._kept: dict[tuple, np.ndarray] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return ImageStore, (0,)  # otherwise gigabytes for each spawned worker

    def pixels(self, path: Place, transform: Transform) -> np.ndarray:
        """Return the view of a file, uint8 [height, width, 3]; raises DataError if that fails."""
        key = _key(path, transform)
        kept = self._kept.get(key)
        if kept is None:
            kept = _to_keep(read_image(path, transform.decoding), path, transform)
            if get_worker_info() is None and self._take(kept.nbytes):
                self._kept[key] = kept
        return kept if transform.name else _view(path, transform, Image.fromarray(kept))

    def holds(self, paths: Iterable[Place], transform: Transform) -> bool:
        """Tell whether all these files are in memory, as this transform needs them."""
        return all(_key(path, transform) in self._kept for path in paths)

    def fill(self, paths: Sequence[Place], transform: Transform, *, n_threads: int) -> None:
        """Decode the files that are not kept yet, until one finds no room: further ones would be decoded in vain.

        Raises one DataError that lists the files that cannot be decoded.
        """
        missing = [path for path in dict.fromkeys(paths) if _key(path, transform) not in self._kept]
        full = threading.Event()

        def load(path: Place) -> DataError | None:
            try:
                if not full.is_set() and not self._load(path, transform):
                    full.set()
            except DataError as error:
                return error
            return None

        with ThreadPoolExecutor(max(1, n_threads)) as threads:  # decoding and resizing run outside Python's lock
            loaded = threads.map(load, missing)
            errors = [error for error in progress(loaded, "decoding", total=len(missing), unit="img") if error]
        if errors:
            raise undecodable(errors)

    def charge(self, n_bytes: int, make: Callable[[], Tensor]) -> Tensor | None:
        """Return the tensor that `make` makes, of this many bytes, if there is room for it; else None.

        The room is freed when the tensor is.
        """
        if not self._take(n_bytes):
            return None
        try:
            made = make()
        except BaseException:
            self._give_back(n_bytes)
            raise
        weakref.finalize(made, self._give_back, n_bytes).atexit = False
        return made

    def _load(self, path: Place, transform: Transform) -> bool:
        """Keep one file, if there is room for it; tell whether there was."""
        content = b"" if transform.name else read_bytes(path)
        n_bytes = view_bytes(transform) if transform.name else image_bytes(content, path)
        if not self._take(n_bytes):
            return False
        used = 0
        try:
            key = _key(path, transform)
            image = decode(content or read_bytes(path), path, transform.decoding)
            kept = self._kept[key] = _to_keep(image, path, transform)
            used = kept.nbytes
        finally:
            self._give_back(n_bytes - used)  # all of it after an error, a part after JPEG's draft mode
        return True

    def _take(self, n_bytes: int) -> bool:
        with self._lock:
            if self.n_bytes + n_bytes > self.max_bytes:
                return False
            self.n_bytes += n_bytes
            return True

    def _give_back(self, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes -= n_bytes


def view_bytes(transform: Transform) -> int:
    """Return the bytes of a deterministic transform's view, whatever the image."""
    return transform.pixels(Image.new("RGB", (8, 8))).nbytes


def undecodable(errors: Sequence[DataError]) -> DataError:
    """Return one error for all files that could not be read, naming the first twenty; a file with several views counts once."""
    errors = list({str(error): error for error in errors}.values())
    if len(errors) == 1:
        return errors[0]
    lines = [str(error) for error in errors]
    if all(isinstance(error, Undecodable) for error in errors):
        return Undecodable(listed(f"{len(errors)} images cannot be decoded; DATASET.CORRUPT skip leaves them out", lines))
    return DataError(listed(f"{len(errors)} images cannot be read or decoded", lines))


def _key(path: Place, transform: Transform) -> tuple:
    try:
        status = os.stat(holder(path))
    except OSError:  # reading it says what is wrong
        return str(path), transform.name, transform.decoding
    return str(path), *stamp_of(status), transform.name, transform.decoding


def _to_keep(image: Image.Image, path: Place, transform: Transform) -> np.ndarray:
    return _view(path, transform, image) if transform.name else np.asarray(image)


def _view(path: Place, transform: Transform, image: Image.Image) -> np.ndarray:
    try:
        return transform.pixels(image)
    except MemoryError as error:
        raise DataError(f"cannot resize {printable(path)}: out of memory") from error
