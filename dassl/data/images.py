"""Decoding, in one place: any image file to 8-bit RGB, or one error that names the file.

Odd files are handled as follows (the field's images are ordinary RGB or grey JPEG and PNG files, for which only the
decoder matters):

- HEIC and JPEG XL are read if their packages are installed, see `dassl.data.formats`; otherwise DataError names them;
- empty, truncated, cut off and closed by an end marker (JPEG), with a wrong checksum (PNG), or not an image in one
  of `FORMATS`, whatever its name: Undecodable; nothing is ever filled in with grey;
- a file that cannot be read (a folder, no permission, a failing disk or network, too many open files) and a lack of
  memory: DataError, which says nothing about the file's content;
- more than `MAX_PIXELS` pixels, or a side over `MAX_ASPECT` times the other, which would become a bomb when the shorter
  side is resized: Undecodable, before a pixel is decoded;
- grey of 9 to 16 bits: scaled to 8 by the bits that the file declares, not clipped, and never by what it happens to hold;
  32-bit integer, signed and floating-point pixels: Undecodable, whatever their values, since their range is unknown;
- TIFF with white as zero (faxes, X-rays): black on white as in any other file;
- transparent pixels are laid over `TRANSPARENT_ON`; palettes and CMYK are converted by Pillow; animations give their first
  frame;
- the EXIF rotation is applied, unless `Decoding` says otherwise.
"""

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.Image import Transpose

from dassl.data.damage import check_whole
from dassl.data.depth import grey_of_8_bits, is_deep
from dassl.data.formats import PlugIn, plug_in_of, register
from dassl.data.places import Place, content_of
from dassl.utils.errors import DataError, first_line
from dassl.utils.text import printable

TRANSPARENT_ON = (255, 255, 255)  # white, as on paper and on most web pages
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF")  # PostScript would start a program
MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB at 3 bytes per pixel
MAX_ASPECT = 1000  # at 224 pixels for the shorter side, 50 million in all
DECODER_BYTES = 2**26  # more than any decoder needs besides `PIXEL_BYTES` per pixel
PIXEL_BYTES = 16  # the largest need: coefficients of a progressive JPEG, planes of an AVIF

_UPRIGHT = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # by EXIF's orientation


class Undecodable(DataError):
    """A decoder, or a limit of this module, refuses the bytes of a file: reading them again changes nothing."""


@dataclass(frozen=True)
class Decoding:
    """How files become pixels. The defaults are exact.

    `exif_rotation=False` leaves photographs as the sensor saw them, as the code of the field's papers does.
    `draft` > 0 lets the JPEG decoder drop resolution as long as the shorter side keeps that many pixels: several times
    faster on large photographs, but no longer the same pixels.
    """

    exif_rotation: bool = True
    draft: int = 0


def read_image(place: Place, decoding: Decoding = Decoding()) -> Image.Image:
    """Return the image of a file as 8-bit RGB. Raises Undecodable or DataError, naming the file, if that fails."""
    return decode(read_bytes(place), place, decoding)


def read_bytes(place: Place) -> bytes:
    """Return the bytes of an image file, or of an image in another file; raises DataError naming it if they cannot be read."""
    try:
        return content_of(place)
    except (OSError, MemoryError) as error:
        raise _unreadable(place, error) from error


def decode(content: bytes, name: Place, decoding: Decoding = Decoding()) -> Image.Image:
    """Return the image in the bytes of a file as 8-bit RGB; `name` is its name in errors."""
    with opened(content, name) as image:
        pixels = pixels_of(image, decoding)
        check_whole(content, image)
        return pixels


def image_bytes(content: bytes, name: Place) -> int:
    """Return the bytes of the 8-bit RGB image in a file; only its head is read. Raises as `decode` does."""
    with opened(content, name) as image:
        _check_size(*image.size)
        return 3 * image.width * image.height


@contextlib.contextmanager
def opened(content: bytes, name: Place) -> Iterator[Image.Image]:
    """Open the bytes of an image file for a block; any failure in it becomes one error with the file's name.

    Undecodable means that a decoder refuses the bytes; DataError means a lack of memory, or a system error.
    """
    image = None
    try:
        with Image.open(io.BytesIO(content), formats=_formats(plug_in_of(content), name)) as image:
            yield image
            return
    except UnidentifiedImageError:
        reason = f"not an image in a format that is read ({', '.join(_formats())})" if content else "empty file"
    except Exception as error:  # on damaged files the parsers of Pillow's plug-ins may raise anything
        if isinstance(error, _NoDecoder):
            raise
        if _is_the_system_s(error, image):
            raise _unreadable(name, error) from error
        reason = first_line(error)
    raise Undecodable(f"cannot decode {printable(name)}: {reason}")


def pixels_of(image: Image.Image, decoding: Decoding) -> Image.Image:
    """Return an image that was just opened as 8-bit RGB."""
    _check_size(*image.size)
    if decoding.draft:
        _draft(image, decoding.draft)
    image.load()
    method = _UPRIGHT.get(orientation(image)) if decoding.exif_rotation else None
    rgb = _to_rgb(image)
    return rgb if method is None else rgb.transpose(method)


def orientation(image: Image.Image) -> int:
    """Return the orientation that EXIF gives, 1 to 8; 1, upright, where there is none or its block is damaged."""
    try:
        value = image.getexif().get(0x0112, 1)
    except MemoryError:
        raise
    except Exception:  # the parser may raise anything; the pixels are intact
        return 1
    return value if value in range(1, 9) else 1


class _NoDecoder(DataError):
    """The format needs a package that is not installed: not a fault of the file, so it is never left out."""


def _formats(plug_in: PlugIn | None = None, name: Place = "") -> tuple[str, ...]:
    """Return those of `FORMATS` that this Pillow has, and a plug-in's, which is imported for a file that needs it."""
    own = _of_pillow()
    if plug_in is None or plug_in.format in own:
        return own
    try:
        register(plug_in)
    except DataError as error:
        raise _NoDecoder(f"cannot decode {printable(name)}: {error}") from error
    return (*own, plug_in.format)


@functools.cache
def _of_pillow() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _unreadable(name: Place, error: Exception) -> DataError:
    reason = "out of memory" if isinstance(error, MemoryError) else getattr(error, "strerror", None) or str(error)
    return DataError(f"cannot read {printable(name)}: {reason}")


def _is_the_system_s(error: Exception, image: Image.Image | None) -> bool:
    """Tell whether an error is a lack of memory or comes from the operating system, so that the file is not at fault.

    Some decoders report a lack of memory as a broken file, so the memory that they may need is requested again as a test.
    """
    if isinstance(error, DataError):
        return False
    if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None or "memory" in str(error).lower():
        return True
    width, height = image.size if image else (0, 0)
    try:
        np.empty(DECODER_BYTES + PIXEL_BYTES * min(width * height, MAX_PIXELS), np.uint8)
    except MemoryError:
        return True
    return False


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are decoded")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other")


def _draft(image: Image.Image, shorter_side: int) -> None:
    """Set a JPEG's decoder to the smallest scale that keeps the shorter side; other formats ignore it."""
    scale = shorter_side / min(image.size)
    image.draft(None, (int(np.ceil(image.width * scale)), int(np.ceil(image.height * scale))))


def _to_rgb(image: Image.Image) -> Image.Image:
    if is_deep(image):
        image = grey_of_8_bits(image)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*TRANSPARENT_ON, 255)), image)
    return image.convert("RGB")
