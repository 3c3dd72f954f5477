"""Preprocessing and augmentation of an `INPUT` node."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from dassl.config.setup import setup_config
from dassl.data.images import Decoding
from dassl.data.transforms import Preprocessing, build_augmentation, build_preprocessing, check_transforms
from dassl.utils.errors import ConfigError


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("given", "native", "used"), [
    ("", "bilinear", "bilinear"), ("", "bicubic", "bicubic"), ("bicubic", "bilinear", "bicubic"),
    ("nearest", "bicubic", "nearest")])
def test_images_are_resized_as_the_backbone_was_trained_unless_the_config_says_otherwise(given, native, used):
    """INPUT.INTERPOLATION of a published YAML wins. Without it, fixed and random views use the backbone's own."""
    cfg = setup_config([], [("INPUT.INTERPOLATION", given)] * bool(given) + [
        ("INPUT.TRANSFORMS", "['random_resized_crop']")], []).INPUT
    preprocessing = build_preprocessing(cfg, Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, native))
    assert preprocessing.interpolation == used and preprocessing.transform().name == f"{used} (32, 32)"
    assert build_augmentation(cfg, preprocessing).view.transforms[0].interpolation == InterpolationMode(used)


def test_a_bilinear_backbone_gets_open_clips_own_views():
    """The views are equal bit for bit."""
    own = Preprocessing((32, 32), (0.0,) * 3, (1.0,) * 3, "bilinear")
    reference = open_clip.image_transform(32, is_train=False, mean=own.mean, std=own.std, interpolation="bilinear",
                                          resize_mode="shortest")
    image = noise(50, 70)
    assert torch.equal(build_preprocessing(setup_config([], [], []).INPUT, own).transform()(image), reference(image))


@pytest.mark.parametrize(("size", "interpolation", "resize", "fill"), [
    (size, interpolation, resize, fill) for size in [(32, 32), (24, 40)] for interpolation in ("bicubic", "bilinear", "random")
    for resize, fill in [("shortest", 0), ("squash", 0), ("longest", 0), ("longest", 114)]
    if (size, interpolation, resize) != ((24, 40), "bilinear", "shortest")])
def test_images_get_their_size_as_open_clip_s_do(size, interpolation, resize, fill):
    """Bit for bit: landscape, portrait, square, tiny, of the exact size, of one side. A "random" interpolation is that of
    open_clip's training alone; of a shape that is no square, "shortest" is always bicubic there."""
    cfg = open_clip.transform.PreprocessCfg(size=size, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize_mode=resize,
                                            interpolation=interpolation, fill_color=fill)
    reference = open_clip.transform.image_transform_v2(cfg, is_train=False)
    own = Preprocessing(size, cfg.mean, cfg.std, interpolation.replace("random", "bicubic"), resize=resize, fill=fill)
    for height, width in [(50, 70), (71, 40), (64, 64), (5, 7), (3, 1), size, (size[0], 90), (90, size[1]), (333, 500)]:
        image = noise(height, width)
        assert torch.equal(own.transform()(image), reference(image)), (height, width)


@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
def test_an_image_as_thin_as_any_that_is_read_has_a_view(resize):
    """open_clip's own code fails if a side rounds to nothing."""
    own = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, resize=resize)
    assert own.transform()(noise(1, 900)).shape == own.transform()(noise(900, 1)).shape == (3, 32, 32)


def test_a_side_that_rounds_to_nothing_is_one_pixel():
    """One row in the middle is left of a white line in a black frame."""
    view = Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, resize="longest").transform()
    pixels = view.pixels(Image.new("RGB", (900, 1), "white"))
    assert (pixels[15] == 255).all() and pixels.sum() == 32 * 3 * 255


