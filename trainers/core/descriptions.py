"""Description augmentation: several texts a class, brought together by one averaging matrix.

Source: Bang et al., "Active Prompt Learning in Vision Language Models", CVPR 2024, Section 3.3: AS (average score) and AE
(average embedding). Behind the learned context stands, by `TRAINER.DESCRIPTIONS.FORM`,
- `verb`: "{name}, which is {descriptor}." or "has", the verb chosen by the descriptor's first word as in Menon and Vondrick,
  "Visual Classification via Description from Large Language Models", ICLR 2023;
- `is/has`: literally "{name}, which is/has {descriptor}.", the text of PCB's code.
"""

from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from dassl.data.dataset import Dataset
from dassl.utils.errors import ConfigError, DataError
from dassl.utils.files import read_json
from dassl.utils.paths import expanded
from trainers.core.prompts import Averaging, ClassTexts
from trainers.core.token_rows import readable


def check_descriptions(cfg: CfgNode) -> None:
    """Raise ConfigError unless a `TRAINER.DESCRIPTIONS` node has a file exactly if its mode wants one."""
    if cfg.MODE != "none" and not cfg.FILE:
        raise ConfigError(f"TRAINER.DESCRIPTIONS.MODE is {cfg.MODE}, but TRAINER.DESCRIPTIONS.FILE is not set")
    if cfg.MODE == "none" and cfg.FILE:
        raise ConfigError("TRAINER.DESCRIPTIONS.FILE is set, but TRAINER.DESCRIPTIONS.MODE is none; set it to AS or AE")


def build_texts(cfg: CfgNode, dataset: Dataset | ClassTexts) -> ClassTexts:
    """Return the texts of a data set, or of its class names and template, under a `TRAINER.DESCRIPTIONS` node."""
    if cfg.MODE == "none":
        return ClassTexts(dataset.classnames, dataset.template)
    descriptors = read_descriptions(expanded(cfg.FILE), dataset.classnames)
    phrases = tuple(described(name, text, cfg.FORM)
                    for name, texts in zip(dataset.classnames, descriptors, strict=True) for text in texts)
    matrix = torch.block_diag(*(torch.full((1, len(texts)), 1 / len(texts), dtype=torch.float64) for texts in descriptors))
    return ClassTexts(dataset.classnames, dataset.template, phrases, Averaging(matrix, normalize=cfg.MODE == "AE"))


def read_descriptions(file: Path, classnames: tuple[str, ...]) -> list[list[str]]:
    """Return the descriptors of each class from a JSON file, class name to list of strings.

    Names are compared in lower case with underscores as spaces. Raises one DataError that lists every fault of the file:
    missing classes, two entries for one class, values that are no list of strings, empty lists and empty strings.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file}: must map class names to lists of descriptions")
    faults, entries = [], {}
    for name, texts in content.items():
        if _folded(name) in entries:
            faults.append(f"{name!r} stands twice (case and underscores do not count)")
        entries[_folded(name)] = texts
        faults += _faults(name, texts)
    faults += [f"class {name!r} has no entry" for name in classnames if _folded(name) not in entries]
    if faults:
        raise DataError(f"{file}: {len(faults)} faults:\n  " + "\n  ".join(faults))
    return [entries[_folded(name)] for name in classnames]


def described(name: str, descriptor: str, form: str) -> str:
    """Return what follows the context, such as "banded, which has dark stripes" (the period is added with the row)."""
    if form == "is/has":
        return f"{readable(name).lower()}, which is/has {descriptor}"
    first = descriptor.split()[0].lower()
    verb = {"a": "is ", "an": "is ", "used": "is ", **dict.fromkeys(("has", "often", "typically", "may", "can", "is"), "")}
    return f"{readable(name).lower()}, which {verb.get(first, 'has ')}{descriptor.strip().rstrip('.')}"


def _folded(name: str) -> str:
    return readable(name).lower().strip()


def _faults(name: str, texts: Any) -> list[str]:
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return [f"{name!r} must hold a list of strings"]
    if not texts:
        return [f"{name!r} holds an empty list"]
    return [f"{name!r} holds an empty description"] * any(not text.strip() for text in texts)
