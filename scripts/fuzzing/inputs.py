"""Odd inputs of every kind that the commands read, each a fixed function of its kind and its seed.

A kind is a function of a random generator and a `Place`, a small separate world: images, a finished run, their cache. It
damages something there and returns a command with its words.
"""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import yaml
from PIL import Image

from active.analysis.records import CELLS
from active.registry import SAMPLERS
from dassl.config.merge import leaves, lookup
from dassl.config.setup import setup_config
from dassl.data.dataset import DATASETS
from dassl.utils.environment import PROJECT
from dassl.utils.files import json_hash
from dassl.utils.run_folder import FAILED, PROMPTS, QUERIES, RESULTS
from scripts.fuzzing.damage import (
    DAMAGE,
    NAMES,
    VALUES,
    damage_file,
    damaged_bytes,
    damaged_tree,
    damaged_value,
    put_odd,
    write_tree,
)
from trainers.registry import LEARNERS

QUICK = PROJECT / "configs" / "quickstart.yaml"
TINY = PROJECT / "configs" / "experiments" / "tiny.yaml"
CLASSES = ("cat", "dog", "owl")
FEW = ("DATASET.NAME", "ImageFolder", "ACTIVE.ROUNDS", "1", "OPTIM.MAX_EPOCH", "1", "ACTIVE.QUERY_SIZE", "2",
       "ACTIVE.SAMPLER", "random")
DEFAULTS = setup_config([], [], (DATASETS, LEARNERS, SAMPLERS))
KEYS = list(leaves(DEFAULTS))
REACHING_OUT = ("ACTIVE.PLUGINS", "MODEL.BACKBONE.NAME")  # would run code, or fetch weights

IMAGE_DAMAGE = ("bytes", "bytes", "empty", "pipe", "socket", "folder", "endless", "dangling", "loop", "absent")

Command = tuple[str, list[str]]


@dataclass(frozen=True)
class Place:
    """Where an input lies: `photos`, the data root with its cache; `run`, the finished run on it; `asked`, one that waits.

    Commands run in `folder` and are given paths relative to it, so that an input does not depend on its place.
    """

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def record(self) -> Path:
        return self.run / RESULTS

    def train(self, *words: object, output: str = "new") -> Command:
        """Return a short run on the photos."""
        return "train", ["--config-file", str(QUICK), "--root", "photos", "--output-dir", output, *FEW, *map(str, words)]

    def ask(self) -> Command:
        """Return a run that asks people about the images of the folder `flat`, or reads their answers."""
        labels = ("DATASET.IMAGEFOLDER.CLASSES", "classes.txt", "ACTIVE.ORACLE", "file")
        return self.train("--root", "flat", *labels, output="asked")


def make_photos(folder: Path) -> None:
    """Draw six small images of each class, in one folder per class and again in a common folder, with the class names."""
    for number, name in enumerate(CLASSES):
        (folder / "photos" / name).mkdir(parents=True)
        (folder / "flat").mkdir(exist_ok=True)
        for index in range(6):
            image = Image.new("RGB", (32, 32), (80 * number, 40 * index, 99))
            image.save(folder / "photos" / name / f"{index}.png")
            image.save(folder / "flat" / f"{name}{index}.png")
    (folder / "flat" / "classes.txt").write_text("\n".join(CLASSES))


def line(rng: Random, place: Place) -> Command:
    """Keys of the command line with odd values, mostly of the right type."""
    keys = rng.sample([key for key in KEYS if key not in REACHING_OUT], rng.randint(1, 3))
    pairs = [(key, _value(lookup(DEFAULTS, key), rng)) for key in keys]
    pairs += [("ACTIVE.SAMPLER", rng.choice([sampler.name for sampler in SAMPLERS]))] * (rng.random() < 0.5)
    pairs += [("TRAINER.NAME", rng.choice([trainer.name for trainer in LEARNERS]))] * (rng.random() < 0.3)
    further = rng.choice(((), (), ("--print-config",), ("--overwrite",), ("--seed", str(damaged_value(rng))), ("--nothing",)))
    return place.train(*(word for pair in pairs for word in pair), *further, output=rng.choice(("new", "run")))


