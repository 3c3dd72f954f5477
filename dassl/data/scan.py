"""Read every file once, in parallel: what is in it, or why it cannot be decoded."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from dassl.data.images import Decoding, decode, printable
from dassl.utils.errors import DataError


@dataclass(frozen=True)
class FileReport:
    """What one image file holds. `error` is empty if it can be decoded; `mode` is Pillow's, such as RGB, L or CMYK."""

    path: Path
    n_bytes: int = 0
    sha256: str = ""
    mode: str = ""
    is_rotated: bool = False
    error: str = ""


def scan(paths: Sequence[Path], *, n_threads: int, description: str = "reading images") -> Iterator[FileReport]:
    """Yield the report of each file, in the order of `paths`, with a progress bar."""
    with ThreadPoolExecutor(max(1, n_threads)) as threads:  # reading, hashing and decoding run outside Python's lock
        yield from tqdm(threads.map(inspect, paths), description, len(paths), unit="img", leave=False, disable=None)


def inspect(path: Path) -> FileReport:
    """Return the report of one file; what cannot be read or decoded is in `error`, nothing is raised."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return FileReport(path, error=f"cannot read {printable(path)}: {error.strerror}")
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        decode(io.BytesIO(content), path, Decoding(exif_rotation=False))
        with Image.open(io.BytesIO(content)) as image:
            return FileReport(path, len(content), sha256, image.mode, image.getexif().get(0x0112, 1) != 1)
    except DataError as error:
        return FileReport(path, len(content), sha256, error=str(error))
