"""Time whole runs of prompt learners and heads on a GPU, and a step of each prompt learner against what the card could do.

    python -m benchmarks.trainers_gpu > benchmarks/trainers_gpu.md
    python -m benchmarks.trainers_gpu --small     # tiny CLIP, few images, 2 rounds: shows on any machine that all of it runs

A run is `train.py`'s own: ViT-B/16 of random weights (the time does not depend on them), noise in DTD's sizes (47 classes,
2,820 train and 1,692 test files of 500 x 375), six rounds of 1 %, 200 epochs, batch 32, random crops and flips. A step is
the fullest batch of the last round, on inputs that lie on the card. Its floor is the larger of two times: its floating-point
operations at the rate of a large matrix product, and the towers' weights, read once forward and once backward, at the rate
of a large copy; both rates are measured here. If issuing the steps takes as long as the steps, launches bound them.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from tabulate import tabulate
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import train
from active.record.results import RunResult
from benchmarks.trainers import class_names
from dassl.utils.run_folder import RESULTS
from trainers.clip.backbones import OPENAI_NAMES, load_clip
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Batch, ClassTexts
from trainers.registry import LEARNERS

TINY = "configs/models/tiny_clip.safetensors"


@dataclass(frozen=True)
class Sizes:
    """Of the data set and of a run."""

    backbone: str = "ViT-B/16"
    n_classes: int = 47
    n_train: int = 60  # a class, as n_test
    n_test: int = 36
    rounds: int = 6
    epochs: int = 200
    batch: int = 32
    pixels: tuple[int, int] = (500, 375)
    n_steps: int = 100  # of which a step's time is the mean
    side: int = 8192  # of the matrix product that gives the card's rate


SMALL = Sizes("tiny_clip", 3, 20, 4, 2, 2, 4, (40, 30), 3, 256)
CASES = {  # parameters by YAML key; VPT and MaPLe in the sizes of the MaPLe repository, where the tower has the blocks
    "CoOp": {"CTX_INIT": "a photo of a"}, "VPT": {"N_CTX": 8, "PROMPT_DEPTH": 12}, "MaPLe": {"N_CTX": 2, "PROMPT_DEPTH": 9},
    "DualPrompt": {"N_CTX_VISION": 20, "PROMPT_DEPTH_VISION": 12}}
HEADS = ("LinearProbe", "GDA")  # in closed form or by a solver: without steps


def write_images(folder: Path, sizes: Sizes) -> None:
    """Write train and test JPEG files of smooth noise, a folder a class."""
    rng = np.random.default_rng(0)
    for split, n_images in (("train", sizes.n_train), ("test", sizes.n_test)):
        for name in class_names(47)[: sizes.n_classes]:
            (folder / split / name).mkdir(parents=True)
            for index in range(n_images):
                noise = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
                noise.resize(sizes.pixels).save(folder / split / name / f"{index}.jpg")


def weights_file(folder: Path, sizes: Sizes) -> str:
    """Return a file of weights: random ones, or the embedded CLIP's."""
    if sizes.backbone == "tiny_clip":
        return TINY
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(open_clip.create_model(OPENAI_NAMES[sizes.backbone]).state_dict(), folder / "random.safetensors")
    return str(folder / "random.safetensors")


def parameters_of(name: str, clip: FrozenCLIP) -> dict[str, int | str]:
    """Return the learner's parameters by YAML key, with no more depth than the towers have."""
    found = dict(CASES.get(name, {}))
    for key in {"PROMPT_DEPTH", "PROMPT_DEPTH_VISION"} & found.keys():
        found[key] = min(found[key], clip.image_depth, clip.text_depth if name == "MaPLe" else 999)
    return found


