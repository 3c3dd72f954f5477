"""Weights files: reading tensors without running anything, and saying what a file is that holds none of CLIP's."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dassl.utils.files import read_json
from dassl.utils.paths import is_file, open_file

OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")  # beside the weights in OpenAI's state dicts
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "clip.")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_state(file: Path, elsewhere: Callable[[], str]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or a pickled state dict; nothing in it is executed.

    OpenAI's released .pt files are programs (TorchScript) and are refused; `elsewhere()` says where the same weights are to be
    had as data, "" if nowhere. Raises ValueError for a file that is something else, naming it.
    """
    with open_file(file) as opened:
        is_pointer = opened.read(len(LFS_POINTER)) == LFS_POINTER
    if is_pointer:
        raise ValueError("the file is a Git LFS pointer and not the weights; `git lfs pull` in its checkout fetches them")
    if _is_program(file):
        raise ValueError(f"the file is a program (TorchScript), and programs are not run{elsewhere()}")
    state = _unwrapped(load_file(file) if file.suffix == ".safetensors" else _unpickled(file))
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("the file holds something else than tensors by name; save the state dict of the model")
    while own := [prefix for prefix in PREFIXES if all(key.startswith(prefix) or key in OPENAI_NUMBERS for key in state)]:
        state = {key.removeprefix(own[0]): value for key, value in state.items()}
    if kind := _other_kind(state):
        raise ValueError(kind)
    return state


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
    """Return what a state dict is and what to do, if it is of a known kind that is not open_clip's or OpenAI's; else ""."""
    if any(key.startswith(("text_model.encoder.", "vision_model.encoder.")) for key in state):
        return ("they are in the format of transformers (CLIPModel); take the same weights in open_clip's format, by a tag of "
                "`open_clip.list_pretrained()` or as open_clip_model.safetensors")
    if any(key.split(".")[-1] in ("ctx", "token_prefix", "token_suffix") or key.startswith("prompt_learner.") for key in state):
        return ("they are the prompts of a CoOp or MaPLe checkpoint, which cannot be read, and not CLIP's weights; name these "
                "here, or the tag openai")
    if any(key.startswith("clip.") for key in state):
        return "they are of a model around a CLIP (clip.* and others); save the state dict of its CLIP alone"
    return ""


def said_of(file: Path) -> dict[str, dict]:
    """Return what is said of a weights file: open_clip's `preprocess_cfg` and `model_cfg`, as far as they are there.

    They are JSON in the safetensors metadata, or stand in an `open_clip_config.json` beside the file.
    """
    beside, said = file.with_name("open_clip_config.json"), {}
    if is_file(beside):
        said |= read_json(beside)
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as weights:
            metadata = weights.metadata() or {}
        said |= {key: json.loads(metadata[key]) for key in ("preprocess_cfg", "model_cfg") if key in metadata}
    return said


def load_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load a state dict of open_clip's or OpenAI's; raises ValueError if it is of another architecture."""
    state = {key: value for key, value in state.items() if key not in OPENAI_NUMBERS}
    own = model.state_dict()
    if hasattr(model, "text"):
        state = {key if key in own or f"text.{key}" not in own else f"text.{key}": value for key, value in state.items()}
    other = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    missing, unknown = own.keys() - state.keys(), state.keys() - own.keys()
    if other or missing or unknown:
        worst = min(other or missing or unknown)
        raise ValueError(f"they are of another architecture: {len(other)} tensors have other shapes, {len(missing)} are "
                         f"missing, {len(unknown)} are unknown, such as {worst}")
    model.load_state_dict(state)


def _is_program(file: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    return zipfile.is_zipfile(file) and any(name.endswith("/constants.pkl") for name in zipfile.ZipFile(file).namelist())
