"""Preprocessing: open_clip's own for pool and test images, Dassl's named augmentations for training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode, functional
from yacs.config import CfgNode

from dassl.data.images import Decoding
from dassl.utils.errors import ConfigError, did_you_mean

EXACT = Decoding()
Resize = Literal["shortest", "squash", "longest"]


@final
@dataclass(frozen=True)
class Transform:
    """From a decoded image to the tower's input, in two steps, so that the first one's 8-bit result can be kept or sent.

    `view` maps an RGB image to an RGB image of the input size, `normalize` maps a whole batch of them to floats. `name`
    identifies a deterministic view; it is empty if the view is random.
    """

    view: Callable[[Image.Image], Image.Image]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoding: Decoding = EXACT
    name: str = ""

    def pixels(self, image: Image.Image) -> np.ndarray:
        """Return the view of an image, uint8 [height, width, 3]."""
        return np.asarray(self.view(image))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Return uint8 [B, height, width, 3] as float32 [B, 3, height, width], bit for bit as ToTensor and Normalize do."""
        return self.standardize(pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255))

    def normalize_on(self, pixels: Tensor, device: torch.device) -> Tensor:
        """Return what `normalize` does, computed on another device; the 8-bit views are sent there without waiting for it."""
        return self.normalize(pixels if device.type == "cpu" else pixels.pin_memory().to(device, non_blocking=True))

    def standardize(self, images: Tensor) -> Tensor:
        """Return images [B, 3, height, width] of values in [0, 1] as the tower takes them; what is given is written over."""
        mean, std = (torch.tensor(values, dtype=images.dtype).to(images.device, non_blocking=True)[:, None, None]
                     for values in (self.mean, self.std))
        return images.sub_(mean).div_(std)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return one image as the tower takes it, float32 [3, height, width]."""
        return self.normalize(torch.from_numpy(self.pixels(image).copy())[None])[0]


@dataclass(frozen=True)
class Preprocessing:
    """What every image goes through: `size` (height, width) in pixels, `mean` and `std` a channel of values in [0, 1].

    `resize` is how an image gets that size: "shortest" keeps its shape, covers the size and cuts the rest off around the
    center; "squash" stretches it; "longest" keeps its shape, fits it in and fills the rest with a gray of `fill`, 0 to 255.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    decoding: Decoding = EXACT
    resize: Resize = "shortest"
    fill: int = 0

    @property
    def mode(self) -> InterpolationMode:
        return InterpolationMode(self.interpolation)

    @property
    def shape(self) -> dict[str, str | int]:
        """What tells this way to resize from all that was before there was another: nothing for "shortest" of a square."""
        if self.resize == "shortest":
            return {} if self.size[0] == self.size[1] else {"resize": "shortest"}
        return {"resize": self.resize} | ({"fill": self.fill} if self.resize == "longest" else {})

    def transform(self) -> Transform:
        """Return: resize, crop or fill, scale to [0, 1], normalize. Equal to open_clip's."""
        name = " ".join(map(str, (self.interpolation, self.size, *self.shape.values())))
        return Transform(transforms.Compose(self._steps()), self.mean, self.std, self.decoding, name)

    def _steps(self) -> list[Callable[[Image.Image], Image.Image]]:
        if self.resize == "squash":
            return [transforms.Resize(self.size, self.mode)]
        if self.resize == "longest":
            return [partial(_scaled, size=self.size, mode=self.mode, by=max), partial(_framed, size=self.size, fill=self.fill)]
        cover = (transforms.Resize(self.size[0], self.mode) if self.size[0] == self.size[1] else
                 partial(_scaled, size=self.size, mode=self.mode, by=min))
        return [cover, transforms.CenterCrop(self.size)]


def _scaled(image: Image.Image, *, size: tuple[int, int], mode: InterpolationMode, by: Callable) -> Image.Image:
    """Return an image of the same shape that fits into a size (`by` is `max`) or covers it (`min`); no side is below 1."""
    ratio = by(image.height / size[0], image.width / size[1])
    return functional.resize(image, [max(1, round(side / ratio)) for side in (image.height, image.width)], mode)


