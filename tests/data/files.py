"""TIFF and PNG files written by hand, in forms that Pillow does not write itself."""

import struct
import zlib

import numpy as np


def tiff(data: bytes, width: int, height: int, *, bits: int, photometric: int = 1, sample_format: int = 1,
         order: str = "<", deflated: bool = False) -> bytes:
    """Return a TIFF file of gray pixels; `photometric` 0 is WhiteIsZero, `sample_format` 2 signed, 3 floating point."""
    data = zlib.compress(data) if deflated else data
    data += b"\0" * (len(data) % 2)
    tags = {256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, 8 if deflated else 1), 262: (3, photometric),
            273: (4, 8), 277: (3, 1), 278: (4, height), 279: (4, len(data)), 339: (3, sample_format)}
    entries = b"".join(struct.pack(f"{order}HHI", tag, kind, 1)
                       + (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
                       for tag, (kind, value) in tags.items())
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4


def grey_tiff(pixels: np.ndarray, **options) -> bytes:
    """Return the TIFF file of an array [height, width]; its type gives the bits, and whether they are signed."""
    order = options.get("order", "<")
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    return tiff(pixels.astype(pixels.dtype.newbyteorder(order)).tobytes(), *pixels.shape[::-1], bits=8 * pixels.itemsize,
                sample_format=kind, **options)


def packed_12_bits(values: list[int]) -> bytes:
    """Return an even number of values, 12 bits each, one after the other."""
    pairs = zip(values[::2], values[1::2], strict=True)
    return b"".join(struct.pack(">I", first << 12 | second)[1:] for first, second in pairs)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(header: tuple[int, ...], rows: bytes) -> bytes:
    """Return a PNG file of a header (width, height, bits, kind of color, 0, 0, 0) and its unfiltered rows."""
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *header))
            + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))
