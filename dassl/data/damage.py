"""Files that were written only in part but decode anyway: the decoder fills in grey, black or noise.

A PNG file has checksums, which its decoder does not compare. If a JPEG file was cut and closed by an end marker, its decoder
still waits for data there: bytes inserted before the marker change its pixels. Other formats have nothing to compare, so
`datasets.check` can only name what looks odd.
"""

import io
import re
import zlib

import numpy as np
from PIL import Image

from dassl.utils.errors import DataError

GREY = (126, 130)  # the grey that a JPEG decoder paints where it has no data, also in copies of such pictures
BAND = 8  # an eighth of the height must be grey, or of the file zero, to be reported
N_ZEROS = 64  # at least
FILLER = bytes(range(1, 255, 3))  # a complete image ignores it: any bytes but 255, which begins a marker
CORNER = 8  # pixels, the side of a block of JPEG

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # except those within image data
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def check_whole(content: bytes, image: Image.Image) -> None:
    """Raise DataError if the bytes of a PNG or JPEG file, just loaded as `image`, are certainly incomplete or damaged.

    A JPEG file is decoded a second time if it is progressive, or if its last corner is grey.
    """
    if image.format == "PNG" and (fault := _png_fault(content)):
        raise DataError(fault)
    if image.format in ("JPEG", "MPO") and _may_be_cut(image) and _is_cut(content, image):
        raise DataError("cut off and closed by an end marker")


def suspicion(content: bytes, image: Image.Image) -> str:
    """Return what may be missing in a file that was decoded, "" if nothing looks odd. A JPEG file is decoded again."""
    n_zeros = len(content) - len(content.rstrip(b"\0"))
    if image.format != "PNG" and n_zeros >= max(N_ZEROS, len(content) // BAND):
        return f"the last {n_zeros:,} of {len(content):,} bytes are zero"
    if image.format in ("JPEG", "MPO") and _is_cut(content, image):
        return "its data end in the last blocks of the picture"
    height = max(1, image.height // BAND)
    if image.height > BAND and _is_grey(image.crop((0, image.height - height, *image.size))):
        return f"the lower {height} of {image.height} rows are nothing but grey"
    return ""


def _is_cut(content: bytes, image: Image.Image) -> bool:
    """Tell whether the data in a JPEG file, loaded as `image`, end before the picture does."""
    end = _end_of_jpeg(content)
    if end is None:
        return False
    with Image.open(io.BytesIO(content[:end] + FILLER + b"\xff\xd9"), formats=("JPEG",)) as filled:
        filled.draft(None, image.size)  # at the same scale, if it was decoded in draft mode
        return filled.tobytes() != image.tobytes()


def _end_of_jpeg(content: bytes) -> int | None:
    """Return where the end marker of the first image in a JPEG file is; None if there is none."""
    place = 2
    while found := _MARKER.search(content, place):
        kind, place = found[1][0], found.end()
        if kind == _END_OF_IMAGE:
            return found.start()
        place += int.from_bytes(content[place:place + 2], "big")  # a segment; a scan's segment is followed by its data
        if kind != _START_OF_SCAN and content[place:place + 1] != b"\xff":
            return None
    return None


def _png_fault(content: bytes) -> str:
    """Return what is wrong with a part of a PNG file that its pixels need, "" if nothing is."""
    place, view = 8, memoryview(content)
    while place + 8 <= len(content):
        n_bytes, kind = int.from_bytes(content[place:place + 4], "big"), content[place + 4:place + 8]
        end = place + 8 + n_bytes
        needed = kind[:1].isupper()
        if needed and end + 4 > len(content):
            return f"cut off in its part {kind.decode('latin-1')}"
        if needed and zlib.crc32(view[place + 4:end]) != int.from_bytes(content[end:end + 4], "big"):
            return f"its part {kind.decode('latin-1')} has another checksum than it says"
        if kind == b"IEND":
            break
        place = end + 4
    return ""


def _may_be_cut(image: Image.Image) -> bool:
    if image.info.get("progressive"):
        return True
    last = image.getpixel((image.width - 1, image.height - 1))  # for most pictures this check is enough
    if not GREY[0] <= (last if isinstance(last, int) else min(last)) <= GREY[1]:
        return False
    return _is_grey(image.crop((max(0, image.width - CORNER), max(0, image.height - CORNER), *image.size)))


def _is_grey(image: Image.Image) -> bool:
    """Tell whether all pixels of an image have one value, near the middle, in all their channels."""
    if image.mode not in ("L", "RGB", "CMYK"):
        return False
    pixels = np.asarray(image)
    return GREY[0] <= int(pixels.min()) and int(pixels.max()) <= GREY[1] and bool((pixels == pixels[0, 0]).all())