def whole_run(name: str, clip: FrozenCLIP, weights: str, folder: Path, sizes: Sizes, precision: str, n_workers: int) -> list:
    """Return a row of the first table: seconds of a run and its parts, number of optimizer steps."""
    parameters = [word for key, value in parameters_of(name, clip).items()
                  for word in (f"TRAINER.{name.upper()}.{key}", str(value))]
    output, start = folder / "output" / name, time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        code = train.main([
            "--root", str(folder / "images"), "--output-dir", str(output), "--trainer", name, "DATASET.NAME", "ImageFolder",
            "CACHE_DIR", str(folder / "cache" / name), "MODEL.BACKBONE.NAME", sizes.backbone,
            "MODEL.BACKBONE.PRETRAINED", weights, "MODEL.PREC", precision,
            "INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']",
            "DATALOADER.TRAIN_X.BATCH_SIZE", str(sizes.batch), "DATALOADER.NUM_WORKERS", str(n_workers),
            "OPTIM.MAX_EPOCH", str(sizes.epochs), "ACTIVE.ROUNDS", str(sizes.rounds), "ACTIVE.QUERY_SIZE", "1%", *parameters])
    total = time.perf_counter() - start
    if code:
        raise SystemExit(code)
    rounds = RunResult.read(output / RESULTS).rounds
    parts = [sum(record.seconds[part] for record in rounds) for part in ("select", "fit", "evaluate")]
    n_steps = sum(max(record.n_labeled // sizes.batch, 1) for record in rounds) * sizes.epochs
    return [name, total, total - sum(parts), *parts, None if name in HEADS else n_steps]


def one_step(name: str, clip: FrozenCLIP, sizes: Sizes) -> Callable[[], Tensor]:
    """Return a function that takes one optimizer step of a full batch and returns its loss, without waiting for it."""
    component = LEARNERS[name]
    parameters = {key.lower(): value for key, value in parameters_of(name, clip).items()}
    texts = ClassTexts(class_names(47)[: sizes.n_classes], "a photo of a {}.")
    learner = component.build(clip, texts, np.random.default_rng(0), **parameters).to(clip.device)
    model, optimizer = PromptedCLIP(clip, learner), torch.optim.SGD(learner.parameters(), lr=0.002, momentum=0.9)
    images = torch.randn(sizes.batch, 3, *clip.preprocessing.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inputs = clip.embed_image(images) if learner.tunes_images else normalized(clip.encode_image(images))
    targets = (torch.arange(sizes.batch) % sizes.n_classes).to(clip.device)

    def step() -> Tensor:
        prompts = learner()
        batch = Batch(model.image_features(inputs, prompts), targets, clip.logit_scale, None, np.random.default_rng(0))
        loss = learner.loss(model.classifier(prompts), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    return step


def seconds_each(function: Callable[[], object], n: int, device: torch.device) -> tuple[float, float]:
    """Return the mean seconds of n calls until they are issued, and until they are done."""
    for _ in range(3):
        function()
    wait(device)
    start = time.perf_counter()
    for _ in range(n):
        function()
    issued = time.perf_counter() - start
    wait(device)
    return issued / n, (time.perf_counter() - start) / n


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rates(sizes: Sizes, dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Return what the card does in a large matrix product, in FLOP/s, and in a large copy, in bytes/s read or written."""
    matrix = torch.ones(sizes.side, sizes.side, dtype=dtype, device=device)
    source = torch.ones(sizes.side**2 * 4, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    _, product = seconds_each(lambda: matrix @ matrix, 10, device)
    _, copy = seconds_each(lambda: target.copy_(source), 10, device)
    return 2 * sizes.side**3 / product, 2 * source.numel() / copy


def flop(step: Callable[[], Tensor]) -> int:
    """Return the floating-point operations of a step's matrix products, attention's too, forward and backward."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def weight_bytes(name: str, clip: FrozenCLIP) -> int:
    """Return the bytes of the blocks that a step goes through."""
    text, image = clip.text.transformer, clip.model.visual.transformer
    towers = {"CoOp": [text], "VPT": [image]}.get(name, [text, image])
    return sum(weight.nbytes for tower in towers for weight in tower.parameters())


def step_row(name: str, clip: FrozenCLIP, sizes: Sizes, flop_rate: float, byte_rate: float) -> list:
    """Return a row of the second table: milliseconds of a step, of issuing it and of its floor."""
    step = one_step(name, clip, sizes)
    issued, done = seconds_each(step, sizes.n_steps, clip.device)
    n_flop, n_bytes = flop(step), 2 * weight_bytes(name, clip)
    floors = {"arithmetic": n_flop / flop_rate, "memory": n_bytes / byte_rate}
    largest = max(floors, key=floors.get)
    return [name, 1e3 * done, 1e3 * issued, n_flop / 1e9, n_bytes / 1e6, 1e3 * floors[largest], largest, done / floors[largest],
            bound_by(issued, done, floors[largest], largest) if clip.device.type == "cuda" else None]


def bound_by(issued: float, done: float, floor: float, of_floor: str) -> str:
    """Return what bounds a step: launches, where the card waits for them and is far from its floor."""
    return "launches" if issued > 0.9 * done and done > 2 * floor else of_floor


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), default="bf16")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 16))
    arguments = parser.parse_args(argv)
    sizes, device = SMALL if arguments.small else Sizes(), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.small:
        raise SystemExit("no GPU is here; --small runs anywhere")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", sizes)
        weights = weights_file(folder, sizes)
        clip = load_clip(sizes.backbone, weights, device=device, precision=arguments.precision)
        runs = [whole_run(learner, clip, weights, folder, sizes, arguments.precision, arguments.workers)
                for learner in (*CASES, *HEADS)]
    flop_rate, byte_rate = rates(sizes, next(clip.model.parameters()).dtype, device)
    steps = [step_row(learner, clip, sizes, flop_rate, byte_rate) for learner in CASES]
    card = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU, sizes that say nothing"
    n_train, n_test = sizes.n_classes * sizes.n_train, sizes.n_classes * sizes.n_test
    print("# Trainers on a GPU\n\nCommand: `python -m benchmarks.trainers_gpu > benchmarks/trainers_gpu.md`\n")
    print(f"{card}, torch {torch.__version__}, towers in {arguments.precision}, {arguments.workers} workers; {sizes.backbone}, "
          f"{sizes.n_classes} classes, {n_train} train and {n_test} test images; {sizes.rounds} rounds of 1 %, "
          f"{sizes.epochs} epochs, batch {sizes.batch}. Seconds of a whole run; \"set-up\" is reading weights, decoding and "
          "the features of all images. \"fit\" holds decoding the labeled images once, their views and the steps.\n")
    print(tabulate(runs, ["learner", "run", "set-up", "select", "fit", "evaluate", "steps"], tablefmt="github",
                   floatfmt=("", ".1f", ".1f", ".1f", ".1f", ".1f", "")))
    print(f"\nOne step of {sizes.batch} images. The card: {flop_rate / 1e12:.1f} TFLOP/s in a matrix product, "
          f"{byte_rate / 1e12:.2f} TB/s in a copy.\n")
    print(tabulate(steps, ["learner", "ms", "ms to issue", "GFLOP", "MB of weights", "floor ms", "by", "times floor",
                           "bound by"], tablefmt="github", floatfmt=("", ".2f", ".2f", ".1f", ".0f", ".3f", "", ".1f", "")))


if __name__ == "__main__":
    main()
