"""A small data set of noisy patterns and a CLIP of random weights, in memory: what the contract kit trains learners on."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dassl.data.dataset import Dataset, Datum
from dassl.data.transforms import Preprocessing
from trainers.clip.frozen_clip import FrozenCLIP, image_tower
from trainers.clip.library import open_clip
from trainers.core.inputs import Reads, Step, by_places, encoder

WORDS = ("cat", "dog", "forest", "golden retriever", "river")
PER_CLASS = 6  # images of each class in the train split; the test split has half as many


def random_clip(dtype: torch.dtype = torch.float32, *, quick_gelu: bool = False) -> FrozenCLIP:
    """Return a CLIP of random weights: 32-pixel images, 3 blocks, width 32 in both towers, the full vocabulary.

    With `quick_gelu` its activation is that of OpenAI's backbones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.model.CLIP(
            embed_dim=16,
            vision_cfg=open_clip.CLIPVisionCfg(layers=3, width=32, head_width=8, patch_size=8, image_size=32),
            text_cfg=open_clip.CLIPTextCfg(context_length=77, vocab_size=49408, width=24, heads=3, layers=3),
            quick_gelu=quick_gelu)
        for parameter in model.parameters():  # spread the features, which open_clip's initialization leaves nearly alike
            if parameter.dim() > 1:
                parameter.data.mul_(3.0)
    preprocessing = Preprocessing((32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return FrozenCLIP(model.to(dtype), open_clip.get_tokenizer("ViT-B-32"), preprocessing, name="random", fingerprint="random")


@functools.cache
def tiny_clip() -> FrozenCLIP:
    """Return the random CLIP that all checks share."""
    return random_clip()


@dataclass(frozen=True)
class TinyInputs:
    """What a trainer reads, in memory, by split: `tokens` of images [N, L, width], frozen features, rows before projection."""

    clip: FrozenCLIP
    dataset: Dataset
    tokens: dict[str, Tensor]
    features: dict[str, Tensor]
    before_projection: dict[str, Tensor]

    def bank(self, reads: Reads) -> dict[str, Tensor]:
        return self.before_projection if reads == "pre_projection" else self.features

    def of_split(self, split: str, *, reads: Reads) -> Iterator[Tensor]:
        yield (self.tokens if reads == "tokens" else self.bank(reads))[split]

    def of_steps(self, rows: Tensor, steps: Iterable[Step], round: int, *, reads: Reads) -> Iterator[Tensor]:
        kept = (self.tokens if reads == "tokens" else self.bank(reads))["train"]
        yield from by_places(lambda own: kept[rows[own]], steps)


def make_inputs(n_classes: int = 4, *, alike: bool = False, clip: FrozenCLIP | None = None) -> TinyInputs:
    """Return noisy images of `n_classes` patterns, 6 of each to train, 3 to test and 3 for val; `alike` makes all one image.

    `clip` is one of 32-pixel images, the tiny one by default. Without a vision transformer it has no tokens.
    """
    clip, rng = clip or tiny_clip(), np.random.default_rng(0)
    patterns = rng.normal(size=(n_classes, 3, 32, 32))
    sizes = {"train": PER_CLASS, "test": PER_CLASS // 2, "val": PER_CLASS // 2}
    labels = {split: np.arange(size * n_classes) % n_classes for split, size in sizes.items()}
    items = {split: tuple(Datum(f"{split}/{row}.png", int(label)) for row, label in enumerate(own))
             for split, own in labels.items()}
    images = {split: torch.from_numpy(patterns[own] + rng.normal(size=(len(own), 3, 32, 32))).float()
              for split, own in labels.items()}
    if alike:
        images = {split: own[:1].expand_as(own) for split, own in images.items()}
    dataset = Dataset("Patterns", Path(), **items, classnames=WORDS[:n_classes])
    tower = image_tower(clip.model.visual)
    readable: list[Reads] = [] if tower is None else ["tokens", *(["pre_projection"] if tower.projection is not None else [])]
    with torch.no_grad():
        made = {reads: {split: encoder(clip, reads)(own) for split, own in images.items()} for reads in ("features", *readable)}
    return TinyInputs(clip, dataset, made.get("tokens", {}), made["features"], made.get("pre_projection", {}))
