"""Time a CoOp step of ViT-B/32's text tower, plain path and ours in one run, and a whole plain step.

    python -m benchmarks.trainers > benchmarks/trainers.md
    python -m benchmarks.trainers --quick     # the smallest setting alone
    python -m benchmarks.trainers --classes 47 101     # without the plain steps of 397 classes, two minutes and 11 GB each

A step is the text features of all classes and the gradient of the context. The plain path is the authors': every class at 77
tokens, every token through every block. Weights are random; the time does not depend on them. The two take turns, and the
ratio is that of their medians. Each setting has processes of its own, in which peak memory is measured too.
"""

import argparse
import logging
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torchvision import transforms

from dassl.config.setup import setup_config
from dassl.data.loader import image_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import Preprocessing, build_augmentation
from dassl.utils.environment import peak_resident_mb
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Classifier, ClassTexts
from trainers.registry import LEARNERS

SETTINGS = [(47, 16, False), (101, 16, False), (47, 16, True), (47, 4, True), (47, 4, False), (101, 4, False), (101, 16, True),
            (101, 4, True), (397, 16, False), (397, 4, False), (397, 16, True), (397, 4, True)]
TARGETS = {(47, 16, False): 17, (101, 16, False): 27, (397, 16, False): 18, (47, 16, True): 4.5, (47, 4, True): 11}
# The class names of DTD and of Caltech101, facts that decide how long the texts are.
DTD = """
banded, blotchy, braided, bubbly, bumpy, chequered, cobwebbed, cracked, crosshatched, crystalline, dotted, fibrous,
flecked, freckled, frilly, gauzy, grid, grooved, honeycombed, interlaced, knitted, lacelike, lined, marbled, matted,
meshed, paisley, perforated, pitted, pleated, polka-dotted, porous, potholed, scaly, smeared, spiralled, sprinkled,
stained, stratified, striped, studded, swirly, veined, waffled, woven, wrinkled, zigzagged
"""
CALTECH101 = """
accordion, airplane, anchor, ant, background, barrel, bass, beaver, binocular, bonsai, brain, brontosaurus, buddha,
butterfly, camera, cannon, car side, ceiling fan, cellphone, chair, chandelier, cougar body, cougar face, crab,
crayfish, crocodile, crocodile head, cup, dalmatian, dollar bill, dolphin, dragonfly, electric guitar, elephant, emu,
euphonium, ewer, face, ferry, flamingo, flamingo head, garfield, gerenuk, gramophone, grand piano, hawksbill, headphone,
hedgehog, helicopter, ibis, inline skate, joshua tree, kangaroo, ketch, lamp, laptop, leopard, llama, lobster, lotus,
mandolin, mayfly, menorah, metronome, minaret, motorbike, nautilus, octopus, okapi, pagoda, panda, pigeon, pizza,
platypus, pyramid, revolver, rhino, rooster, saxophone, schooner, scissors, scorpion, sea horse, snoopy, soccer ball,
stapler, starfish, stegosaurus, stop sign, strawberry, sunflower, tick, trilobite, umbrella, watch, water lilly,
wheelchair, wild cat, windsor chair, wrench, yin yang
"""
SCENES = "field, house, room, garden, tower, market, station, park, bridge, church, studio, office, hall, court, shop"
ONE_LONG_NAME = "the very long name of one class among all the others of the set"  # one such name sets the plain length


def build_clip() -> FrozenCLIP:
    """Return ViT-B/32 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        logging.disable()  # open_clip says that the weights are random
        model = open_clip.create_model("ViT-B-32-quickgelu")
        logging.disable(logging.NOTSET)
    native = Preprocessing((224, 224), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    return FrozenCLIP(model, open_clip.get_tokenizer("ViT-B-32"), native, name="ViT-B/32", fingerprint="")


def class_names(n: int) -> tuple[str, ...]:
    """Return DTD's 47 names, Caltech101's 101, or n made-up names of scenes of which one is long."""
    if n in (47, 101):
        return listed({47: DTD, 101: CALTECH101}[n])
    made_up = [f"{kind} {scene}" for scene in listed(SCENES) for kind in [*listed(DTD), ""]]
    return tuple(name.strip() for name in [*made_up[: n - 1], ONE_LONG_NAME])


def listed(text: str) -> tuple[str, ...]:
    """Return the comma-separated names of a text."""
    return tuple(" ".join(name.split()) for name in text.split(","))


def build_model(clip: FrozenCLIP, names: Sequence[str], n_ctx: int, csc: bool) -> PromptedCLIP:
    """Return CoOp on classes of these names."""
    texts = ClassTexts(tuple(names), "a photo of a {}.")
    return PromptedCLIP(clip, LEARNERS["CoOp"].build(clip, texts, np.random.default_rng(0), n_ctx=n_ctx, csc=csc))


def plain_features(model: PromptedCLIP) -> Tensor:
    """Return the class features as the authors compute them."""
    text, rows, context = model.clip.text, model.learner.rows, model.learner.ctx
    n_ctx = rows.slots.shape[1]
    embedded = text.token_embedding(rows.ids)
    context = context if context.dim() == 3 else context.expand(len(rows.ids), -1, -1)
    x = torch.cat([embedded[:, :1], context, embedded[:, 1 + n_ctx:]], dim=1) + text.positional_embedding
    x = text.ln_final(text.transformer(x, attn_mask=text.attn_mask))
    return normalized(x[torch.arange(len(x)), rows.ids.argmax(1)] @ text.text_projection)


def our_features(model: PromptedCLIP) -> Tensor:
    return model.classifier(model.learner()).texts


def step(model: PromptedCLIP, features_of: Callable[[PromptedCLIP], Tensor]) -> float:
    """Return the CPU seconds of one forward and backward pass."""
    model.learner.zero_grad()
    start = time.process_time()
    features_of(model)[:, 0].sum().backward()
    return time.process_time() - start


def timed(setting: tuple[int, int, bool], n_turns: int) -> tuple[float, float, float, float]:
    """Return the median CPU seconds of both paths, taking turns after a step each to warm up, the largest difference of their
    features, and the MiB by which the first plain step raises the peak memory of this process."""
    model = build_model(build_clip(), class_names(setting[0]), *setting[1:])
    before = peak_resident_mb()
    step(model, plain_features)
    memory = peak_resident_mb() - before
    step(model, our_features)
    plain, ours = [], []
    for _ in range(n_turns):
        plain.append(step(model, plain_features))
        ours.append(statistics.median(step(model, our_features) for _ in range(3)))
    with torch.no_grad():
        difference = (our_features(model) - plain_features(model)).abs().max().item()
    assert difference < 1e-5, difference
    return statistics.median(plain), statistics.median(ours), difference, memory


def peak_growth(setting: tuple[int, int, bool]) -> float:
    """Return the MiB by which one of our steps raises the peak memory of this process."""
    model = build_model(build_clip(), class_names(setting[0]), *setting[1:])
    before = peak_resident_mb()
    step(model, our_features)
    return peak_resident_mb() - before


def alone(function: Callable, *arguments):
    """Return the function's answer from a fresh process, which leaves no memory behind."""
    spawn, threads = multiprocessing.get_context("spawn"), (torch.get_num_threads(),)
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, threads) as pool:
        return pool.submit(function, *arguments).result()


