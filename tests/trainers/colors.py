"""A data set of noisy images in three colors, and a trainer on it, for the tests of this folder."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dassl.config.setup import setup_config
from dassl.data.dataset import Dataset, Datum
from dassl.data.digests import ImageFiles
from dassl.data.loader import image_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import build_preprocessing
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.build import build_inputs, build_trainer
from trainers.core.inputs import encoder
from trainers.core.trainer import PromptTrainer
from trainers.registry import LEARNERS

NAMES = ("red", "green", "blue")
ROWS = torch.arange(0, 36, 3) + torch.tensor([0, 1, 2]).repeat(4)  # 12 rows of the train split, 4 of each color


def write_colors(root: Path) -> Dataset:
    """Write 48 images of 36 x 40 pixels and return the data set of 36 train and 12 test images."""
    rng, items = np.random.default_rng(0), []
    for index in range(48):
        pixels = rng.integers(0, 120, (40, 36, 3), dtype=np.uint8)
        pixels[:, :, index % 3] += 120
        Image.fromarray(pixels).save(root / f"{index:02d}.png")
        items.append(Datum(f"{index:02d}.png", index % 3))
    return Dataset("Colors", root, tuple(items[:36]), (), tuple(items[36:]), NAMES)


def trainer_of(clip: FrozenCLIP, dataset: Dataset, *pairs: tuple[str, str]) -> PromptTrainer:
    """Return the trainer of a config of few epochs and small batches, with KEY VALUE pairs on top."""
    small = [("OPTIM.LR", "0.02"), ("OPTIM.MAX_EPOCH", "8"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "4"),
             ("DATALOADER.NUM_WORKERS", "0"), ("TRAINER.VPT.PROMPT_DEPTH", "3"), ("TRAINER.MAPLE.PROMPT_DEPTH", "3"),
             ("TRAINER.IVLP.PROMPT_DEPTH_TEXT", "3"), ("TRAINER.IVLP.PROMPT_DEPTH_VISION", "3"),
             ("TRAINER.DUALPROMPT.PROMPT_DEPTH_VISION", "3")]
    cfg = setup_config([], [*small, *pairs], [LEARNERS])
    transform = build_preprocessing(cfg.INPUT, clip.preprocessing).transform()
    kinds = ("features", "pre_projection")
    banks = {kind: {split: torch.cat([encoder(clip, kind)(batch) for batch in image_batches(
        dataset.files(split), transform, batch_size=10)]) for split in ("train", "test")} for kind in kinds}
    return build_trainer(cfg, build_inputs(cfg, clip, dataset, banks, ImageStore(cfg.DATALOADER.MEMORY_MB * 2**20),
                                           ImageFiles(dataset)))
