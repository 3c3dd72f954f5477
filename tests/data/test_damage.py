"""Partly written files that decoders accept as whole. Row 1 of the faults table."""

import io

import numpy as np
import pytest
from PIL import Image

from dassl.data import damage
from dassl.data.images import Decoding, Undecodable, decode
from dassl.data.scan import inspect

JPEGS = [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}, {"subsampling": 0}, {"quality": 30}]


def picture(mode: str = "RGB", size: int = 200) -> Image.Image:
    """Something like a photograph: soft shapes with a little noise, no part of one color."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    soft = np.stack([np.sin(9 * x + 5 * y), np.cos(7 * y - 4 * x), np.sin(5 * x * y)], 2) * 100 + 128
    return Image.fromarray((soft + rng.normal(0, 6, soft.shape)).clip(0, 255).astype(np.uint8)).convert(mode)


def written(form: str, image: Image.Image | None = None, **options) -> bytes:
    stream = io.BytesIO()
    (image or picture()).save(stream, form, **options)
    return stream.getvalue()


def zeroed(content: bytes, share: float) -> bytes:
    """The content of a file of full size of which only a part had been written when the power failed."""
    n_kept = int(len(content) * share)
    return content[:n_kept] + bytes(len(content) - n_kept)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("size", [40, 200, 500])
def test_a_png_whose_rest_is_zeros_is_an_error(share, size):
    """Its decoder reads zeros as pixels, and does not compare the checksum."""
    with pytest.raises(Undecodable):
        decode(zeroed(written("PNG", picture(size=size)), share), "a.png")


def test_one_changed_byte_of_a_png_is_an_error():
    """It is found in any part that the pixels need, whatever Pillow makes of it. Every 97th byte is tried."""
    content = written("PNG")
    for place in range(16, len(content), 97):
        with pytest.raises(Undecodable):
            decode(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:], "a.png")


def test_the_checksum_of_pixels_alone_is_compared():
    """The pixels can be unpacked, but their checksum does not fit."""
    content = written("PNG")
    end = content.rindex(b"IEND") - 4
    with pytest.raises(Undecodable, match="its part IDAT has another checksum than it says"):
        decode(content[:end - 1] + bytes([content[end - 1] ^ 1]) + content[end:], "a.png")


def test_a_remark_of_a_wrong_checksum_costs_no_png():
    """Chunks after the pixels that do not affect them, such as a time or text, may be wrong, and so may bytes after the end."""
    content = written("PNG")
    end = content.rindex(b"IEND") - 4
    remark = b"\0\0\0\4tEXtabcd" + b"\0\0\0\0"
    assert decode(content[:end] + remark + content[end:] + b"\0" * 99, "a.png").tobytes() == picture().tobytes()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_a_jpeg_that_was_cut_and_closed_is_an_error(mode, options, share):
    """Photo rescue tools do this: the decoder fills the rest with gray without a warning."""
    content = written("JPEG", picture(mode), **options)
    with pytest.raises(Undecodable, match="cut off and closed by an end marker"):
        decode(content[:int(len(content) * share)] + b"\xff\xd9", "a.jpg")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_is_noticed_in_draft_mode(progressive):
    content = written("JPEG", picture(size=800), progressive=progressive)
    assert decode(content, "a.jpg", Decoding(draft=400)).size == (400, 400)
    with pytest.raises(Undecodable, match="cut off"):
        decode(content[:len(content) // 2] + b"\xff\xd9", "a.jpg", Decoding(draft=400))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("make", [
    lambda content: content, lambda content: content + b"\0" * 20, lambda content: content + content,
    lambda content: content[:2] + b"\xff\xfe\0\6\xff\xd9ab" + content[2:]], ids=["plain", "padded", "followed", "remark"])
def test_a_whole_jpeg_is_never_called_cut(mode, options, make):
    """Anything may follow it, and a comment may contain an end marker."""
    for image in (picture(mode), Image.new(mode, (33, 17), (128,) * len(mode) if mode != "L" else 128)):
        content = make(written("JPEG", image, **options))
        decode(content, "a.jpg")
        with Image.open(io.BytesIO(content)) as loaded:
            loaded.load()
            assert not damage._is_cut(content, loaded)


def test_no_real_photograph_is_called_partial(real_data):
    """1,200 photographs of Caltech101 are tried, some of them on white or black backgrounds."""
    reports = [inspect(file) for file in sorted((real_data / "caltech101_small").rglob("*.jpg"))]
    assert len(reports) == 1200 and not [report for report in reports if report.error or report.remarks]


@pytest.mark.parametrize(("form", "options"), [
    ("WEBP", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {}), ("PPM", {}), ("JPEG", {}),
    ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_adobe_deflate"}), ("GIF", {})])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_file_whose_rest_is_zeros_is_an_error_or_named(tmp_path, form, options, share):
    """These formats have no checksum, so a file that their decoder accepts is reported as suspicious by `datasets.check`."""
    whole = written(form, **options)
    (tmp_path / "whole").write_bytes(whole)
    (tmp_path / "half").write_bytes(zeroed(whole, share))
    report = inspect(tmp_path / "half")
    assert report.is_refused or "bytes are zero" in report.remarks["partial"]
    assert inspect(tmp_path / "whole").remarks == {}


def test_a_grey_lower_part_is_named(tmp_path):
    """The picture was opened when it was damaged, and saved again."""
    image = picture()
    image.paste((128, 128, 128), (0, 150, 200, 200))
    for name in ("a.png", "a.jpg"):
        image.save(tmp_path / name)
        assert "rows are nothing but grey" in inspect(tmp_path / name).remarks["partial"]
    Image.new("RGB", (200, 200), (255, 255, 255)).save(tmp_path / "white.png")
    assert inspect(tmp_path / "white.png").remarks == {}
