"""Time a plain loop of active prompt learning beside this project's run at equal work, in CPU seconds of whole processes.

    python -m benchmarks.plain_loop --photos FOLDER > benchmarks/plain_loop.md    # FOLDER/<class>/<image>, 20 classes or more
    python -m benchmarks.plain_loop --small      # made images, a tiny tower: whether it works, in a minute

ViT-B/32 of random weights, 20 classes, 6 training and 4 test photos of each, CoOp with 16 words of each class, crop and flip,
two rounds of 8 epochs and 20 labels, picked by entropy. The plain loop is written here for the purpose and does what its kind
does: every text at 77 tokens, every class and every image through both towers in each step, each batch of the pool and the
test split. Random weights take as long as trained ones; accuracies say nothing.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tabulate import tabulate

PROJECT = Path(__file__).parents[1]
CLASSES, TRAIN, TEST, WORDS, ROUNDS, EPOCHS, LABELS, BATCH = 20, 6, 4, 16, 2, 8, 20, 32
AUGMENTED = "['random_resized_crop', 'random_flip', 'normalize']"


def plain(folder: Path) -> None:
    """Do the whole work plainly, in one process."""
    import open_clip
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from torchvision import transforms

    torch.set_num_threads(1)
    own = json.loads((folder / "model.json").read_text())
    model = open_clip.CLIP(**own).eval().requires_grad_(False)
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    size, mean, std = own["vision_cfg"]["image_size"], (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    bicubic = transforms.InterpolationMode.BICUBIC
    augment = transforms.Compose([transforms.RandomResizedCrop(size, interpolation=bicubic),
                                  transforms.RandomHorizontalFlip(), *last])
    fixed = transforms.Compose([transforms.Resize(size, bicubic), transforms.CenterCrop(size), *last])
    names = sorted(path.name for path in (folder / "photos" / "train").iterdir())
    files = {split: [(path, label) for label, name in enumerate(names)
                     for path in sorted((folder / "photos" / split / name).iterdir())] for split in ("train", "test")}
    ids = open_clip.get_tokenizer("ViT-B-32")([" ".join(["X"] * WORDS) + f" {name}." for name in names])
    embedded = model.token_embedding(ids)

    def texts(context: torch.Tensor) -> torch.Tensor:
        x = torch.cat([embedded[:, :1], context, embedded[:, 1 + WORDS:]], 1) + model.positional_embedding
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        return F.normalize(x[torch.arange(len(x)), ids.argmax(1)] @ model.text_projection, dim=-1)

    def logits(items: list, view: transforms.Compose, context: torch.Tensor) -> torch.Tensor:
        images = torch.stack([view(Image.open(path).convert("RGB")) for path, _ in items])
        with torch.no_grad():
            features = F.normalize(model.encode_image(images), dim=-1)
        return 100 * features @ texts(context).T

    labeled, pool, context = [], list(files["train"]), torch.zeros(CLASSES, WORDS, embedded.shape[2])
    for _ in range(ROUNDS):
        with torch.no_grad():
            scores = torch.cat([logits(pool[start:start + BATCH], fixed, context) for start in range(0, len(pool), BATCH)])
        probabilities = scores.softmax(1)
        order = (-(probabilities * probabilities.log()).sum(1)).argsort(descending=True)[:LABELS].tolist()
        labeled += [pool[row] for row in order]
        pool = [item for row, item in enumerate(pool) if row not in set(order)]
        context = (0.02 * torch.randn(CLASSES, WORDS, embedded.shape[2])).requires_grad_()
        optimizer = torch.optim.SGD([context], 0.002, 0.9)
        for _ in range(EPOCHS):
            random.shuffle(labeled)
            for start in range(0, len(labeled), BATCH):
                items = labeled[start:start + BATCH]
                loss = F.cross_entropy(logits(items, augment, context), torch.tensor([label for _, label in items]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            for start in range(0, len(files["test"]), 100):
                logits(files["test"][start:start + 100], fixed, context)
    assert math.isfinite(loss.item())


def words(folder: Path, output: str, cache: str, *more: str) -> list[str]:
    """Return the command of this project's run of the same work."""
    keys = {"CPU_THREADS": 1, "DATASET.NAME": "ImageFolder", "CACHE_DIR": folder / cache, "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.DROP_LAST": False, "MODEL.BACKBONE.NAME": folder / "model",
            "MODEL.BACKBONE.PRETRAINED": folder / "weights.safetensors", "TRAINER.NAME": "CoOp", "TRAINER.COOP.N_CTX": WORDS,
            "TRAINER.COOP.CSC": True, "OPTIM.MAX_EPOCH": EPOCHS, "ACTIVE.SAMPLER": "entropy",
            "ACTIVE.INITIAL_SAMPLER": "entropy", "ACTIVE.ROUNDS": ROUNDS, "ACTIVE.QUERY_SIZE": LABELS}
    pairs = [str(word) for pair in keys.items() for word in pair]
    return [sys.executable, "train.py", "--root", str(folder / "photos"), "--output-dir", str(folder / output), *pairs, *more]