def _framed(image: Image.Image, *, size: tuple[int, int], fill: int) -> Image.Image:
    """Return an image, no larger than a size, in the middle of one of that size."""
    frame = Image.new("RGB", size[::-1], (fill,) * 3)
    frame.paste(image, ((size[1] - image.width) // 2, (size[0] - image.height) // 2))
    return frame


def build_augmentation(cfg: CfgNode, preprocessing: Preprocessing) -> Transform | None:
    """Return the training transform of an `INPUT` node, or None if it has no random step.

    The steps are Dassl's, whatever `preprocessing.resize`: a crop is cut or resized to the input size, and without a cropping
    step the image is first squashed to it. open_clip's own training transform does not follow its resize mode either.
    """
    random_steps = [name for name in cfg.TRANSFORMS if name != "normalize"]
    if not random_steps:
        return None
    size, mode = preprocessing.size, preprocessing.mode
    steps = [] if {"random_resized_crop", "random_crop"} & set(random_steps) else [transforms.Resize(size, mode)]
    for name in random_steps:
        steps += _AUGMENTATIONS[name](cfg, size, mode)
    return Transform(transforms.Compose(steps), preprocessing.mean, preprocessing.std, preprocessing.decoding)


def check_transforms(cfg: CfgNode) -> None:
    """Raise ConfigError for an `INPUT` node that cannot be built."""
    known = [*_AUGMENTATIONS, "normalize"]
    for name in cfg.TRANSFORMS:
        if name not in known:
            raise ConfigError(f"INPUT.TRANSFORMS: unknown {name!r}; {did_you_mean(str(name), known)}")
    if cfg.VIEWS and set(cfg.TRANSFORMS) <= {"normalize"}:
        raise ConfigError(f"INPUT.VIEWS is {cfg.VIEWS}, but INPUT.TRANSFORMS has no random step, so that an image has one; "
                          "set it to 0, or name a step such as random_resized_crop")
    if len(cfg.SIZE) not in (0, 2) or not all(type(side) is int and side > 0 for side in cfg.SIZE):
        raise ConfigError(f"INPUT.SIZE is {cfg.SIZE}, but must be (height, width) in pixels")
    for key in ("PIXEL_MEAN", "PIXEL_STD"):
        if len(cfg[key]) not in (0, 3) or not _in_unit_range(cfg[key]):
            raise ConfigError(f"INPUT.{key} is {cfg[key]}, but must be three numbers from 0 to 1, one a channel")
    if 0 in cfg.PIXEL_STD:
        raise ConfigError(f"INPUT.PIXEL_STD is {cfg.PIXEL_STD}, but must be above 0")
    if len(scale := cfg.RRCROP_SCALE) != 2 or not _in_unit_range(scale) or not 0 < scale[0] <= scale[1]:
        raise ConfigError(f"INPUT.RRCROP_SCALE is {scale}, but must be the smallest and the largest share of an image's area, "
                          "such as (0.08, 1)")


def _in_unit_range(values: Sequence) -> bool:
    return all(type(value) in (int, float) and 0 <= value <= 1 for value in values)


def _random_crop(cfg: CfgNode, size: Sequence[int], mode: InterpolationMode) -> list:
    return [transforms.Resize(size, mode), transforms.RandomCrop(size, padding=cfg.CROP_PADDING)]


_AUGMENTATIONS: dict[str, Callable[[CfgNode, Sequence[int], InterpolationMode], list]] = {
    "random_resized_crop": lambda cfg, size, mode: [
        transforms.RandomResizedCrop(size, scale=tuple(cfg.RRCROP_SCALE), interpolation=mode)],
    "random_crop": _random_crop,
    "random_flip": lambda cfg, size, mode: [transforms.RandomHorizontalFlip()],
    "colorjitter": lambda cfg, size, mode: [transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)],
    "randomgrayscale": lambda cfg, size, mode: [transforms.RandomGrayscale(p=0.2)],
}


def build_preprocessing(cfg: CfgNode, native: Preprocessing) -> Preprocessing:
    """Return the preprocessing of an `INPUT` node, where an empty value stands for the backbone's own.

    Raises ConfigError if the size is not the one that the image tower takes.
    """
    size = tuple(cfg.SIZE) or native.size
    if size != native.size:
        raise ConfigError(f"INPUT.SIZE is {size}, but the backbone takes {native.size}; leave the key out")
    mean, std = (tuple(cfg.PIXEL_MEAN) or native.mean), (tuple(cfg.PIXEL_STD) or native.std)
    draft = 2 * max(size) if cfg.JPEG_DRAFT else 0  # twice the input size leaves the resize something to smooth
    interpolation = cfg.INTERPOLATION or native.interpolation
    decoding = Decoding(cfg.EXIF_ROTATION, draft)
    return Preprocessing(size, mean, std, interpolation, decoding, cfg.RESIZE or native.resize, native.fill)
