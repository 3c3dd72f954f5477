"""From an experiment's YAML file to its cells: one run for each data set, learner, backbone, query size, sampler and seed.

    OUTPUT_DIR: output/tiny              # runs go to <data set>/<learner>/<backbone>/[<query size>/]<sampler>/seed<N> below it
    CONFIG_FILES: [configs/quickstart.yaml]              # merged first, for all cells
    DATASETS: [dtd, eurosat]             # configs/datasets/<name>.yaml, or the name of a data set
    LEARNERS: [CoOp, VPT]                # with BACKBONES: configs/trainers/<learner>/<backbone>.yaml
    BACKBONES: [vit_b16]
    SAMPLERS:                            # configs/active/<name>.yaml, or the name of a sampler
      - badge
      - pcb_entropy: {ACTIVE: {SAMPLER: pcb, PCB: {BASE: entropy}}}
    SEEDS: [1, 2, 3]
    QUERY_SIZES: ["1%", per_class]       # optional; else as the files say
    FULL_LABELS: true                    # optional: also a method `full`, trained once on all labels, for reference
    OVERRIDES: {OPTIM: {LR: 0.01}}       # optional; wins over the files, and an entry's own keys win over it

An entry of a list is a name, or a name with its own keys, as above. The name is used for folders, and for learners and
samplers in tables.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from dassl.config.cli import Pairs
from dassl.config.merge import leaves
from dassl.config.reading import read_yaml
from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError, did_you_mean
from dassl.utils.paths import exists, is_file

LISTS = ("DATASETS", "LEARNERS", "BACKBONES", "SAMPLERS", "SEEDS")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+%-]*")
OPTIONAL = {"CONFIG_FILES": [], "QUERY_SIZES": [], "FULL_LABELS": False, "OVERRIDES": {}}
FOLDERS = {"DATASETS": "configs/datasets", "SAMPLERS": "configs/active"}
NAME_KEYS = {"DATASETS": "DATASET.NAME", "SAMPLERS": "ACTIVE.SAMPLER"}
FULL, ZERO_SHOT = "full", "zero-shot"  # rows of tables beside the samplers; FULL_LABELS adds the first as a method
FULL_KEYS = {"ACTIVE": {"SAMPLER": "random", "INITIAL_SAMPLER": "auto", "SELECTOR_TRAINER": "", "ROUNDS": 1,
                        "QUERY_SIZE": "100%"}}

# Keys that differ from cell to cell, and where they come from.
OWN_KEYS = {"OUTPUT_DIR": "OUTPUT_DIR at the top of the file, or --output-dir", "SEED": "the list SEEDS",
            "LABEL.METHOD": "the names in SAMPLERS", "LABEL.LEARNER": "the names in LEARNERS"}


@dataclass(frozen=True)
class Cell:
    """One run: its name (dtd/CoOp/vit_b16/badge/seed1), its output folder and the words that `train.py` takes for it."""

    name: str
    folder: Path
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that runs this cell alone."""
        return shlex.join(["python", "train.py", *self.words])


@dataclass(frozen=True)
class _Entry:
    """One name of a list, with the config files behind it and its own keys."""

    name: str
    files: tuple[str, ...]
    pairs: Pairs


def read_experiment(path: str | Path, *, output: str | None = None, pairs: Pairs = ()) -> tuple[Path, list[Cell]]:
    """Return an experiment's output folder and cells, with cells that read the same images and weights side by side.

    `output` replaces the file's OUTPUT_DIR; `pairs` are given to every cell and override everything except the lists.
    Raises ConfigError, naming file and key, for anything that is not an experiment.
    """
    source, tree = str(path), _checked(read_yaml(path), str(path))
    folder = Path(output or tree["OUTPUT_DIR"])
    _check_settings("the command line", pairs, tree)
    datasets, samplers = ([_entry(key, item, source) for item in tree[key]] for key in ("DATASETS", "SAMPLERS"))
    variants = list(product(tree["QUERY_SIZES"] or [None], samplers))
    if tree["FULL_LABELS"]:
        variants.append((None, _Entry(FULL, (), [])))
    common, cells = [_shown(Path(file)) for file in tree["CONFIG_FILES"]], []
    for backbone, dataset, seed, learner, (size, sampler) in product(
            tree["BACKBONES"], datasets, tree["SEEDS"], tree["LEARNERS"], variants):
        entries = [dataset, _learner(learner, backbone, source), sampler]
        parts = [dataset.name, entries[1].name, backbone, *([str(size)] if size else []), sampler.name, f"seed{seed}"]
        own = [pair for entry in entries for pair in entry.pairs] + ([("ACTIVE.QUERY_SIZE", str(size))] if size else [])
        label = [("LABEL.METHOD", sampler.name), ("LABEL.LEARNER", entries[1].name)]
        fixed = _pairs(FULL_KEYS) if sampler.name == FULL else []
        settings = [*_pairs(tree["OVERRIDES"]), *own, *pairs, *fixed, ("SEED", str(seed)), *label]
        files = [*common, *(file for entry in entries for file in entry.files)]
        words = ["--config-file", *files, "--output-dir", str(folder.joinpath(*parts))]
        words += [word for pair in settings for word in pair]
        cells.append(Cell("/".join(parts), folder.joinpath(*parts), tuple(words)))
    return folder, cells


