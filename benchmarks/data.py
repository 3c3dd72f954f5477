"""Measure reading images: decoding, the checker, the store, draft mode, another decoder, and their share of an extraction.

    python -m benchmarks.data PHOTOS > benchmarks/data.md

PHOTOS is a folder of JPEG files, such as 101_ObjectCategories. Each figure is the median of REPEATS passes; in each
repeat all candidates take their turn, so that other load on the machine meets all of them alike.
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import PIL
import torch
import torchvision
from PIL import Image
from tabulate import tabulate

from benchmarks.extraction import BATCH
from benchmarks.trainers import build_clip
from dassl.data.images import Decoding, read_image
from dassl.data.loader import image_batches
from dassl.data.scan import scan
from dassl.data.store import ImageStore
from dassl.data.transforms import Preprocessing, Transform
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.inputs import encoder

REPEATS = 5
N_CORES = 2
N_PHOTOS = 60  # large ones, made from noise smoothed to look like a photograph to the decoder
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD

CONCLUSIONS = """## What follows from it

- Images are kept in memory as 8 bits at the size of the tower (`DATALOADER.MEMORY_MB`): from the second pass on, only the
  normalization is left.
- Draft mode (`INPUT.JPEG_DRAFT`) pays off on photographs whose shorter side is at least four times the input size, and
  does nothing on others. It changes pixels, so it is off by default.
- torchvision's decoder gives the same pixels and is faster as long as its channels stay apart. Once its pixels lie as the
  resize takes them, nothing is left at 640 x 480, and a fifteenth at 2048 x 1536. So there is one decoder, Pillow's.
- Extraction on a CPU is mostly the tower. With photographs of 640 x 480, reading takes a fourteenth of the time. With larger
  ones it takes two fifths in one process. Two workers gain nothing with the former and a fifth with the latter, since the tower
  keeps both cores busy."""

EXACT = Decoding()
Pass = Callable[[], object]


def medians(passes: dict[str, Pass], n_images: int) -> dict[str, list[float]]:
    """Return images per second of each pass, [median, lowest, highest] over the repeats."""
    rates: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(REPEATS):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            rates[name].append(n_images / (time.perf_counter() - start))
    return {name: [statistics.median(values), min(values), max(values)] for name, values in rates.items()}


def preprocessing(side: int, decoding: Decoding = EXACT) -> Transform:
    return Preprocessing((side, side), MEAN, STD, decoding=decoding).transform()


def consume(paths: list[Path], transform: Transform, n_workers: int, store: ImageStore | None = None) -> None:
    for _ in image_batches(paths, transform, batch_size=100, n_workers=n_workers, store=store):
        pass


def loading(paths: list[Path], side: int) -> dict[str, Pass]:
    """Ways to read all images as batches of the input size."""
    transform, warm = preprocessing(side), ImageStore(2**31)
    consume(paths, transform, N_CORES, warm)
    plain = open_clip.image_transform(side, is_train=False, mean=MEAN, std=STD, interpolation="bicubic", resize_mode="shortest")
    return {
        "open_clip's transform, one process": lambda: [plain(Image.open(path)) for path in paths],
        "one process": lambda: consume(paths, transform, 0),
        "two worker processes": lambda: consume(paths, transform, N_CORES),
        "first pass into the store, two threads": lambda: consume(paths, transform, N_CORES, ImageStore(2**31)),
        "later passes from the store": lambda: consume(paths, transform, N_CORES, warm),
    }


def torchvision_decoder(path: Path) -> torch.Tensor:
    return torchvision.io.decode_image(str(path), torchvision.io.ImageReadMode.RGB)


def interleaved(path: Path) -> Image.Image:
    """Return what torchvision decodes in the form that the resize takes."""
    return Image.fromarray(torchvision_decoder(path).permute(1, 2, 0).contiguous().numpy())


def decoders(paths: list[Path], side: int) -> dict[str, Pass]:
    """Ways to decode a large photograph, one thread: decoding alone, and with the resize."""
    exact, draft = preprocessing(side), preprocessing(side, Decoding(draft=2 * side))
    return {
        "Pillow, decode": lambda: [read_image(path) for path in paths],
        "torchvision, decode": lambda: [torchvision_decoder(path) for path in paths],
        "Pillow in draft mode, decode": lambda: [read_image(path, draft.decoding) for path in paths],
        "Pillow, decode and resize": lambda: [exact.pixels(read_image(path)) for path in paths],
        "torchvision, decode and resize": lambda: [exact.pixels(interleaved(path)) for path in paths],
        "Pillow in draft mode, decode and resize": lambda: [draft.pixels(read_image(path, draft.decoding)) for path in paths],
    }


def extraction(clip: FrozenCLIP, paths: list[Path]) -> dict[str, Pass]:
    """The parts of an extraction, each alone, and all of it as a run does it, on two cores."""
    transform, encode = clip.preprocessing.transform(), encoder(clip, "features")
    batches = list(image_batches(paths, transform, batch_size=BATCH))

    def whole(n_workers: int) -> None:
        for images in image_batches(paths, transform, batch_size=BATCH, n_workers=n_workers):
            encode(images)

    return {
        "decoding, one thread": lambda: [read_image(path) for path in paths],
        "decoding and resizing, one thread": lambda: [transform.pixels(read_image(path)) for path in paths],
        "image tower, two threads": lambda: [encode(images) for images in batches],
        "all, one process": lambda: whole(0),
        "all, two worker processes": lambda: whole(N_CORES),
    }


def photographs(folder: Path, width: int, height: int) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for number in range(N_PHOTOS):
        small = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        paths.append(folder / f"{width}_{number}.jpg")
        small.resize((width, height), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def draft_difference(paths: list[Path], side: int) -> tuple[float, float]:
    """Return the mean and the largest difference in 8-bit steps between exact and draft pixels."""
    exact, draft = preprocessing(side), preprocessing(side, Decoding(draft=2 * side))
    steps = np.stack([np.abs(exact.pixels(read_image(path)).astype(int) - draft.pixels(read_image(path, draft.decoding)))
                      for path in paths])
    return steps.mean(), steps.max()


def differing_pixels(paths: list[Path]) -> int:
    """Return the number of files for which torchvision's decoder gives other pixels than Pillow."""
    return sum(not np.array_equal(torchvision_decoder(path).permute(1, 2, 0).numpy(), read_image(path)) for path in paths)


