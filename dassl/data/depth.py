"""Pixels of more than 8 bits: their range is the one that the file declares, never the one that it happens to use.

So two photographs from one camera keep their difference in brightness. A file that declares 16 bits but uses 12 becomes
dark: `datasets.check` names it.
"""

import numpy as np
from PIL import Image

from dassl.utils.errors import DataError

BITS, PHOTOMETRIC = 258, 262  # tags of TIFF
WHITE_IS_ZERO = 0  # a value of PHOTOMETRIC
N_SPARE = 2  # unused bits from which a file is reported: its brightest pixel is below a quarter of full white


def is_deep(image: Image.Image) -> bool:
    """Tell whether an image is grey with more than 8 bits per pixel."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def grey_of_8_bits(image: Image.Image) -> Image.Image:
    """Return a deep grey image, just loaded, in 8 bits: 0 stays 0 and the largest number that its bits hold becomes 255.

    Pillow's own conversion clips at 255, and leaves 16 bits of WhiteIsZero as a negative. Raises DataError for 32-bit,
    floating-point and signed pixels: nothing says which number is white.
    """
    white = 2 ** _declared_bits(image) - 1
    grey = (np.asarray(image).astype(np.uint32) * 255 + white // 2) // white
    return Image.fromarray((255 - grey if is_inverted(image) else grey).astype(np.uint8))


def is_inverted(image: Image.Image) -> bool:
    """Tell whether a file stores white as zero."""
    return _tag(image, PHOTOMETRIC, 1) == WHITE_IS_ZERO


def unused_bits(image: Image.Image, *, raw_mode: str) -> str:
    """Return a remark on a loaded image if the upper bits of its pixels are all zero, "" otherwise.

    `raw_mode` is Pillow's name for the stored pixels before it loaded them; for color it keeps the upper 8 of 16 bits.
    """
    if is_deep(image):
        declared, used = _declared_bits(image), int(np.asarray(image).max()).bit_length()
    elif ";16" in raw_mode:
        bands = image.getextrema()[:3] if len(image.getbands()) > 2 else image.getextrema()[:1]
        declared, used = 16, 8 + max(high for _, high in bands).bit_length()
    else:
        return ""
    return f"no pixel uses more than {used} of {declared} bits" if used <= declared - N_SPARE else ""


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for the stored pixels of an image that is open but not loaded."""
    arguments = image.tile[0][3] if image.tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _declared_bits(image: Image.Image) -> int:
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # these two hold 16 bits as "I"
        raise DataError("pixels of 32 bits, or signed ones, have no known range; convert the file to 8 or 16 bits")
    return _tag(image, BITS, 16)


def _tag(image: Image.Image, number: int, default: int) -> int:
    """Return a tag of a TIFF file; the default for other formats."""
    value = getattr(image, "tag_v2", {}).get(number, default) if image.format == "TIFF" else default
    return value[0] if isinstance(value, tuple) else value