def config(rng: Random, place: Place) -> Command:
    """A config file whose tree or whose bytes are damaged."""
    tree = yaml.safe_load(QUICK.read_text()) | {"SEED": 1, "CACHE_DIR": "cache"}
    tree["ACTIVE"]["ROUNDS"], tree["OPTIM"]["MAX_EPOCH"] = 1, 1
    tree["OUTPUT_DIR"], tree["DATASET"] = "new", {"NAME": "ImageFolder", "ROOT": "photos"}
    (place.folder / "config.yaml").write_bytes(_yaml(tree, rng))
    return rng.choice((("train", ["--config-file", "config.yaml"]), ("check", ["--config-file", "config.yaml"]),
                       ("train", ["--config-file", str(QUICK), "config.yaml", "--print-config"])))


def experiment(rng: Random, place: Place) -> Command:
    """An experiment whose tree or whose bytes are damaged; its cells are checked, but not run."""
    tree = yaml.safe_load(TINY.read_text()) | {"OUTPUT_DIR": "new", "SEEDS": [1]}
    (place.folder / "experiment.yaml").write_bytes(_yaml(tree, rng))
    return "sweep", ["--config-file", "experiment.yaml", *(["--list"] if rng.random() < 0.5 else ["--workers", "1"])]


def record(rng: Random, place: Place) -> Command:
    """The record of a run, damaged, mostly with a checksum that fits."""
    content = json.loads(place.record.read_text())
    if rng.random() < 0.7:
        key = rng.choice(("rounds", "dataset", "zero_shot", "environment", "certificate", "config"))
        content = {name: value for name, value in content.items() if name != "checksum"}
        content[key] = damaged_tree(content[key], rng)
        place.record.write_text(json.dumps(content | {"checksum": json_hash(content)}))
    else:
        write_tree(place.record, content, rng)
    return _reader(rng, place)


def odd_record(rng: Random, place: Place) -> Command:
    """Any file of a finished run, damaged or replaced by something else."""
    damage_file(rng.choice([file for file in sorted(place.run.rglob("*")) if file.is_file()]), rng)
    return _reader(rng, place)


def sweep_notes(rng: Random, place: Place) -> Command:
    """The files that a sweep leaves beside its runs, damaged."""
    keys = {"folder": "run", "dataset": "a", "learner": "CoOp", "backbone": "b", "query_size": "1%", "method": "m", "seed": 1}
    write_tree(place.folder / CELLS, {"cells": [keys, keys | {"folder": "other"}]}, rng)
    write_tree(place.run / FAILED, {"kind": "failed", "error": "why", "config": "", "code": ""}, rng)
    shutil.rmtree(place.folder / "asked")  # it would be another run of the same cell
    return "summarize", ["."]


def prompts(rng: Random, place: Place) -> Command:
    """A file of prompts, damaged or replaced by something else."""
    file = next((place.run / PROMPTS).iterdir())
    damage_file(file, rng)
    if file.is_file() and rng.random() < 0.5:  # without a record beside it, whose hash it would have to match
        return place.train("--eval-only", "--model-dir", file.rename(place.folder / "alone.safetensors").name)
    return place.train("--eval-only", "--model-dir", rng.choice((file.relative_to(place.folder), "run")))


def images(rng: Random, place: Place) -> Command:
    """Images that are damaged, missing, or not files, and odd things beside them."""
    for file in rng.sample(sorted(place.photos.glob("*/*.png")), rng.randint(1, 4)):
        damage_file(file, rng, IMAGE_DAMAGE)
    if rng.random() < 0.5:
        put_odd(place.photos / CLASSES[0] / "odd.png", rng.choice(IMAGE_DAMAGE))
    corrupt = ("DATASET.CORRUPT", rng.choice(("error", "skip")))
    return rng.choice((place.train(*corrupt), ("check", ["--root", "photos", "DATASET.NAME", "ImageFolder"]),
                       place.train(*corrupt, "DATALOADER.NUM_WORKERS", "2")))


