"""Image formats: by file suffix, and those that Pillow reads only with another package's plug-in."""

import functools
import importlib
import importlib.util
from dataclasses import dataclass

from dassl.utils.errors import DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"})


@dataclass(frozen=True)
class PlugIn:
    """A format that needs a package: Pillow's name for it, its suffixes, and the `brands` that its bytes begin with.

    A brand follows `ftyp`, as in all files of this family, or is at the very start.
    """

    format: str
    module: str
    package: str
    suffixes: frozenset[str]
    brands: tuple[bytes, ...]

    @property
    def command(self) -> str:
        return f"pip install {self.package}"


HEIF = PlugIn("HEIF", "pillow_heif", "pillow-heif", frozenset({".heic", ".heif", ".hif"}), (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
JXL = PlugIn("JXL", "pillow_jxl", "pillow-jxl-plugin", frozenset({".jxl"}), (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"))
AVIF = PlugIn("AVIF", "pillow_avif", "pillow-avif-plugin", frozenset({".avif"}), (b"avif", b"avis"))
PLUG_INS = (HEIF, JXL, AVIF)  # AVIF is in Pillow itself from 11.3 on, in most builds


def is_installed(module: str) -> bool:
    """Tell whether a module could be imported."""
    return importlib.util.find_spec(module) is not None


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of images that can be read here, in lower case."""
    return SUFFIXES.union(*(own.suffixes for own in PLUG_INS if is_installed(own.module)))


def known_suffixes() -> frozenset[str]:
    """Return the suffixes of images, including those that need a package that is not installed."""
    return SUFFIXES.union(*(own.suffixes for own in PLUG_INS))


def plug_in_for(suffix: str) -> PlugIn | None:
    """Return the plug-in that files with a suffix need, if it is not installed; otherwise None."""
    missing = (own for own in PLUG_INS if suffix.lower() in own.suffixes - image_suffixes())
    return next(missing, None)


def plug_in_of(content: bytes) -> PlugIn | None:
    """Return the plug-in for the format that an image's bytes begin with; None for all other formats."""
    start = content[8:12] if content[4:8] == b"ftyp" else content
    return next((own for own in PLUG_INS if start.startswith(own.brands)), None)


@functools.cache
def register(plug_in: PlugIn) -> None:
    """Let Pillow read a format; raises DataError, with the command that installs its package, if that is missing."""
    try:
        module = importlib.import_module(plug_in.module)
    except ImportError as error:
        raise DataError(f"{plug_in.format} images are read with a package that is not installed: {plug_in.command}") from error
    getattr(module, "register_heif_opener", lambda: None)()  # the others register on import