def measured(command: list[str]) -> tuple[float, float]:
    """Return CPU seconds and peak MiB of a process."""
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def prepare(folder: Path, photos: Path | None, small: bool) -> None:
    """Write photos of 20 classes, made ones without `photos`, and weights of a random CLIP."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    (folder / "model").mkdir()
    if small:
        config = {"embed_dim": 16, "text_cfg": {"width": 24, "heads": 3, "layers": 2}, "vision_cfg": {
            "image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 2}}
    else:
        config = open_clip.get_model_config("ViT-B-32-quickgelu")
    (folder / "model.json").write_text(json.dumps(config))
    (folder / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "weights.safetensors")
    rng = np.random.default_rng(0)
    names = sorted(path.name for path in photos.iterdir() if path.is_dir())[:CLASSES] if photos else [
        f"kind {chr(97 + number)}" for number in range(CLASSES)]
    for name in names:
        own = sorted((photos / name).iterdir()) if photos else []
        for row in range(TRAIN + TEST):
            target = folder / "photos" / ("train" if row < TRAIN else "test") / name / f"{row}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            if photos:
                target.write_bytes(own[row].read_bytes())
            else:
                Image.fromarray(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)).resize((300, 225)).save(target)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        plain(arguments.plain)
        return
    crops, views = ("INPUT.TRANSFORMS", AUGMENTED), ("INPUT.VIEWS", str(arguments.views))
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), []
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # else its memory counts as its children's
            pool.submit(prepare, folder, arguments.photos, arguments.small).result()
        commands = {
            "plain loop": [sys.executable, "-m", "benchmarks.plain_loop", "--plain", name],
            "ours, a new view every epoch": words(folder, "fresh", "fresh cache", *crops),
            f"ours, {arguments.views} kept views, nothing kept yet": words(folder, "kept", "cache", *crops, *views),
            "the same by another seed and sampler": words(folder, "again", "cache", *crops, *views, "SEED", "2",
                                                          "ACTIVE.SAMPLER", "margin"),
            "the same, all kept": words(folder, "all", "cache", *crops, *views),
            "ours, the fixed view, features kept": words(folder, "fixed", "cache")}
        for what, command in commands.items():
            seconds, memory = measured(command)
            rows.append([what, seconds, rows[0][1] / seconds if rows else 1.0, memory])
            print(*rows[-1], file=sys.stderr, flush=True)
    print("# A plain loop beside a run of this project\n\nCommand: `python -m benchmarks.plain_loop "
          f"{'--photos FOLDER ' if arguments.photos else ''}> benchmarks/plain_loop.md`\n")
    print(f"ViT-B/32, random weights, one thread of {platform.machine()}; {'photos' if arguments.photos else 'made images'} of "
          f"{CLASSES} classes, {CLASSES * TRAIN} for training and {CLASSES * TEST} for testing, {WORDS} words of each class, "
          f"{ROUNDS} rounds of {EPOCHS} epochs and {LABELS} labels. CPU seconds of whole processes, start included.\n")
    print(tabulate(rows, ["what", "CPU s", "times as fast", "peak MiB"], tablefmt="github", floatfmt=("", ".1f", ".1f", ".0f")))


if __name__ == "__main__":
    main()
