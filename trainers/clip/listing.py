"""A table of all backbones: names, sizes, tags, and which weights are on this disk. It imports no torch."""

import functools
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from huggingface_hub import constants
from tabulate import tabulate

from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError
from dassl.utils.files import read_json
from dassl.utils.imports import hidden
from trainers.clip.architectures import OPENAI_NAMES, custom_models, open_clip_folder, open_clip_models
from trainers.clip.sources import SUFFIXES, cached_tag

HEADERS = ("name", "image", "features", "tokens", "weights")
LENGTH, SIDE = 77, 224  # of an architecture that does not say
NAMES = "_names_of_open_clip"


def backbones(word: str = "") -> str:
    """Return the table of the backbones with a word in their name or a tag, in any case; ConfigError if there are none."""
    found = [row for row in _rows() if word.lower() in f"{row[0]} {row[-1]}".lower()]
    if not found:
        raise ConfigError(f"no backbone has {word!r} in its name or a tag; --list-backbones without a word prints all")
    return (tabulate(found, HEADERS) + "\n\nimage: pixels a side; features: their width; tokens: of a text; weights: files and "
            f"tags, with * where they are on this disk (in Hugging Face's cache: {constants.HF_HUB_CACHE})")


@functools.cache
def _rows() -> list[tuple[str, ...]]:
    names = open_clip_models()
    full = {name: names[own] for name, own in OPENAI_NAMES.items()} | names
    found = [_row(name, read_json(file), _tags(OPENAI_NAMES.get(name, name))) for name, file in full.items()]
    return [_row(name, read_json(file), _files(file)) for name, file in custom_models().items()] + found


def _row(name: str, architecture: Mapping[str, Any], weights: str) -> tuple[str, ...]:
    size = architecture["vision_cfg"].get("image_size", SIDE)
    image = " x ".join(map(str, size)) if isinstance(size, list) else str(size)
    return name, image, str(architecture["embed_dim"]), str(architecture["text_cfg"].get("context_length", LENGTH)), weights


def _tags(name: str) -> str:
    known = _pretrained()
    sources = {tag: known.get_pretrained_cfg(name, tag) for tag in known.list_pretrained_tags_by_model(name)}
    return " ".join(f"{tag}{'*' if cached_tag(source) else ''}" for tag, source in sources.items())


def _files(architecture: Path) -> str:
    """Return the weights files of one of this project's own backbones."""
    files = (architecture.with_suffix(suffix) for suffix in SUFFIXES)
    return " ".join(f"{file.relative_to(PROJECT)}*" for file in files if file.is_file())


@functools.cache
def _pretrained() -> ModuleType:
    """Return open_clip's module of tags, which needs no torch, without the package around it, which does."""
    package = sys.modules[NAMES] = ModuleType(NAMES)
    package.__path__ = [str(open_clip_folder().parent)]
    with hidden("safetensors.torch"):
        return importlib.import_module(f"{NAMES}.pretrained")
