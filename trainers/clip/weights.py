"""Weights files: reading tensors without running anything, and saying what a file is that holds none of CLIP's."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from dassl.utils.files import read_json
from dassl.utils.paths import is_file, open_file
from trainers.clip.architectures import OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG
from trainers.clip.sources import INDEX, merged
from trainers.clip.transformers_format import architecture, preprocessing
from trainers.clip.transformers_keys import is_siglip, is_transformers, to_open_clip

OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")  # beside the weights in OpenAI's state dicts
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "clip.")
MAPPED = 8  # tensors, of which the largest by far is the one of all tokens
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
PROCESSORS = {"preprocessor_config.json": None, "processor_config.json": "image_processor"}  # where in it the images' stands


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by open_clip's names, and what is said of them: `preprocess_cfg` and `model_cfg`, as far as they are there."""

    state: dict[str, Tensor]
    said: dict[str, dict]
    of_transformers: bool = False


def read_checkpoint(file: Path, elsewhere: Callable[[], str] = str) -> Checkpoint:
    """Return the tensors of a safetensors file, a pickled state dict or an index of either; nothing in it is executed.

    OpenAI's released .pt files are programs (TorchScript) and are refused; `elsewhere()` says where the same weights are to be
    had as data, "" if nowhere. Raises ValueError for a file that is something else, naming it.
    """
    state = _unwrapped(_of_shards(file, elsewhere) if file.name.endswith(INDEX) else _of_file(file, elsewhere))
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("the file holds something else than tensors by name; save the state dict of the model")
    while own := [prefix for prefix in PREFIXES if all(key.startswith(prefix) or key in OPENAI_NUMBERS for key in state)]:
        state = {key.removeprefix(own[0]): value for key, value in state.items()}
    if kind := _other_kind(state):
        raise ValueError(kind)
    if is_transformers(state):
        said = _said_by_transformers(file.parent, "siglip" if is_siglip(state) else "clip")
        return Checkpoint(to_open_clip(state), said, of_transformers=True)
    return Checkpoint(state, _said_by_open_clip(file))


def _of_file(file: Path, elsewhere: Callable[[], str]) -> Any:
    with open_file(file) as opened:
        is_pointer = opened.read(len(LFS_POINTER)) == LFS_POINTER
    if is_pointer:
        raise ValueError("the file is a Git LFS pointer and not the weights; `git lfs pull` in its checkout fetches them")
    if _is_program(file):
        raise ValueError(f"the file is a program (TorchScript), and programs are not run{elsewhere()}")
    return _copied(file) if file.suffix == ".safetensors" else _unpickled(file)


def _copied(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, so that it may change from now on.

    It is mapped into memory a part at a time, so that no more than a part of it is there twice.
    """
    with safe_open(file, "pt") as weights:
        names = list(weights.keys())
    found = {}
    for start in range(0, len(names), MAPPED):
        with safe_open(file, "pt") as weights:
            found |= {name: weights.get_tensor(name).clone() for name in names[start:start + MAPPED]}
    return found


def _of_shards(index: Path, elsewhere: Callable[[], str]) -> dict[str, Tensor]:
    """Return the tensors that an index lists, from the files beside it."""
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
        raise ValueError("the index has no weight_map from tensors to files beside it")
    files = sorted(set(places.values()))
    if missing := [name for name in files if not is_file(index.parent / name)]:
        raise ValueError(f"{len(missing)} of the {len(files)} files that the index lists are missing, first {missing[0]}")
    held = {name: _of_file(index.parent / name, elsewhere) for name in files}
    if missing := sorted(key for key, name in places.items() if key not in held[name]):
        raise ValueError(f"{len(missing)} tensors that the index lists are not in their files, first {missing[0]}")
    return {key: held[name][key] for key, name in places.items()}


def _unpickled(file: Path) -> Any:
    """Return what a file of `torch.save` holds; torch's own words for another file advise to run what is in it."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # an unpickler raises whatever the bytes lead it to
        raise ValueError("the file is neither safetensors (known by its suffix .safetensors) nor a state dict of torch.save "
                         "with tensors alone") from error


def _unwrapped(content: Any) -> Any:
    """Return the innermost state dict of what training code saves it in."""
    while isinstance(content, dict) and (inner := [content[key] for key in WRAPPERS if isinstance(content.get(key), dict)]):
        content = inner[0]
    return content


def _other_kind(state: dict[str, Tensor]) -> str:
    """Return what a state dict is and what to do, if it is of a known kind that is no whole CLIP; else ""."""
    if any(".lora_" in key or key.startswith("base_model.") for key in state):
        return f"they are those of a LoRA adapter, or hold one; {merged()}"
    if any(key.split(".")[-1] in ("ctx", "token_prefix", "token_suffix") or key.startswith("prompt_learner.") for key in state):
        return ("they are the prompts of a CoOp or MaPLe checkpoint, which cannot be read, and not CLIP's weights; name these "
                "here, or the tag openai")
    if any(key.startswith("clip.") for key in state):
        return "they are of a model around a CLIP (clip.* and others); save the state dict of its CLIP alone"
    return ""


def _said_by_open_clip(file: Path) -> dict[str, dict]:
    """Return what is said of a weights file: open_clip's `preprocess_cfg` and `model_cfg`, as far as they are there.

    They are JSON in the safetensors metadata, or stand in an `open_clip_config.json` beside the file.
    """
    beside, said = file.with_name(OPEN_CLIP_CONFIG), {}
    if is_file(beside):
        said |= read_json(beside)
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as weights:
            metadata = weights.metadata() or {}
        said |= {key: json.loads(metadata[key]) for key in ("preprocess_cfg", "model_cfg") if key in metadata}
    return said


def _said_by_transformers(folder: Path, kind: str) -> dict[str, dict]:
    """Return what the JSON files of transformers beside weights say, in open_clip's words; of images always something."""
    processor = {}
    for name, part in PROCESSORS.items():
        if not processor and is_file(folder / name):
            content = read_json(folder / name)
            processor = content.get(part, {}) if part else content
    said = {"preprocess_cfg": preprocessing(kind, processor)}
    if is_file(folder / TRANSFORMERS_CONFIG):
        said["model_cfg"] = architecture(read_json(folder / TRANSFORMERS_CONFIG))
    return said


def named_as(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by the names that a model has for them: with `text.` before those of a text tower of its own."""
    state = {key: value for key, value in state.items() if key not in OPENAI_NUMBERS}
    own = model.state_dict()
    if hasattr(model, "text"):
        state = {key if key in own or f"text.{key}" not in own else f"text.{key}": value for key, value in state.items()}
    return state


def misfit(model: nn.Module, state: dict[str, Tensor]) -> str:
    """Return by what tensors, named as the model's, are of another architecture; "" if they are not."""
    own = model.state_dict()
    other = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    if not (other or missing or unknown):
        return ""
    worst = min(other or missing or unknown)
    return (f"they are of another architecture: {len(other)} tensors have other shapes, {len(missing)} are missing, "
            f"{len(unknown)} are unknown, such as {worst}")


def _is_program(file: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    return zipfile.is_zipfile(file) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(file).namelist())
