"""Decoding: rows 1, 22, 23 and 24 of the faults table, each with a file written here."""

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import EpsImagePlugin, Image
from PIL.JpegImagePlugin import JpegImageFile

from dassl.data import scan
from dassl.data.images import MAX_PIXELS, Decoding, Undecodable, decode, read_image
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import DataError
from tests.data.files import grey_tiff, packed_12_bits, png, tiff

RED = (255, 0, 0)
JUST_RED = np.full((4, 6, 3), RED, dtype=np.uint8)


def noise(height=40, width=60, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces any size and holds almost nothing, as a decompression bomb does."""
    return png((width, height, 8, 2, 0, 0, 0), b"\0" * 1000)


NO_IMAGE = r"not an image in a format that is read \(JPEG, PNG, .*\)"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix, share):
    """Row 1: it must never give half an image with the rest gray."""
    file = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise(200, 200)).save(file)
    file.write_bytes(file.read_bytes()[:int(file.stat().st_size * share)])
    with pytest.raises(DataError, match=rf"cannot decode .*cut.{suffix}: "):
        read_image(file)


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty file"), (b"this is text\n", NO_IMAGE),
                                                 (b"<!DOCTYPE html><html>", NO_IMAGE), (POSTSCRIPT, NO_IMAGE)])
def test_an_empty_file_and_text_named_jpg_are_errors(tmp_path, content, reason):
    """Row 1."""
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"^cannot decode .*a.jpg: {reason}$"):
        read_image(tmp_path / "a.jpg")


def test_no_image_starts_a_program(tmp_path, monkeypatch):
    """Row 19: Pillow would run Ghostscript on PostScript that is named like a photograph."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    monkeypatch.setattr(EpsImagePlugin.subprocess, "check_call", lambda *call, **_: started.append(call))
    (tmp_path / "a.jpg").write_bytes(POSTSCRIPT)
    with pytest.raises(Undecodable):
        read_image(tmp_path / "a.jpg")
    assert scan.inspect(tmp_path / "a.jpg").is_refused and started == []


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000"])
def test_a_file_of_another_name_than_its_format_is_read(tmp_path, form):
    """Published data sets have a few such files."""
    Image.new("RGB", (6, 4), RED).save(tmp_path / "a.jpg", form)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - RED).max() <= 2


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_missing_file_and_a_folder_are_errors(tmp_path, make):
    """Row 2: here only the single file is named. All missing files are reported together before a run."""
    make(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg: (No such file or directory|Is a directory)"):
        read_image(tmp_path / "a.jpg")


def test_what_a_decoder_refuses_is_told_from_what_cannot_be_read(tmp_path):
    """Row 1: only the former is a fault of the file, which `DATASET.CORRUPT skip` may leave out."""
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(Undecodable):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match=r"^cannot read .*folder.jpg: Is a directory$") as caught:
        (tmp_path / "folder.jpg").mkdir()
        read_image(tmp_path / "folder.jpg")
    assert not isinstance(caught.value, Undecodable)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE])
def test_an_error_of_the_system_is_no_fault_of_the_file(tmp_path, monkeypatch, number):
    """Row 1: it may be a disk or network that failed once, or a process with too many open files."""
    Image.fromarray(noise()).save(tmp_path / "a.png")

    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", failing)
    with pytest.raises(DataError, match=rf"^cannot read .*a.png: {os.strerror(number)}$") as caught:
        read_image(tmp_path / "a.png")
    assert not isinstance(caught.value, Undecodable)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: a pipe, a socket or a device, not a file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory error when reading image file"), OSError(5, "I/O"),
                                   RuntimeError("Pixel allocation failed: Out of memory")])
