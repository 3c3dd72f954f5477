"""Names and architectures of CLIPs, read from their JSON files: nothing is loaded, and open_clip is not imported."""

import importlib.util
import json
from pathlib import Path

from dassl.utils.environment import PROJECT

OPENAI_NAMES = {"ViT-B/32": "ViT-B-32-quickgelu", "ViT-B/16": "ViT-B-16-quickgelu", "ViT-L/14": "ViT-L-14-quickgelu",
                "RN50": "RN50-quickgelu", "RN101": "RN101-quickgelu"}
MODEL_FOLDER = PROJECT / "configs" / "models"
LAYERS = 12  # of a tower whose JSON file does not say: open_clip's default


def custom_models() -> dict[str, Path]:
    """Return the JSON files of this project's own backbones, by name."""
    return {path.stem: path for path in sorted(MODEL_FOLDER.glob("*.json"))}


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


def _config(name: str) -> dict:
    """Return the content of a backbone's JSON file, nothing for an unknown one."""
    file = custom_models().get(name, _open_clip_folder() / f"{OPENAI_NAMES.get(name, name).replace('/', '-')}.json")
    return json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _open_clip_folder() -> Path:
    return Path(importlib.util.find_spec("open_clip").origin).parent / "model_configs"