def used(rng: Random, place: Place) -> Command:
    """Images to predict, some of them damaged, and sometimes also a damaged file of the run."""
    images(rng, place)
    if rng.random() < 0.4:
        damage_file(rng.choice([file for file in sorted(place.run.rglob("*")) if file.is_file()]), rng)
    asked = rng.choice(((), ("photos",), ("--split", "test"), ("photos/cat", "photos/dog/0.png")))
    return "predict", ["run", *asked, *rng.choice(((), ("--output", "out.csv"), ("--sort-into", "sorted", "--copy")))]


def cache(rng: Random, place: Place) -> Command:
    """Files of the cache, including its locks, damaged or replaced by something else."""
    files = sorted((place.photos / ".cache").iterdir())
    for file in rng.sample(files, rng.randint(1, 3)):
        damage_file(file, rng)
    return place.train()


def weights(rng: Random, place: Place) -> Command:
    """A file of weights, damaged or replaced by something else."""
    file = place.folder / rng.choice(("weights.safetensors", "weights.pt", "weights.bin"))
    content = (PROJECT / "configs" / "models" / "tiny_clip.safetensors").read_bytes()
    file.write_bytes(content)
    damage_file(file, rng, ("bytes", "bytes", "bytes", *DAMAGE))
    return place.train("MODEL.BACKBONE.PRETRAINED", file.name)


def descriptions(rng: Random, place: Place) -> Command:
    """Descriptions of the classes, damaged."""
    write_tree(place.folder / "texts.json", {name: ["small", "has ears"] for name in CLASSES}, rng)
    return place.train("TRAINER.DESCRIPTIONS.MODE", rng.choice(("AS", "AE")), "TRAINER.DESCRIPTIONS.FILE", "texts.json")


def split(rng: Random, place: Place) -> Command:
    """A split file, damaged."""
    rows = [[f"{name}/{index}.png", label, name] for label, name in enumerate(CLASSES) for index in range(6)]
    write_tree(place.folder / "split.json", {"train": rows[::2], "val": [], "test": rows[1::2]}, rng)
    return place.train("DATASET.IMAGEFOLDER.SPLIT", "split.json")


def sheet(rng: Random, place: Place) -> Command:
    """A sheet of labels, damaged."""
    file = place.folder / "labels.csv"
    with file.open("w", newline="") as opened:
        rows = [(f"{name}{index}.png", name) for name in CLASSES for index in range(6)]
        csv.writer(opened).writerows([("path", "label"), *rows])
    file.write_bytes(damaged_bytes(file.read_bytes(), rng))
    names = ("DATASET.IMAGEFOLDER.CLASSES", "classes.txt")
    return place.train("--root", "flat", "DATASET.IMAGEFOLDER.LABELS", "labels.csv", *names)


def answers(rng: Random, place: Place) -> Command:
    """People's answers, as a sheet or as an export of Label Studio, damaged."""
    sheet, tasks = (place.folder / "asked" / QUERIES / f"round_000{end}" for end in (".csv", "_tasks.json"))
    if rng.random() < 0.5:
        sheet.write_bytes(damaged_bytes(sheet.read_bytes().replace(b".png,,", b".png,owl,"), rng))
        return place.ask()
    content = json.loads(tasks.read_text())
    for number, task in enumerate(content):
        result = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["owl"]}}
        task |= {"id": number, "annotations": [{"id": number, "was_cancelled": False, "result": [result]}]}
    write_tree(sheet.with_name("round_000_export.json"), content, rng)
    return place.ask()


def class_list(rng: Random, place: Place) -> Command:
    """A list of class names, damaged."""
    file = place.folder / rng.choice(("classes.txt", "classes.yaml", "classes.json"))
    file.write_bytes(damaged_bytes(("\n".join(CLASSES) if file.suffix == ".txt" else json.dumps(CLASSES)).encode(), rng))
    return place.train("DATASET.IMAGEFOLDER.CLASSES", file.name)