@pytest.mark.parametrize("step", ["load", "transpose"])
def test_a_lack_of_memory_while_decoding_is_no_fault_of_the_file(tmp_path, monkeypatch, error, step):
    """Row 1: neither in the decoder nor while the image is turned. Otherwise the file would be left out silently."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=exif)

    def failing(*_, **__):
        raise error

    monkeypatch.setattr(JpegImageFile if step == "load" else Image.Image, step, failing)
    with pytest.raises(DataError, match=r"^cannot read .*a.jpg: (out of memory|I/O|.*memory)") as caught:
        read_image(tmp_path / "a.jpg")
    assert not isinstance(caught.value, Undecodable)


LACK_OF_MEMORY = """
import resource, sys
from PIL import Image
from dassl.data.images import Undecodable, read_image
from dassl.utils.errors import DataError
from tests.data.files import grey_tiff, packed_12_bits, png, tiff

Image.init()
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + int(sys.argv[2]), -1))
try:
    read_image(sys.argv[1])
except DataError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize(("suffix", "options"), [("jpg", {}), ("jpg", {"progressive": True}), ("png", {}), ("webp", {})])
def test_a_decoder_that_finds_no_memory_does_not_condemn_the_file(tmp_path, suffix, options):
    """Row 1: some decoders call that a broken file, such as "broken data stream" of a progressive JPEG."""
    Image.fromarray(noise(1500, 1500)).save(tmp_path / f"a.{suffix}", **options)
    for n_bytes in (8 * 2**20, 12 * 2**20, 18 * 2**20):
        done = subprocess.run([sys.executable, "-c", LACK_OF_MEMORY, tmp_path / f"a.{suffix}", str(n_bytes)], text=True,
                              capture_output=True, cwd=Path(__file__).parents[2], check=False)
        answers = ("DataError cannot read ",) if n_bytes == 8 * 2**20 else ("DataError cannot read ", "\n")  # or it suffices
        assert f"{done.stdout}\n".startswith(answers), done.stdout
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    """Row 23: a ramp from 0 to 65535 becomes a ramp from 0 to 255, not 99.6 % white."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(ramp).save(tmp_path / f"ramp.{suffix}")
    grey = np.asarray(read_image(tmp_path / f"ramp.{suffix}"))[..., 0]
    assert np.array_equal(grey, (ramp / 257).round().astype(np.uint8))


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pixels", [np.float32([[0.0, 0.5]]), np.float32([[0, 255]]), np.int32([[0, 70000]]),
                                    np.int32([[-1, 3]]), np.int32([[0, 255]]), np.uint32([[0, 255]]), np.int16([[0, 255]]),
                                    np.int16([[0, 32767]])])
def test_pixels_of_unknown_range_are_refused(tmp_path, pixels, order, deflated):
    """Row 23: the values do not matter. A 32-bit TIFF with values up to 255 must not turn black."""
    (tmp_path / "a.tif").write_bytes(grey_tiff(pixels, order=order, deflated=deflated))
    with pytest.raises(Undecodable, match=rf"no known range|{NO_IMAGE}"):  # some of these Pillow does not know at all
        read_image(tmp_path / "a.tif")


def test_the_grey_of_a_float_map_is_refused(tmp_path):
    (tmp_path / "a.pfm").write_bytes(b"Pf\n2 1\n-1.0\n" + struct.pack("<ff", 0, 1))
    with pytest.raises(Undecodable, match="no known range"):
        read_image(tmp_path / "a.pfm")


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize(("dtype", "order"), [(np.uint8, "<"), (np.uint8, ">"), (np.uint16, "<")])
def test_white_as_zero_is_turned_round(tmp_path, dtype, order, deflated):
    """Row 23: it must give the same picture as with black as zero, not its negative."""
    ramp = np.linspace(0, np.iinfo(dtype).max, 12).round().astype(dtype).reshape(3, 4)
    (tmp_path / "black.tif").write_bytes(grey_tiff(ramp, order=order, deflated=deflated))
    (tmp_path / "white.tif").write_bytes(grey_tiff(np.iinfo(dtype).max - ramp, photometric=0, order=order, deflated=deflated))
    black, white = (np.asarray(read_image(tmp_path / f"{name}.tif")) for name in ("black", "white"))
    assert np.array_equal(black, white)
    assert black[0, 0].tolist() == [0] * 3 and black[-1, -1].tolist() == [255] * 3


@pytest.mark.parametrize("compression", [None, "group3", "group4", "packbits"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_one_bit_is_black_on_white_however_it_is_stored(tmp_path, compression, photometric):
    """Row 23: faxes."""
    page = Image.new("1", (16, 4), 255)
    page.putpixel((3, 2), 0)
    page.save(tmp_path / "a.tif", compression=compression, tiffinfo={262: photometric})
    assert np.array_equal(read_image(tmp_path / "a.tif"), page.convert("RGB"))


@pytest.mark.parametrize("deflated", [False, True])
def test_12_bits_that_the_file_declares_are_scaled_as_12(tmp_path, deflated):
    """Row 23: 4095 is white there, not a sixteenth of it."""
    (tmp_path / "a.tif").write_bytes(tiff(packed_12_bits([0, 4095, 2048, 16]), 4, 1, bits=12, deflated=deflated))
    assert np.asarray(read_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 255, 128, 1]


def test_16_bits_are_scaled_as_16_whatever_they_hold(tmp_path):
    """Row 23: an image's brightness must not depend on its brightest pixel."""
    (tmp_path / "a.tif").write_bytes(grey_tiff(np.uint16([[0, 257, 4095]])))
    assert np.asarray(read_image(tmp_path / "a.tif"))[0, :, 0].tolist() == [0, 1, 16]