def table(rates: dict[str, list[float]], unit: str = "images per second") -> str:
    return tabulate([[name, *(f"{rate:,.0f}" for rate in row)] for name, row in rates.items()],
                    [unit, "median", "lowest", "highest"], tablefmt="github", disable_numparse=True,
                    colalign=("left", "right", "right", "right"))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    paths = sorted(folder.rglob("*.jpg"))
    bytes_ = sum(path.stat().st_size for path in paths)
    print("# Reading images\n")
    print("Command: `python -m benchmarks.data ../shared/data/caltech101_small > benchmarks/data.md`\n")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, Pillow {PIL.__version__} on {platform.machine()}, "
          f"{os.cpu_count()} cores, one torch thread unless a row says two. Medians of {REPEATS} passes; the files are in the "
          f"system's cache.\n")
    print(f"## Batches for the image tower\n\n{len(paths)} photographs of Caltech101, shorter side 128, "
          f"{bytes_ / len(paths) / 1000:.0f} kB each.\n")
    for side in (32, 224):
        print(f"At {side} pixels:\n\n{table(medians(loading(paths, side), len(paths)))}\n")
    checks = medians({"`datasets.check`'s scan, two threads": lambda: list(scan(paths, n_threads=N_CORES)),
                      "one thread": lambda: list(scan(paths, n_threads=1))}, len(paths))
    minute = {name: [60 * rate for rate in row] for name, row in checks.items()}
    print(f"## The checker\n\nThe same files, read, hashed and decoded; files a minute (target: 50,000 on two cores).\n\n"
          f"{table(minute, 'files a minute')}\n")
    print("## Large JPEG files to 224 pixels\n")
    clip = build_clip()
    with tempfile.TemporaryDirectory() as name:
        for width, height in ((640, 480), (2048, 1536)):
            large = photographs(Path(name), width, height)
            mean, largest = draft_difference(large, 224)
            print(f"{width} x {height} pixels, synthetic, {large[0].stat().st_size / 1000:.0f} kB each. Draft mode changes the "
                  f"pixels by {mean:.2f} of 255 on average, {largest:.0f} at most; torchvision's decoder differs from Pillow's "
                  f"on {differing_pixels(large)} of {len(large)} files.\n")
            print(f"{table(medians(decoders(large, 224), len(large)))}\n")
            torch.set_num_threads(N_CORES)
            print(f"Features of these by ViT-B/32 of random weights:\n\n"
                  f"{table(medians(extraction(clip, large), len(large)))}\n")
            torch.set_num_threads(1)
    print(CONCLUSIONS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
