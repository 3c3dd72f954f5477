"""The classifier that a run has made, for use.

    model = Classifier.load("output/photos")
    model.classnames                               # ("heron", "kingfisher", "magpie")
    model.predict(["a.jpg", Image.open("b.jpg")])  # ["heron", "magpie"]
    model.probabilities(["a.jpg", "b.jpg"])        # float64 [2, 3]; each row sums to 1

`scripts/predict.py` and `scripts/export.py` are made of it.
"""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from yacs.config import CfgNode

from dassl.data.images import pixels_of
from dassl.data.store import ImageStore
from dassl.data.transforms import Preprocessing, Transform, build_preprocessing
from dassl.data.views import readable
from dassl.engine.predict import encoded_parts
from dassl.utils.errors import DataError, TrainingError, UserError, listed
from trainers.core.build import build_model
from trainers.core.inputs import encoder
from trainers.core.job import use_of
from trainers.core.prompted_clip import PromptedCLIP

AT_ONCE = 1024  # rows of probabilities

Picture = str | os.PathLike | Image.Image | Tensor | np.ndarray
Probabilities = np.ndarray  # float64, [C] of an image or [N, C]


@dataclass(frozen=True)
class Reading:
    """How images are read: what they go through, how many at once, and by how many threads."""

    preprocessing: Preprocessing
    batch_size: int
    n_threads: int