def paths(rng: Random, place: Place) -> Command:
    """A path, for any flag or key, that no system can hold, that leads to itself, or that holds something else."""
    odd = "odd"
    put_odd(place.folder / odd, rng.choice(("pipe", "socket", "folder", "loop", "endless", "dangling", "empty", "absent")))
    path = rng.choice((odd, odd, f"{odd}/below", rng.choice(NAMES), f"run/{rng.choice(NAMES)}"))
    flags = ("--root", "--output-dir", "--config-file", "--dataset-config-file", "CACHE_DIR", "OUTPUT_DIR",
             "DATASET.ROOT", "TRAINER.DESCRIPTIONS.FILE", "MODEL.BACKBONE.PRETRAINED", "DATASET.IMAGEFOLDER.SPLIT",
             "DATASET.IMAGEFOLDER.CLASSES")
    return rng.choice((
        *(place.train(flag, path, *(("TRAINER.DESCRIPTIONS.MODE", "AS") if "FILE" in flag else ())) for flag in flags),
        place.train("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", path), place.train("ACTIVE.PLUGINS", f"[{path!r}]"),
        place.train("DATASET.IMAGEFOLDER.CLASSES", "classes.txt", "DATASET.IMAGEFOLDER.LABELS", path),
        place.train("--eval-only", "--model-dir", path), place.train("--overwrite", "--output-dir", path),
        ("sweep", ["--config-file", path, "--list"]), ("sweep", ["--config-file", str(TINY), "--output-dir", path]),
        ("summarize", [path]), ("plot", [path]), ("plot", ["run", "--to", path]), ("report", [path]),
        ("report", ["run", "--to", path]), ("check", ["--config-file", path]),
        ("check", ["--root", path, "DATASET.NAME", "ImageFolder"]),
        ("check", ["--root", "photos", "--json", path, "DATASET.NAME", "ImageFolder"]),
        ("prepare", [path]), ("prepare", ["DTD", "--root", "run/results.json"]), ("verify", [path])))


def _reader(rng: Random, place: Place) -> Command:
    """Return a command that reads the finished run; drawing is rarer, since it takes seconds."""
    common = (("summarize", ["run"]), place.train(output="run"), place.train("ACTIVE.ROUNDS", 2, output="run"),
              place.train("--eval-only", "--model-dir", "run"), place.train("--overwrite", output="run"),
              place.train("ACTIVE.SAMPLER", "replay", "ACTIVE.REPLAY.RESULTS", "run/results.json"))
    rare = (("plot", ["run"]), ("report", ["run"]))
    return rng.choice(common if rng.random() < 0.9 else rare)


def _value(default: Any, rng: Random) -> str:
    """Return a word for a key of the command line: mostly of the type of its default, and sometimes within its bounds."""
    if rng.random() < 0.2:
        return str(damaged_value(rng))
    if isinstance(default, bool):
        return rng.choice(("true", "false"))
    if isinstance(default, (int, float)):
        return str(type(default)(default * rng.choice((0, 0.01, 0.5, 2, 10, 1000)) + rng.choice((0, 0, 1, -1, 0.1))))
    if isinstance(default, str):
        return rng.choice([default, *(value for value in VALUES if isinstance(value, str))])
    items = (0, 0.5, 1, 5, -1, "normalize", "random_flip", "random_resized_crop")
    return str(rng.choices(items, k=rng.randint(0, 3)))


def _yaml(tree: dict, rng: Random) -> bytes:
    if rng.random() < 0.3:
        return damaged_bytes(yaml.safe_dump(tree).encode(), rng)
    return yaml.safe_dump(damaged_tree(tree, rng)).encode()


KINDS: dict[str, Callable[[Random, Place], Command]] = {kind.__name__: kind for kind in (
    line, config, experiment, record, odd_record, sweep_notes, prompts, images, used, cache, weights, descriptions, split,
    sheet, answers, class_list, paths)}
