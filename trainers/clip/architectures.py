"""Names and architectures of CLIPs, read from their JSON files: nothing is loaded, and open_clip is not imported.

A backbone's name is OpenAI's, open_clip's, the stem of a file in `configs/models`, or a folder of a checkpoint, with or without
open_clip's `local-dir:` before it.
"""

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from dassl.utils.environment import PROJECT
from dassl.utils.files import read_json
from dassl.utils.paths import expanded, is_file, is_folder
from trainers.clip.transformers_format import architecture

OPENAI_NAMES = {"ViT-B/32": "ViT-B-32-quickgelu", "ViT-B/16": "ViT-B-16-quickgelu", "ViT-L/14": "ViT-L-14-quickgelu",
                "RN50": "RN50-quickgelu", "RN101": "RN101-quickgelu"}
MODEL_FOLDER = PROJECT / "configs" / "models"
LAYERS = 12  # of a tower whose JSON file does not say: open_clip's default
LOCAL = "local-dir:"
OPEN_CLIP_CONFIG, TRANSFORMERS_CONFIG = "open_clip_config.json", "config.json"


def custom_models() -> dict[str, Path]:
    """Return the JSON files of this project's own backbones, by name."""
    return {path.stem: path for path in sorted(MODEL_FOLDER.glob("*.json"))}


def model_file(name: str) -> Path:
    """Return the JSON file of a backbone by OpenAI's, open_clip's or this project's name; there is none for another one."""
    return custom_models().get(name, open_clip_folder() / f"{OPENAI_NAMES.get(name, name).replace('/', '-')}.json")


@functools.cache
def open_clip_models() -> dict[str, Path]:
    """Return open_clip's JSON files by name, as the package had them when it was first read."""
    return {path.stem: path for path in sorted(open_clip_folder().glob("*.json"))}


def named_folder(name: str) -> Path | None:
    """Return the folder that a backbone's name stands for, looked up as weights are; None for another name."""
    if not name.removeprefix(LOCAL) or any(name in known for known in (OPENAI_NAMES, open_clip_models(), custom_models())):
        return None
    path = found(name.removeprefix(LOCAL))
    return path if path is not None and is_folder(path) else None


def found(path: str) -> Path | None:
    """Return what lies at a path, looked up from the working folder and then from the project's; None if nothing does."""
    return next((place for place in (expanded(path), PROJECT / path) if is_file(place) or is_folder(place)), None)


def folder_architecture(folder: Path) -> dict[str, Any]:
    """Return the architecture that the JSON of a folder says, open_clip's or transformers'; raises ValueError or DataError."""
    if is_file(folder / OPEN_CLIP_CONFIG):
        config = read_json(folder / OPEN_CLIP_CONFIG)
        if isinstance(config, dict) and isinstance(own := config.get("model_cfg"), dict) and "text_cfg" in own:
            return own
        raise ValueError(f"{folder / OPEN_CLIP_CONFIG} has no model_cfg")
    if not is_file(folder / TRANSFORMERS_CONFIG):
        raise ValueError(f"{folder} has neither {OPEN_CLIP_CONFIG} nor transformers' {TRANSFORMERS_CONFIG}")
    return architecture(read_json(folder / TRANSFORMERS_CONFIG))


def tower_depths(name: str) -> dict[str, int]:
    """Return the number of blocks of the towers "text" and "image" of a backbone; nothing for an unknown one.

    A tower that takes no prompts, such as a ResNet, is left out, and so is one of timm's, whose file does not say. A text tower
    of transformers has one, since it takes prompts at its entry alone.
    """
    config = _config(name)
    nodes = {"text": config.get("text_cfg"), "image": config.get("vision_cfg")}
    depths = {tower: node.get("layers", LAYERS) for tower, node in nodes.items() if node is not None}
    if "timm_model_name" in config.get("vision_cfg", {}):
        del depths["image"]
    if "hf_model_name" in config.get("text_cfg", {}):
        depths["text"] = 1
    return {tower: depth for tower, depth in depths.items() if isinstance(depth, int)}


def needs_transformers(name: str) -> bool:
    """Tell whether a backbone's tokenizer or text tower is one of transformers."""
    return bool({"hf_model_name", "hf_tokenizer_name"} & _config(name).get("text_cfg", {}).keys())


def _config(name: str) -> dict[str, Any]:
    """Return the architecture of a backbone, nothing for an unknown one."""
    folder, file = named_folder(name), model_file(name)
    if folder is not None:
        return folder_architecture(folder)
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


@functools.cache
def open_clip_folder() -> Path:
    """Return the folder of open_clip's JSON files."""
    return Path(importlib.util.find_spec("open_clip").origin).parent / "model_configs"
