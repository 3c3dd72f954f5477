"""Measure the extraction of image features, one backbone of each family, against the loop that a user of open_clip writes.

    OMP_NUM_THREADS=1 python -m benchmarks.extraction PHOTOS > benchmarks/extraction.md

PHOTOS is a folder of images. Weights are random, which takes the same time. Both sides read the same files in batches of
BATCH, one thread, on the CPU; they take turns, so that other load on the machine meets both alike. Each figure is the mean
of TURNS turns.
"""

import itertools
import logging
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dassl.data.loader import image_batches
from dassl.engine.predict import in_batches, predict_some
from trainers.clip.backbones import _native_preprocessing
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.clip.library import open_clip
from trainers.core.inputs import encoder

BATCH = 16
TURNS = 2
IMAGES = 200
READING = "none: decode and view alone"
MODELS = {"ViT-B-32": "CLIP", "coca_ViT-B-32": "CoCa", "RN50": "ResNet", "convnext_tiny": "ConvNeXt",
          "ViT-B-16-SigLIP2": "SigLIP 2", "PE-Core-T-16-384": "Perception Encoder", "EVA02-B-16": "EVA-CLIP",
          "MobileCLIP2-S0": "MobileCLIP 2", "ViTamin-S": "ViTamin"}
Encode = Callable[[Tensor], Tensor]
HEAD = """# Extraction of image features against open_clip's own loop

Written by `OMP_NUM_THREADS=1 python -m benchmarks.extraction PHOTOS` on Python {python}, torch {torch}, open_clip {open_clip},
{machine}.
From files to unit-norm features: *here* is what a run does for its feature cache (decode, view, encode; batches of {batch}),
*open_clip* is its transform in a `DataLoader` and `encode_image` under `inference_mode`. CPU seconds of one thread for
{photos}, the mean of {turns} turns; *ratio* is here / open_clip of the means, and its range over the turns. *difference*: the
largest of a feature (CoCa's is normalized twice by open_clip's default).

"""


FOOT = """
Both sides call the same `encode_image` on the same batches, so that a tower's own time cancels: ratios around
1 are the noise of the machine. What differs is reading, in the first row: little beside a tower.

All of it took {minutes:.0f} minutes.
"""


class Files(Dataset):
    """Images of files through open_clip's transform."""

    def __init__(self, paths: list[Path], transform: Callable):
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        with Image.open(self.paths[row]) as image:
            return self.transform(image)


def here(clip: FrozenCLIP, paths: list[Path], encode: Encode | None = None) -> Tensor:
    """Return unit-norm features, or what `encode` makes of images, as a run extracts them."""
    rows = in_batches(range(len(paths)), BATCH)
    images = image_batches(paths, clip.preprocessing.transform(), batch_size=[len(own) for own in rows])
    return torch.cat(list(predict_some(images, encode or encoder(clip, "features"), rows, batch_size=BATCH, n_rows=len(paths),
                                       description="features")))


@torch.inference_mode()
def theirs(clip: FrozenCLIP, paths: list[Path], encode: Encode | None = None) -> Tensor:
    """Return the same by the loop that open_clip's README leads to."""
    model = clip.model
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    loader = DataLoader(Files(paths, transform), batch_size=BATCH)
    encode = encode or (lambda images: F.normalize(model.encode_image(images), dim=-1))
    return torch.cat([encode(images) for images in loader])


def built(name: str) -> FrozenCLIP:
    """Return a backbone with random weights."""
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    return FrozenCLIP(model, open_clip.SimpleTokenizer(), _native_preprocessing(model), name=name, fingerprint="")


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    found = run()
    return time.process_time() - start, found


def measured(name: str, paths: list[Path], encode: Encode | None = None) -> list[str]:
    """Return the row of a model, or that of reading its images alone."""
    clip, seconds = built(name), {here: [], theirs: []}
    for run in (here, theirs):
        run(clip, paths[:8], encode)  # warm
    for turn in range(TURNS):
        found = {}
        for run in (here, theirs) if turn % 2 else (theirs, here):
            spent, found[run] = timed(lambda run=run: run(clip, paths, encode))
            seconds[run].append(spent)
    ratios = [one / other for one, other in zip(seconds[here], seconds[theirs], strict=True)]
    means = [statistics.mean(seconds[run]) for run in (here, theirs)]
    return [READING if encode else MODELS[name], name, *(f"{mean:.2f}" for mean in means),
            f"{means[0] / means[1]:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            f"{(found[here] - found[theirs]).abs().max():.0e}"]


def images_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def main() -> None:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    paths = list(itertools.islice(images_of(folder), IMAGES))
    start = time.perf_counter()
    rows = [measured("ViT-B-32", paths, lambda images: images.mean((2, 3))), *(measured(name, paths) for name in MODELS)]
    print(HEAD.format(python=platform.python_version(), torch=torch.__version__, open_clip=open_clip.__version__,
                      machine=platform.machine(), batch=BATCH, turns=TURNS,
                      photos=f"the first {len(paths)} images of {folder.name}")
          + tabulate(rows, ["family", "backbone", "here", "open_clip", "ratio", "difference"], tablefmt="github",
                     disable_numparse=True)
          + "\n" + FOOT.format(minutes=(time.perf_counter() - start) / 60), end="")


if __name__ == "__main__":
    main()