@pytest.mark.parametrize("largest", [4095, 1000, 65535])
def test_a_grey_map_is_scaled_by_the_largest_value_that_it_declares(tmp_path, largest):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 %d\n" % largest + struct.pack(">HH", largest, 0))
    assert np.asarray(read_image(tmp_path / "a.pgm"))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_grey_is_scaled_and_turned(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.uint16([[0, 65535]])).save(tmp_path / "a.png", exif=exif)
    pixels = np.asarray(read_image(tmp_path / "a.png"))[..., 0]
    assert pixels.tolist() == ([[0, 255]] if orientation == 1 else [[0], [255]])


def test_cmyk_becomes_rgb(tmp_path):
    """Row 24."""
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(np.asarray(read_image(tmp_path / "a.jpg")).astype(int) - RED).max() <= 2


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB"])
def test_ordinary_modes_become_rgb_as_pillow_does(tmp_path, mode):
    image = Image.fromarray(noise()).convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_lie_on_white(tmp_path, mode):
    """Row 24: what the file holds below a transparent pixel, here black, does not show."""
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
    image.save(tmp_path / "a.png")
    assert np.asarray(read_image(tmp_path / "a.png")).tolist() == [[[255, 255, 255], [0, 0, 0]]]


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (1, 1), (255, 0, 0, 51)).save(tmp_path / "a.png")  # a fifth of red on white
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 204, 204)


def test_a_transparent_palette_color_lies_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert np.asarray(read_image(tmp_path / "a.png")).tolist() == [[[255, 255, 255], [200, 0, 0]]]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_an_animation_gives_its_first_frame(tmp_path, suffix):
    """Row 24."""
    frames = [Image.new("RGB", (6, 4), color) for color in (RED, (0, 255, 0), (0, 0, 255))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:],
                   **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), JUST_RED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_unless_switched_off(tmp_path, orientation):
    """Row 24: all eight orientations. Without it, the result is that of the code of the field's papers."""
    pixels = noise()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
               6: pixels.transpose(1, 0, 2)[:, ::-1], 7: pixels.transpose(1, 0, 2)[::-1, ::-1],
               8: pixels.transpose(1, 0, 2)[::-1]}[orientation]
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)
    assert np.array_equal(read_image(tmp_path / "a.png", Decoding(exif_rotation=False)), pixels)


def test_a_damaged_exif_block_costs_no_image(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff rubbish")
    assert np.array_equal(read_image(tmp_path / "a.png"), noise())


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (700, 1), (3, 2)])
def test_tiny_and_thin_images_reach_the_input_size(tmp_path, size):
    """Row 24: 1x1, 1xN, Nx1."""
    Image.new("RGB", size, RED).save(tmp_path / "a.png")
    view = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3).transform().pixels(read_image(tmp_path / "a.png"))
    assert np.array_equal(view, np.full((32, 32, 3), RED, dtype=np.uint8))


