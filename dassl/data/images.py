"""Decoding, in one place: any image file to 8-bit RGB, or one error that names the file.

What is done with odd files (the images of this project's field are ordinary RGB or grey JPEG and PNG files, for which
nothing but the decoder matters):

- empty, truncated, not an image, a folder: DataError; nothing is ever filled in with grey;
- more than `MAX_PIXELS` pixels, or a side over `MAX_ASPECT` times the other, which would become a bomb when the shorter
  side is resized: DataError, before a pixel is decoded;
- 16-bit grey: scaled to 8 bits, not clipped; 32-bit integer and floating-point pixels: DataError, their range is unknown;
- transparent pixels lie on `TRANSPARENT_ON`; palette and CMYK are converted as Pillow does; animations give their first frame;
- the EXIF rotation is applied, unless `Decoding` says otherwise.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dassl.utils.errors import DataError

TRANSPARENT_ON = (255, 255, 255)  # white, as on paper and on most web pages
MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB of 3 bytes a pixel
MAX_ASPECT = 1000  # at 224 pixels for the shorter side, 50 million in all


@dataclass(frozen=True)
class Decoding:
    """How files become pixels. The defaults are exact.

    `exif_rotation=False` leaves photographs as the sensor saw them, which is what the code of the field's papers does.
    `draft` > 0 lets the JPEG decoder drop resolution as long as the shorter side keeps that many pixels: several times
    faster on large photographs, but no longer the same pixels.
    """

    exif_rotation: bool = True
    draft: int = 0


def read_image(path: str | Path, decoding: Decoding = Decoding()) -> Image.Image:
    """Return the image of a file as 8-bit RGB. Raises DataError naming the file if it cannot be had."""
    return decode(path, path, decoding)


def decode(source: str | Path | BinaryIO, name: str | Path, decoding: Decoding = Decoding()) -> Image.Image:
    """Return the image in a file or a stream of bytes as 8-bit RGB; `name` is what errors call it."""
    try:
        with Image.open(source) as image:
            _check_size(*image.size)
            if decoding.draft:
                _draft(image, decoding.draft)
            image.load()
            if decoding.exif_rotation:
                _rotate(image)
            return _to_rgb(image)
    except UnidentifiedImageError:
        reason = "empty file" if _is_empty(source) else "not an image that Pillow reads"
    except OSError as error:
        reason = error.strerror or str(error)
    except Exception as error:  # on damaged files Pillow's plug-ins raise whatever their parser trips over
        reason = str(error) or type(error).__name__
    raise DataError(f"cannot decode {printable(name)}: {reason}")


def printable(path: str | Path) -> str:
    """Return a path as a message can show it: in one line, with bytes that are not UTF-8 as escapes."""
    text = os.fsdecode(path)
    return text if text.isprintable() else ascii(text)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are decoded")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other")


def _is_empty(source: str | Path | BinaryIO) -> bool:
    if isinstance(source, (str, Path)):
        return os.path.getsize(source) == 0
    return source.seek(0, os.SEEK_END) == 0


def _draft(image: Image.Image, shorter_side: int) -> None:
    """Set a JPEG's decoder to the smallest scale that keeps the shorter side; other formats take no notice."""
    scale = shorter_side / min(image.size)
    image.draft(None, (int(np.ceil(image.width * scale)), int(np.ceil(image.height * scale))))


def _rotate(image: Image.Image) -> None:
    with contextlib.suppress(Exception):  # a damaged EXIF block says nothing of a rotation; the pixels are loaded already
        ImageOps.exif_transpose(image, in_place=True)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey_of_8_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*TRANSPARENT_ON, 255)), image)
    return image.convert("RGB")


def _grey_of_8_bits(image: Image.Image) -> Image.Image:
    """Return a 16-bit grey image in 8 bits: 0 stays 0, 65535 becomes 255. Pillow's own conversion clips at 255."""
    grey = np.asarray(image)
    if image.mode == "F" or grey.min() < 0 or grey.max() > 65535:
        raise DataError("32-bit pixels have no known range; convert the file to 8 or 16 bits")
    return Image.fromarray(((grey.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