@pytest.mark.parametrize(("key", "part"), [("PIXEL_MEAN", "mean"), ("PIXEL_STD", "std")])
def test_mean_and_deviation_are_the_backbone_s_unless_the_config_says_otherwise(key, part):
    """Each is set on its own, for fixed and random views."""
    native = Preprocessing((32, 32), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for given in ((), (0.7, 0.8, 0.9)):
        pairs = [(f"INPUT.{key}", str(given))] * bool(given) + [("INPUT.TRANSFORMS", "['random_flip']")]
        cfg = setup_config([], pairs, []).INPUT
        expected = {"mean": native.mean, "std": native.std} | ({part: given} if given else {})
        found = build_preprocessing(cfg, native)
        for own in (found, found.transform(), build_augmentation(cfg, found)):
            assert {"mean": own.mean, "std": own.std} == expected


@pytest.mark.parametrize(("given", "native", "used"), [
    ("", "squash", "squash"), ("", "longest", "longest"), ("shortest", "squash", "shortest"),
    ("longest", "shortest", "longest")])
def test_the_way_to_resize_is_the_backbone_s_unless_the_config_says_otherwise(given, native, used):
    """INPUT.RESIZE applies only to the fixed view: Dassl's augmentations have their own crops."""
    cfg = setup_config([], [("INPUT.RESIZE", given)] * bool(given) + [("INPUT.TRANSFORMS", "['random_flip']")], []).INPUT
    preprocessing = build_preprocessing(cfg, Preprocessing((32, 32), (0.5,) * 3, (0.25,) * 3, resize=native, fill=9))
    assert (preprocessing.resize, preprocessing.fill) == (used, 9)
    steps = build_augmentation(cfg, preprocessing).view.transforms
    assert repr(steps[0]) == repr(transforms.Resize((32, 32), InterpolationMode.BICUBIC))


def test_no_two_ways_to_resize_are_taken_for_one_in_memory():
    """The view's name tells them apart. The name for "shortest" is as before."""
    sizes = [(32, 32), (24, 40)]
    ways = [("shortest", 0), ("squash", 0), ("longest", 0), ("longest", 9)]
    names = {Preprocessing(size, (0.5,) * 3, (0.25,) * 3, resize=resize, fill=fill).transform().name
             for size in sizes for resize, fill in ways}
    assert len(names) == len(sizes) * len(ways) and "bicubic (32, 32)" in names


@pytest.mark.parametrize(("pairs", "draft"), [([], 0), ([("INPUT.JPEG_DRAFT", "true")], 96)])
def test_a_jpeg_draft_keeps_twice_the_input_size(pairs, draft):
    """The resize has something to smooth; without the key, drafts are off."""
    own = Preprocessing((32, 48), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert build_preprocessing(setup_config([], pairs, []).INPUT, own).decoding.draft == draft


@pytest.mark.parametrize(("key", "value"), [
    ("TRANSFORMS", "[[a]]"), ("TRANSFORMS", "[{}]"), ("TRANSFORMS", "[3]"), ("TRANSFORMS", "[random_flip, None]"),
    ("RRCROP_SCALE", "[]"), ("RRCROP_SCALE", "[0.5]"), ("RRCROP_SCALE", "[5, 9]"), ("RRCROP_SCALE", "[0, 1]"),
    ("RRCROP_SCALE", "[0.9, 0.1]"), ("RRCROP_SCALE", "[0.1, 0.5, 1]"), ("RRCROP_SCALE", "[a, b]"),
    ("RRCROP_SCALE", "[true, 1]"),
    ("SIZE", "[224]"), ("SIZE", "[0, 0]"), ("SIZE", "[-1, 4]"), ("SIZE", "[2.5, 2.5]"), ("SIZE", "[true, true]"),
    ("PIXEL_MEAN", "[1]"), ("PIXEL_MEAN", "[a, b, c]"), ("PIXEL_MEAN", "[123.7, 116.3, 103.5]"),
    ("PIXEL_STD", "[0, 1, 1]"), ("PIXEL_STD", "[58.4, 57.1, 57.4]"), ("PIXEL_STD", "[[1], 1, 1]")])
def test_lists_of_another_length_type_or_range_are_refused(key, value):
    """Before anything is loaded (row 14 of the faults table)."""
    with pytest.raises(ConfigError, match=f"^INPUT.{key}"):
        check_transforms(setup_config([], [(f"INPUT.{key}", value)], ()).INPUT)


@pytest.mark.parametrize(("key", "value"), [
    ("TRANSFORMS", "[random_flip, normalize]"), ("RRCROP_SCALE", "[0.08, 1.0]"), ("RRCROP_SCALE", "[1, 1]"),
    ("SIZE", "(224, 224)"),
    ("PIXEL_MEAN", "[0, 0, 0]"), ("PIXEL_STD", "[1, 1, 1]")])
def test_lists_that_can_be_used_pass(key, value):
    """The published values, and the ends of each range."""
    check_transforms(setup_config([], [(f"INPUT.{key}", value)], ()).INPUT)


SIZE, MODE = (32, 48), InterpolationMode.BICUBIC  # not torchvision's default
CROP = [transforms.Resize(SIZE, MODE), transforms.RandomCrop(SIZE, padding=3)]
RESIZE = [transforms.Resize(SIZE, MODE)]


@pytest.mark.parametrize("names", [[], ["normalize"]])
def test_without_a_random_step_there_is_no_augmentation(names):
    """The fixed view is taken, which is kept in memory."""
    cfg = setup_config([], [("INPUT.TRANSFORMS", repr(names))], []).INPUT
    assert build_augmentation(cfg, Preprocessing(SIZE, (0.5,) * 3, (0.25,) * 3)) is None


@pytest.mark.parametrize(("names", "steps"), [
    (["random_resized_crop", "normalize"], [transforms.RandomResizedCrop(SIZE, scale=(0.2, 0.9), interpolation=MODE)]),
    (["random_crop", "random_flip"], [*CROP, transforms.RandomHorizontalFlip()]),
    (["normalize", "random_flip"], [*RESIZE, transforms.RandomHorizontalFlip(0.5)]),
    (["colorjitter"], [*RESIZE, transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)]),
    (["randomgrayscale"], [*RESIZE, transforms.RandomGrayscale(0.2)])])
def test_augmentations_are_dassl_s_with_the_config_s_numbers(names, steps):
    """Steps, sizes, strengths and interpolation, and the decoding of the fixed view."""
    own = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3), "bicubic", Decoding(exif_rotation=False, draft=96))
    pairs = [("INPUT.TRANSFORMS", repr(names)), ("INPUT.RRCROP_SCALE", "[0.2, 0.9]"), ("INPUT.CROP_PADDING", "3")]
    found = build_augmentation(setup_config([], pairs, []).INPUT, own)
    assert repr(found.view) == repr(transforms.Compose(steps))
    assert (found.mean, found.std, found.decoding, found.name) == (own.mean, own.std, own.decoding, "")
