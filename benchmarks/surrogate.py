"""Real ViT-B/32 image features and a small text tower aligned to them, so that text prompts can be tuned on a CPU.

Read from a folder beside the project (see its README): `clip_vitb32_features/*.npz` and `surrogate/text_tower.safetensors`.
The tower is not CLIP's: accuracies say whether the machinery works and how samplers rank, never what CLIP reaches.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor

from dassl.data.dataset import Dataset, Datum
from dassl.data.store import ImageStore
from dassl.data.transforms import Preprocessing
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.build import build_trainer
from trainers.core.inputs import Inputs, Loading
from trainers.core.trainer import PromptTrainer

DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAMES = ("caltech101", "dtd", "oxford_flowers")
TEMPLATES = {"caltech101": "a photo of a {}.", "dtd": "{} texture.", "oxford_flowers": "a photo of a {}, a type of flower."}


@dataclass(frozen=True)
class RealFeatures:
    """One data set's features, unit norm: the pool is its val split, since features of the full train split are not there."""

    dataset: Dataset
    features: dict[str, Tensor]


def load_text_tower(folder: Path = DATA) -> FrozenCLIP:
    """Return a CLIP of the surrogate text tower and a blank image tower that nothing uses."""
    with torch.random.fork_rng(devices=[]):
        model = open_clip.model.CLIP(
            embed_dim=512, vision_cfg=open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=32, image_size=32),
            text_cfg=open_clip.CLIPTextCfg(width=128, heads=2, layers=2))
    model.load_state_dict(load_file(folder / "surrogate" / "text_tower.safetensors"), strict=False)
    model.logit_scale.data.fill_(np.log(60))
    return FrozenCLIP(model, open_clip.get_tokenizer("ViT-B-32"), Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3),
                      name="surrogate", fingerprint="surrogate")


def load_features(name: str, folder: Path = DATA) -> RealFeatures:
    """Return the pool and the test set of one of `NAMES`."""
    with np.load(folder / "clip_vitb32_features" / f"{name}.npz") as file:
        content = {key: file[key] for key in file.files}
    items = {split: tuple(Datum(str(path), int(label)) for path, label in
                          zip(content[f"{split}_paths"], content[f"{split}_labels"], strict=True)) for split in ("val", "test")}
    dataset = Dataset(name, folder, items["val"], (), items["test"], tuple(map(str, content["classnames"])), TEMPLATES[name])
    features = {role: normalized(torch.from_numpy(content[f"{split}_features"]).float())
                for role, split in (("train", "val"), ("test", "test"))}
    return RealFeatures(dataset, features)


def build_feature_inputs(cfg, clip: FrozenCLIP, data: RealFeatures) -> Inputs:
    """Return what trainers on features alone read; learners that tune images cannot be trained on them."""
    return Inputs(clip, data.dataset, {"features": data.features}, Loading(None, None, 1, 0, cfg.SEED), ImageStore(0))


def build_feature_trainer(cfg, clip: FrozenCLIP, data: RealFeatures) -> PromptTrainer:
    """Return the trainer of a config on features alone."""
    return build_trainer(cfg, build_feature_inputs(cfg, clip, data))
