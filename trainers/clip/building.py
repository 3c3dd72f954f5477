"""Models of open_clip from an architecture, and the names whose architecture some weights have."""

import contextlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainers.clip.library import open_clip, use_transformers
from trainers.clip.weights import misfit, named_as

Architecture = Mapping[str, Any]
BLOCKS = re.compile(r"(?:text\.)?transformer\.resblocks\.(\d+)\.")
LEAST_TEXT = {"layers": 1, "width": 64, "heads": 1}
LISTED = 3  # names that an error gives
DRAWING = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.trunc_normal_}


def build(
    architecture: Architecture, preprocessing: Mapping[str, Any], device: str | torch.device, precision: str
) -> nn.Module:
    """Return the model of an architecture, of random weights, as open_clip builds that of a folder."""
    give_transformers(architecture)
    config = deepcopy(dict(architecture))
    with tempfile.TemporaryDirectory() as folder, quiet_root():
        if (arguments := config["vision_cfg"].pop("timm_args", None)) is not None:  # timm reads these from a folder alone
            trunk = {"architecture": config["vision_cfg"]["timm_model_name"], "pretrained_cfg": {}, "model_args": arguments}
            Path(folder, "config.json").write_text(json.dumps(trunk))
            config["vision_cfg"]["timm_model_name"] = f"local-dir:{folder}"
        Path(folder, "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        return open_clip.create_model(f"local-dir:{folder}", load_weights=False, device=device, precision=precision,
                                      pretrained_hf=False, force_preprocess_cfg=dict(preprocessing))


class NotDrawn(TorchFunctionMode):
    """Leaves new weights as memory was where they would be drawn at random: for a model that gets all of them from a file."""

    def __torch_function__(self, function: Callable, types: Any, arguments: tuple = (), named: dict | None = None) -> Any:
        if function in DRAWING:
            return arguments[0] if arguments else named["tensor"]
        return function(*arguments, **(named or {}))


def give_transformers(architecture: Architecture) -> None:
    """Let open_clip have transformers if an architecture's text tower is one of its models."""
    if "hf_model_name" in architecture["text_cfg"]:
        use_transformers()


@contextlib.contextmanager
def quiet_root() -> Iterator[None]:
    """Keep open_clip from warning that a model has no weights yet; they come from a file in the next line."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a state dict of open_clip's or OpenAI's; raises ValueError with names that fit if this model is another one."""
    found = named_as(model, dict(state))
    if fault := misfit(model, found):
        raise ValueError(f"{fault}; {fits(state)}")
    alike = {name: found[name].to(own.device, own.dtype) for name, own in model.state_dict().items()}
    model.load_state_dict(alike, assign=True)


def same(one: Architecture, other: Architecture) -> bool:
    """Return whether two architectures compute the same, however much of them is left to open_clip's defaults."""
    return _whole(one) == _whole(other)


def _whole(architecture: Architecture) -> dict[str, Any]:
    whole = {"quick_gelu": False, "custom_text": False, "init_logit_bias": None} | architecture
    parts = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg}
    for name, kind in parts.items():
        whole[name] = {field.name: field.default for field in fields(kind)} | architecture[name]
    return whole


def misfit_of(architecture: Architecture, state: Mapping[str, Tensor]) -> str:
    """Return by what tensors do not fit an architecture, "" if they do; nothing is computed, nor held in memory."""
    model = _on_meta(architecture)
    return misfit(model, named_as(model, dict(state)))


def fits(state: Mapping[str, Tensor]) -> str:
    """Return of which of open_clip's names the tensors are, those with QuickGELU last, or what to do if they are of none."""
    found = []
    for name in sorted(open_clip.list_models(), key=lambda name: name.endswith("-quickgelu")):
        config = open_clip.get_model_config(name)
        if len(found) < LISTED and _may_fit(config, state) and not misfit_of(config, state):
            found.append(name)
    return (f"they fit MODEL.BACKBONE.NAME {' or '.join(found)}" if found else
            "they fit no name; a folder whose open_clip_config.json or config.json says the architecture can be one")


def _may_fit(config: Architecture, state: Mapping[str, Tensor]) -> bool:
    """Return whether the shapes that are cheap to ask for fit: the text tower's, and the first layer of open_clip's ViTs."""
    text, vision, own = config["text_cfg"], config["vision_cfg"], {key.removeprefix("text."): state[key] for key in state}
    embedding, blocks = own.get("token_embedding.weight"), {match[1] for key in state if (match := BLOCKS.match(key))}
    said = [text.get(key, default) for key, default in (("vocab_size", 49408), ("width", 512), ("layers", 12))]
    if "hf_model_name" in text or embedding is None or said != [*embedding.shape, len(blocks)]:
        return False
    patches, is_own = own.get("visual.conv1.weight"), isinstance(vision.get("layers", 12), int)
    if patches is None or patches.shape[2] == 3:  # timm's tower, or a ResNet's first convolution
        return patches is None or not is_own
    return is_own and "timm_model_name" not in vision and vision.get("width", 768) == patches.shape[0]


def visual_on_meta(architecture: Architecture) -> nn.Module:
    """Return the image tower of an architecture without memory for its weights."""
    return _on_meta({key: architecture[key] for key in ("embed_dim", "vision_cfg")} | {"text_cfg": LEAST_TEXT}).visual


def _on_meta(architecture: Architecture) -> nn.Module:
    give_transformers(architecture)
    config = deepcopy(dict(architecture))
    config["vision_cfg"].pop("timm_args", None)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    kind = open_clip.CoCa if "multimodal_cfg" in config else kind
    config["vision_cfg"] |= {"timm_model_pretrained": False}
    with torch.device("meta"):
        return kind(**config)
