"""HEIC, AVIF and JPEG XL: read if a package can read them. Otherwise the error names what to install."""

import importlib
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from dassl.data import formats
from dassl.data.formats import AVIF, HEIF, JXL, PLUG_INS, plug_in_of
from dassl.data.images import Decoding, Undecodable, decode
from dassl.data.scan import inspect
from dassl.utils.errors import DataError

KINDS = [pytest.param(plug_in, id=plug_in.format) for plug_in in PLUG_INS]
GRADIENT = np.stack(np.broadcast_arrays(np.arange(48)[:, None] * 5, np.arange(64) * 3, 90), axis=2).astype(np.uint8)
TURNED = 6  # EXIF: to be turned by 90 degrees to the right


def encoded(plug_in: formats.PlugIn, image: Image.Image, **options) -> bytes:
    """Return an image in a format. If nothing here can write it, the test is skipped."""
    if plug_in is not AVIF or not features.check("avif"):
        module = pytest.importorskip(plug_in.module)
        getattr(module, "register_heif_opener", lambda: None)()
    stream = io.BytesIO()
    image.save(stream, plug_in.format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("plug_in", KINDS)
def test_pixels_are_those_of_the_picture(plug_in):
    """Only what a lossy format loses may differ."""
    content = encoded(plug_in, Image.fromarray(GRADIENT), quality=95)
    assert plug_in_of(content) is plug_in
    difference = np.asarray(decode(content, "x")).astype(int) - GRADIENT
    assert difference.shape == (48, 64, 3) and np.abs(difference).mean() < 3


@pytest.mark.parametrize("plug_in", KINDS)
def test_the_picture_is_turned_once(plug_in):
    """Some plug-ins turn it themselves, which must not be done twice."""
    exif = Image.Exif()
    exif[0x0112] = TURNED
    found = np.asarray(decode(encoded(plug_in, Image.fromarray(GRADIENT), exif=exif.tobytes(), quality=95), "x")).astype(int)
    assert found.shape == (64, 48, 3) and np.abs(found - np.rot90(GRADIENT, -1)).mean() < 3


@pytest.mark.parametrize("plug_in", KINDS)
def test_transparent_pixels_lie_on_white(plug_in):
    content = encoded(plug_in, Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    assert min(decode(content, "x").getpixel((10, 10))) > 250


@pytest.mark.parametrize("plug_in", KINDS)
def test_a_damaged_file_is_one_line(plug_in, tmp_path):
    content = encoded(plug_in, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(Undecodable, match=r"cannot decode photo") as caught:
        decode(content[:len(content) // 2], "photo", Decoding())
    assert "\n" not in str(caught.value)
    (tmp_path / "whole").write_bytes(content)
    assert not inspect(tmp_path / "whole").error


@pytest.mark.parametrize(("plug_in", "content"), [
    (HEIF, b"\0\0\0\x18ftypheic\0\0\0\0"), (HEIF, b"\0\0\0\x18ftypmif1\0\0\0\0"), (JXL, b"\xff\x0a\x98\x10"),
    (JXL, b"\0\0\0\x0cJXL \r\n\x87\n\0\0")])
def test_a_missing_package_is_named_and_is_no_fault_of_the_file(plug_in, content, monkeypatch, tmp_path):
    """Row 43: otherwise DATASET.CORRUPT skip would leave such files out."""
    monkeypatch.setitem(sys.modules, plug_in.module, None)
    monkeypatch.delitem(Image.OPEN, plug_in.format, raising=False)
    formats.register.cache_clear()
    (tmp_path / "photo").write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot decode photo: {plug_in.format} images are read with a package that is not "
                                        rf"installed: pip install {plug_in.package}") as caught:
        from dassl.data import images
        images._of_pillow.cache_clear()
        decode(content, "photo")
    images._of_pillow.cache_clear()
    assert not isinstance(caught.value, Undecodable)
    report = inspect(tmp_path / "photo")
    assert "pip install" in report.error and not report.is_refused
    images._of_pillow.cache_clear()


def test_other_formats_import_no_plug_in(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(GRADIENT).save(stream, "PNG")
    assert plug_in_of(stream.getvalue()) is None
    assert plug_in_of(b"") is plug_in_of(b"\0\0\0\x18ftypisom") is None


@pytest.mark.parametrize("installed", [True, False])
def test_ends_of_names_count_where_they_can_be_read(monkeypatch, installed):
    monkeypatch.setattr(formats, "is_installed", lambda module: installed)
    formats.image_suffixes.cache_clear()
    assert (".heic" in formats.image_suffixes()) == (".jxl" in formats.image_suffixes()) == installed
    assert ".avif" in formats.image_suffixes() and ".jpg" in formats.image_suffixes()
    assert [formats.plug_in_for(end) for end in (".HEIC", ".jxl", ".jpg")] == ([None] * 3 if installed else [HEIF, JXL, None])
    monkeypatch.undo()
    formats.image_suffixes.cache_clear()


def test_packages_are_those_of_the_requirements():
    """Each is in the file that installs them all, except for the one that newer Pillow makes unnecessary."""
    text = (Path(importlib.import_module("dassl").__file__).parents[1] / "requirements-data.txt").read_text()
    assert all(own.package in text for own in (HEIF, JXL)) and AVIF.package not in text