@final
class Classifier:
    """A trained model and its class names; nothing of it is trained any more."""

    def __init__(self, model: PromptedCLIP, classnames: Sequence[str], reading: Reading):
        self.model = model
        self.classnames = tuple(classnames)
        self.reading = reading
        self._view: Transform = reading.preprocessing.transform()
        with torch.no_grad():
            self.prompts = model.learner()
            self.class_features = model.classifier(self.prompts)

    @staticmethod
    def load(run: str | Path, keys: Mapping[str, object] = MappingProxyType({})) -> "Classifier":
        """Return the classifier of a run, by its output folder (the last finished round) or one of its prompts files.

        `keys` win over the config of its record: {"MODEL.BACKBONE.PRETRAINED": "weights.safetensors"} where the backbone's
        weights lie elsewhere, {"USE_CUDA": False}, or {"ACTIVE.PLUGINS": ["mine.py"]} for a learner of a plug-in, which is
        imported only then. The run's images are not read. torch computes as the run did from then on, in as many threads.
        Raises UserError, in one line, for what is no run or has no finished round, and for weights that are not at hand.
        """
        use = use_of(run, [(key, str(value)) for key, value in keys.items()])
        return build_classifier(use.cfg, use.model, use.record.dataset["classnames"])

    def predict(self, images: Picture | Iterable[Picture]) -> list[str]:
        """Return the class name of each image, see `probabilities`; of equal ones the first class."""
        return [self.classnames[label] for label in self.probabilities(images).argmax(1)]

    def probabilities(self, images: Picture | Iterable[Picture]) -> Probabilities:
        """Return the probabilities [N, C] of images: paths, Pillow images of any mode and size, or tensors, also mixed.

        A path or image alone is a list of one. Tensors are [3, height, width] of the input's size, or [N, ...] of them: uint8,
        or floats in [0, 1]; arrays of NumPy too. Raises one DataError for all images that cannot be had.
        """
        rows = list(itertools.chain.from_iterable(self.stream(_listed(images))))
        if errors := [str(row) for row in rows if isinstance(row, DataError)]:
            raise DataError(errors[0] if len(errors) == 1 else
                            listed(f"{len(errors)} of {len(rows)} images cannot be had", errors))
        return np.stack(rows) if rows else np.zeros((0, len(self.classnames)))

    def stream(self, images: Iterable[Picture]) -> Iterator[list[Probabilities | DataError]]:
        """Yield, batch after batch, the probabilities [C] of each image, or why it cannot be had."""
        batches, again = itertools.tee(readable(enumerate(images), self._seen, batch_size=self.reading.batch_size,
                                                n_threads=self.reading.n_threads))
        seen = ([view for view in views if isinstance(view, Tensor)] for views in batches)
        parts = encoded_parts((torch.stack(views) for views in seen if views), self._logits_of_images)
        rows = itertools.chain.from_iterable(map(self._rows, parts))
        for views in again:
            yield [next(rows) if isinstance(view, Tensor) else view for view in views]

    def of_inputs(self, inputs: Iterable[Tensor]) -> Iterator[Probabilities]:
        """Yield the probabilities [C] of each row of what the learner reads, such as the features of a cache."""
        for part in inputs:
            yield from self._rows(self._logits(part).cpu().float())

    @torch.no_grad()
    def _logits(self, inputs: Tensor) -> Tensor:
        return self.model.logits(self.model.image_features(inputs, self.prompts), self.class_features)

    @torch.no_grad()
    def _logits_of_images(self, images: Tensor) -> Tensor:
        """Return logits [B, C] of images [B, 3, height, width] of values in [0, 1]."""
        read = encoder(self.model.clip, self.model.learner.reads)
        return self._logits(read(self._view.standardize(images.clone())))

    def _rows(self, logits: Tensor) -> Iterator[Probabilities]:
        if not logits.isfinite().all():
            raise TrainingError(f"the logits of {int((~logits.isfinite()).any(1).sum())} images hold NaN or Inf")
        for part in logits.split(AT_ONCE):
            yield from part.double().softmax(1).numpy()

    def _seen(self, numbered: tuple[int, Picture]) -> Tensor:
        """Return an image as the tower's input is, float32 [3, height, width] in [0, 1]; `numbered` has its place."""
        place, image = numbered
        if isinstance(image, (Tensor, np.ndarray)):
            return self._checked(torch.as_tensor(image), place)
        if isinstance(image, Image.Image):
            pixels = self._view.pixels(self._decoded(image, place))
        else:
            pixels = ImageStore(0).pixels(image, self._view)
        return _unit(torch.from_numpy(pixels.copy()).permute(2, 0, 1))

    def _decoded(self, image: Image.Image, place: int) -> Image.Image:
        """Return an image that the caller has opened as 8-bit RGB; no draft mode, which would change the caller's image."""
        try:
            return pixels_of(image, replace(self._view.decoding, draft=0))
        except MemoryError:
            raise
        except Exception as error:  # whatever its plug-in trips over when it loads the pixels
            raise DataError(f"image {place} cannot be had: {error}") from error

    def _checked(self, image: Tensor, place: int) -> Tensor:
        """Return an image that came as a tensor; DataError unless it is what the tower takes."""
        height, width = self.reading.preprocessing.size
        if image.shape != (3, height, width):
            raise DataError(f"image {place} is a tensor of shape {tuple(image.shape)}, but must be (3, {height}, {width}); a "
                            "Pillow image may have any size")
        if image.dtype == torch.uint8:
            return _unit(image.cpu())
        if not image.is_floating_point() or not ((image >= 0) & (image <= 1)).all():
            raise DataError(f"image {place} is a tensor of {image.dtype} from {image.min():g} to {image.max():g}, but must be "
                            "uint8, or floats in [0, 1] that are not normalized")
        return image.detach().cpu().float()


def build_classifier(cfg: CfgNode, path: Path, classnames: Sequence[str]) -> Classifier:
    """Return the classifier in a file of prompts, of a settled config."""
    model = build_model(cfg, path, classnames)
    preprocessing = build_preprocessing(cfg.INPUT, model.clip.preprocessing)
    reading = Reading(preprocessing, cfg.DATALOADER.TEST.BATCH_SIZE, cfg.DATALOADER.NUM_WORKERS)
    return Classifier(model, classnames, reading)


def _unit(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def _listed(images: Any) -> Iterable[Picture]:
    """Return images one by one; raises UserError for what is neither an image nor several."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, (Tensor, np.ndarray)):
        return [images] if images.ndim == 3 else list(images)
    if not isinstance(images, Iterable):
        raise UserError(f"images are paths, Pillow images or tensors, not {type(images).__name__}")
    images = list(images)
    if wrong := [image for image in images if not isinstance(image, (str, os.PathLike, Image.Image, Tensor, np.ndarray))]:
        raise UserError(f"images are paths, Pillow images or tensors, not {type(wrong[0]).__name__}")
    return images
