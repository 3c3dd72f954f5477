"""Reads every file once, in parallel: what it holds, or why it cannot be decoded."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from PIL import Image

from dassl.data.damage import check_whole, suspicion
from dassl.data.depth import is_inverted, raw_mode, unused_bits
from dassl.data.images import Decoding, Undecodable, opened, orientation, pixels_of, read_bytes
from dassl.data.places import Place
from dassl.utils.errors import DataError
from dassl.utils.progress import progress

REMARKS = ("inverted", "narrow", "partial")
AS_STORED = Decoding(exif_rotation=False)


@dataclass(frozen=True)
class FileReport:
    """What one image file holds. `mode` is Pillow's, such as RGB, L or CMYK.

    `error` is empty if the file can be decoded; `is_refused` says that a decoder found the fault in its bytes, so it is
    not due to the disk, the network or a lack of memory. `remarks` are points that a person should look at, by the kinds
    of `REMARKS`.
    """

    path: Place
    n_bytes: int = 0
    sha256: str = ""
    mode: str = ""
    is_rotated: bool = False
    error: str = ""
    is_refused: bool = False
    remarks: dict[str, str] = field(default_factory=dict)


def scan(paths: Sequence[Place], *, n_threads: int, description: str = "reading images") -> Iterator[FileReport]:
    """Yield the report of each file, in the order of `paths`, with a progress bar."""
    with ThreadPoolExecutor(max(1, n_threads)) as threads:  # reading, hashing and decoding run outside Python's lock
        yield from progress(threads.map(inspect, paths), description, total=len(paths), unit="img")


def inspect(path: Place) -> FileReport:
    """Return the report of one file; a failure to read or decode is in `error`, nothing is raised."""
    try:
        content = read_bytes(path)
    except DataError as error:
        return FileReport(path, error=str(error))
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        with opened(content, path) as image:
            mode, stored = image.mode, raw_mode(image)
            pixels_of(image, AS_STORED)
            check_whole(content, image)
            is_rotated, remarks = orientation(image) != 1, _remarks(content, image, stored)
    except DataError as error:
        return FileReport(path, len(content), sha256, error=str(error), is_refused=isinstance(error, Undecodable))
    return FileReport(path, len(content), sha256, mode, is_rotated, remarks=remarks)


def _remarks(content: bytes, image: Image.Image, stored: str) -> dict[str, str]:
    """Return what is odd about a loaded image; `stored` is Pillow's name for the pixels in the file."""
    found = {"inverted": "white is stored as zero" if is_inverted(image) else "",
             "narrow": unused_bits(image, raw_mode=stored), "partial": suspicion(content, image)}
    return {kind: text for kind, text in found.items() if text}