def _checked(tree: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the tree of a file, with defaults for what it leaves out; raises ConfigError."""
    known = {"OUTPUT_DIR": "", **{key: [] for key in LISTS}, **OPTIONAL}
    for key, value in tree.items():
        if key not in known:
            raise ConfigError(f"{source}: unknown key {key}; {did_you_mean(key, known)}")
        if type(value) is not type(known[key]):
            raise ConfigError(f"{source}: {key} must be a {type(known[key]).__name__}, not {type(value).__name__} {value!r}")
    for key in ("OUTPUT_DIR", *LISTS):
        if not tree.get(key):
            raise ConfigError(f"{source}: {key} is missing or empty")
    for key in (*LISTS, "QUERY_SIZES", "CONFIG_FILES"):
        names = [_name(item) for item in tree.get(key, [])]
        if len(set(names)) != len(names):
            raise ConfigError(f"{source}: {key} names {next(name for name in names if names.count(name) > 1)} twice")
        for name in names if key != "CONFIG_FILES" else ():
            if not NAME.fullmatch(name):
                raise ConfigError(f"{source}: {key} holds {name!r}, which cannot be the name of a folder; write NAME: {{KEYS}}")
    if taken := {*map(_name, tree["SAMPLERS"])} & {FULL, ZERO_SHOT}:
        raise ConfigError(f"{source}: SAMPLERS holds {min(taken)!r}, which is the name of a line of its own in tables")
    for file in tree.get("CONFIG_FILES", []):
        if not isinstance(file, str) or not is_file(_shown(Path(file))):
            raise ConfigError(f"{source}: CONFIG_FILES holds {file}, which is not a file")
    if bad := [seed for seed in tree["SEEDS"] if type(seed) is not int or seed < 0]:
        raise ConfigError(f"{source}: SEEDS holds {bad[0]!r}, but seeds are integers of at least 0")
    tree = OPTIONAL | tree
    _check_settings(f"{source}: OVERRIDES", _pairs(tree["OVERRIDES"]), tree)
    for name in LISTS:
        for item in tree[name]:
            _check_settings(f"{source}: {name}", _own(name, item, source), tree)
    return tree


def _check_settings(where: str, pairs: Pairs, tree: Mapping[str, Any]) -> None:
    """Raise ConfigError if keys for all cells are among those that differ from cell to cell."""
    own = OWN_KEYS | ({"ACTIVE.QUERY_SIZE": "the list QUERY_SIZES"} if tree["QUERY_SIZES"] else {})
    for key, _ in pairs:
        if key in own:
            raise ConfigError(f"{where} sets {key}, but each cell has its own, from {own[key]}")


def _entry(key: str, item: str | Mapping[str, Any], source: str) -> _Entry:
    """Return an entry of DATASETS or SAMPLERS: by its config file, or by the name of the component, with its own keys."""
    name, own = _name(item), _own(key, item, source)
    file = Path(FOLDERS[key]) / f"{name}.yaml"
    if exists(PROJECT / file):
        return _Entry(name, (_shown(file),), own)
    return _Entry(name, (), own if NAME_KEYS[key] in dict(own) else [(NAME_KEYS[key], name), *own])


def _learner(item: str | Mapping[str, Any], backbone: str, source: str) -> _Entry:
    """Return an entry of LEARNERS on a backbone; raises ConfigError if there is no config file for the two."""
    name, own = _name(item), _own("LEARNERS", item, source)
    learner = dict(own).get("TRAINER.NAME", name)
    file = Path("configs/trainers") / learner / f"{backbone}.yaml"
    if not exists(PROJECT / file):
        known = sorted(path.relative_to(PROJECT / "configs/trainers").with_suffix("").as_posix()
                       for path in (PROJECT / "configs/trainers").rglob("*.yaml"))
        raise ConfigError(f"{source}: there is no {file}; {did_you_mean(f'{learner}/{backbone}', known)}")
    return _Entry(name, (_shown(file),), own)


def _name(item: object) -> str:
    return str(next(iter(item)) if isinstance(item, Mapping) and item else item)


def _own(key: str, item: str | Mapping[str, Any], source: str) -> Pairs:
    """Return the keys after a name in a list."""
    if not isinstance(item, Mapping):
        return []
    own = next(iter(item.values()))
    if len(item) != 1 or not isinstance(own, Mapping):
        raise ConfigError(f"{source}: {key} holds {item!r}, but an entry is a name or NAME: {{KEYS}}")
    return _pairs(own)


def _pairs(tree: Mapping[str, Any]) -> Pairs:
    """Return a nested mapping as KEY VALUE pairs."""
    return [(key, str(value)) for key, value in leaves(tree).items()]


def _shown(file: Path) -> str:
    """Return a file of the project by the shortest path from the working folder."""
    return str(file if exists(file) else PROJECT / file)