@pytest.mark.parametrize("size", [(1, 5000), (60000, 2)])
def test_images_too_thin_to_resize_are_refused(tmp_path, size):
    """Row 24: with a shorter side of 224, they would take gigabytes."""
    Image.new("L", size).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="one side is more than 1000 times the other"):
        read_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10000, 9000), (30000, 30000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size):
    """Row 24: the file has a hundred bytes; above twice Pillow's limit Pillow itself refuses."""
    assert size[0] * size[1] > MAX_PIXELS
    with pytest.raises(DataError, match=r"^cannot decode bomb.png: .*(pixels|large)"):
        decode(png_header(*size), "bomb.png")


def test_a_huge_image_below_the_limit_is_decoded(tmp_path):
    Image.new("L", (9000, 9000), 7).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.size == (9000, 9000) and image.getpixel((8999, 8999)) == (7, 7, 7)


NAMES = [b"two words.png", b"quote'\".png", "\N{GRINNING FACE}.png".encode(), b"new\nline.png", b"latin1 \xe9.png",
         "NFD e\N{COMBINING ACUTE ACCENT}.png".encode(), b"a" * 251 + b".png"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name_are_read(tmp_path, name):
    """Row 22: spaces, quotes, emoji, newline, bytes that are not UTF-8, 255 bytes."""
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        Image.new("RGB", (6, 4), RED).save(file, "PNG")
    assert np.array_equal(read_image(os.fsdecode(path)), JUST_RED)


@pytest.mark.parametrize("name", [b"new\nline.png", b"latin1 \xe9.png"])
def test_the_error_of_an_odd_name_is_one_line_that_utf_8_can_hold(tmp_path, name):
    path = os.path.join(os.fsencode(tmp_path), name)
    open(path, "wb").close()
    with pytest.raises(DataError) as caught:
        read_image(os.fsdecode(path))
    assert "\n" not in str(caught.value)
    assert str(caught.value).encode("utf-8").endswith(b"empty file")


def test_draft_mode_keeps_the_shorter_side_at_least_as_long_as_asked(tmp_path):
    Image.fromarray(noise(900, 1600)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", Decoding(draft=448)).size == (800, 450)
    assert read_image(tmp_path / "a.jpg", Decoding(draft=451)).size == (1600, 900)


def reference(path, size: int) -> torch.Tensor:
    """Preprocess a file as open_clip itself does."""
    transform = open_clip.image_transform(size, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN,
                                          std=open_clip.OPENAI_DATASET_STD, interpolation="bicubic", resize_mode="shortest")
    with Image.open(path) as image:
        return transform(image)


def ours(path, size: int) -> torch.Tensor:
    preprocessing = Preprocessing((size, size), open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    return preprocessing.transform()(read_image(path))


@pytest.mark.parametrize("size", [32, 224, 336])
@pytest.mark.parametrize(("height", "width"), [(40, 60), (301, 200), (224, 224), (500, 333)])
@pytest.mark.parametrize(("mode", "suffix"), [("RGB", "jpg"), ("RGB", "png"), ("L", "jpg"), ("L", "png")])
def test_preprocessing_equals_open_clip_bit_for_bit(tmp_path, size, height, width, mode, suffix):
    Image.fromarray(noise(height, width)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert torch.equal(ours(tmp_path / f"a.{suffix}", size), reference(tmp_path / f"a.{suffix}", size))


@pytest.mark.parametrize("size", [32, 224])
def test_preprocessing_of_real_photographs_equals_open_clip_bit_for_bit(real_data, size):
    """A hundred images of Caltech101 are compared, some of them gray."""
    files = sorted((real_data / "caltech101_small").rglob("*.jpg"))[::12]
    assert len(files) == 100
    assert all(torch.equal(ours(file, size), reference(file, size)) for file in files)


def test_draft_mode_loses_no_pixel_to_rounding(tmp_path):
    """110 times 56 / 110 is less than 56 in float64, and half of 110 is too."""
    Image.new("RGB", (110, 110)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", Decoding(draft=56)).size == (110, 110)