def compare(setting: tuple[int, int, bool], n_turns: int) -> list:
    """Return a row of the table: medians of both paths in turn, their ratio, memory."""
    plain, ours, difference, plain_memory = alone(timed, setting, n_turns)
    memory = alone(peak_growth, setting)
    return [setting[0], setting[1], "yes" if setting[2] else "no", plain, ours, plain / ours, TARGETS.get(setting),
            plain_memory, memory, memory / plain_memory, f"{difference:.0e}"]


def whole_steps(clip: FrozenCLIP, n_classes: int, folder: Path) -> tuple[float, float, float]:
    """Return the CPU seconds of the authors' step on 32 images (decode, augment, image tower, 77 tokens), of our step on
    features, and of the features of 32 augmented views, which are encoded ahead from images decoded once."""
    rng = np.random.default_rng(0)
    paths = [folder / f"{index}.jpg" for index in range(32)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).resize((500, 375)).save(path)
    augment = transforms.Compose([transforms.RandomResizedCrop(224, interpolation=transforms.InterpolationMode.BICUBIC),
                                  transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    cfg = setup_config([], [("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']")], [LEARNERS])
    view, store = build_augmentation(cfg.INPUT, clip.preprocessing), ImageStore(2**30)
    model = build_model(clip, class_names(n_classes), 16, False)

    def plain() -> None:
        images = torch.stack([augment(Image.open(path).convert("RGB")) for path in paths])
        with torch.no_grad():
            features = normalized(clip.encode_image(images))
        (features @ plain_features(model).T).sum().backward()

    features = normalized(torch.randn(32, 512))

    def ours() -> None:
        model.logits(features, Classifier(our_features(model))).sum().backward()

    @torch.no_grad()
    def ahead() -> None:
        for images in image_batches(paths, view, batch_size=32, seeds=range(32), store=store):
            normalized(clip.encode_image(images))

    parts = (plain, ours, ahead)
    turns = [[cpu_seconds(part) for part in parts] for _ in range(4)][1:]  # the first turn fills the store and caches
    return tuple(statistics.median(column) for column in zip(*turns, strict=True))


def cpu_seconds(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--classes", type=int, nargs="+", default=[47, 101, 397], choices=[47, 101, 397])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    settings = [setting for n_classes in arguments.classes for setting in SETTINGS if setting[0] == n_classes]
    for setting in SETTINGS[:1] if arguments.quick else settings:
        rows.append(compare(setting, arguments.turns if setting[0] < 300 else 1))
        print(*rows[-1], file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        plain, ours, ahead = whole_steps(build_clip(), 47, Path(folder))
    print("# Trainers: a CoOp step\n\nCommand: `python -m benchmarks.trainers > benchmarks/trainers.md`\n")
    print(f"ViT-B/32's text tower (12 blocks, width 512), fp32, random weights, {arguments.threads} thread(s) of "
          f"{platform.machine()}, torch {torch.__version__}; medians of {arguments.turns} turns (one at 397 classes), "
          "after one step of either path. \"difference\" is the largest between the features of both paths.\n")
    print(tabulate(sorted(rows), ["classes", "context", "class-specific", "plain CPU s", "ours CPU s", "ratio", "target",
                                  "plain MiB", "ours MiB", "memory share", "difference"], tablefmt="github",
                   floatfmt=("", "", "", ".2f", ".3f", ".1f", "g", ".0f", ".0f", ".2f", "")))
    print("\nThe authors' whole step at 47 classes and 16 shared tokens (32 JPEG files of 500x375 decoded and augmented, image "
          f"tower, 77 tokens): {plain:.2f} CPU s. On features, ours: {ours:.3f} CPU s, {plain / ours:.0f} times less. Where "
          f"views are augmented, 32 new ones, encoded ahead, take {ahead:.2f} CPU s more, "
          f"{plain / (ours + ahead):.1f} times less.")


if __name__ == "__main__":
    main()
