"""Images as the page shows them: decoded, upright, scaled down and encoded again, so that only pixels leave the file."""

import functools
import io

from PIL import Image

from dassl.data.images import Decoding, read_image
from dassl.data.places import Place

SIDES = {"small": 256, "large": 1600, "full": 6000}  # pixels of the longer side at most
LOSSLESS = 512  # pixels of the longer side up to which an image is PNG
QUALITY = 90  # of the JPEG files
N_KEPT = 128


def picture(file: Place, size: str) -> tuple[bytes, str]:
    """Return an image in one of `SIDES` and its media type; raises DataError, naming the file, if it cannot be decoded."""
    return (_made if size == "full" else _kept)(file, size)  # those for the zoom are megabytes each, so they are not kept


def _made(file: Place, size: str) -> tuple[bytes, str]:
    side = SIDES[size]
    image = read_image(file, Decoding(exif_rotation=True, draft=3 * side // 4))  # the shorter side of a 4 : 3 photograph
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    image.info.clear()  # comments, profiles and the like, which encoders would copy
    stream = io.BytesIO()
    if max(image.size) <= LOSSLESS:
        image.save(stream, "PNG")
        return stream.getvalue(), "image/png"
    image.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue(), "image/jpeg"


_kept = functools.lru_cache(maxsize=N_KEPT)(_made)
