"""Names and weights of CLIPs: from a backbone's name and a tag, a file or a folder to a FrozenCLIP."""

import contextlib
import importlib.util
import json
import logging
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from dassl.data.transforms import Preprocessing, Resize
from dassl.utils.errors import ConfigError, DataError, UserError, did_you_mean, first_line
from dassl.utils.tensors import state_hash
from trainers.clip.architectures import (
    MODEL_FOLDER,
    OPENAI_NAMES,
    custom_models,
    folder_architecture,
    named_folder,
    needs_transformers,
    tower_depths,
)
from trainers.clip.building import (
    Architecture,
    NotDrawn,
    build,
    fits,
    give_transformers,
    load_state,
    misfit_of,
    quiet_root,
    same,
    visual_on_meta,
)
from trainers.clip.frozen_clip import FrozenCLIP, image_tower
from trainers.clip.library import QuickGELU, get_pretrained_cfg, open_clip
from trainers.clip.sources import INDEX, cached_tag, tokenizer_folder, weights_file, where_to_get
from trainers.clip.timm_tower import fixed_size
from trainers.clip.tokenizers import TOKENIZERS, build_tokenizer
from trainers.clip.tokens import layout_of
from trainers.clip.weights import OPENAI_NUMBERS, Checkpoint, read_checkpoint

logger = logging.getLogger(__name__)

VIEW = ("mean", "std", "interpolation", "resize_mode", "fill_color")  # what open_clip's entry of a tag says of images


@dataclass(frozen=True)
class Loaded:
    """A model of open_clip with its weights, its architecture, and the folder where its tokenizer may be."""

    model: nn.Module
    architecture: Architecture
    beside: Path | None = None


def check_backbone(name: str, pretrained: str, tokenizer: str = "") -> None:
    """Raise ConfigError unless the backbone is known, of a supported kind, and its weights are at hand or a known tag.

    Loads and fetches nothing.
    """
    if (folder := named_folder(name)) is None:
        known = {*OPENAI_NAMES, *custom_models(), *open_clip.list_models()}
        if name not in known:
            raise ConfigError(f"MODEL.BACKBONE.NAME: unknown backbone {name!r}; {did_you_mean(name, known)}")
        model_name = _open_clip_name(name, _quick_gelu_of_tag(name, pretrained))
    else:
        model_name = ""
        _architecture_of(folder)
    if needs_transformers(name) and importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"MODEL.BACKBONE.NAME: the texts of {name} are read by transformers: pip install -r {TOKENIZERS}")
    tags = [] if name in custom_models() else open_clip.list_pretrained_tags_by_model(model_name)
    if pretrained not in tags and _weights(name, pretrained) is None:
        raise ConfigError(f"MODEL.BACKBONE.PRETRAINED: {pretrained!r} is neither a file nor a tag of {name}, nor a folder; "
                          + (did_you_mean(pretrained, tags) if folder is None else '"" takes the weights of that folder'))
    if tokenizer:
        tokenizer_folder(tokenizer, None, "")


def load_clip(name: str, pretrained: str, tokenizer: str = "", *, device: str | torch.device = "cpu",
              precision: str = "fp32") -> FrozenCLIP:
    """Return the frozen CLIP of a backbone name and weights, see `check_backbone` and `load_model`.

    `tokenizer` is a folder, "" for wherever `build_tokenizer` finds one.
    """
    check_backbone(name, pretrained, tokenizer)
    loaded = load_model(name, pretrained, device=device, precision=precision)
    words = build_tokenizer(loaded.architecture, tokenizer, loaded.beside, named_folder(name) or MODEL_FOLDER)
    _check_supported(loaded.model, words, name)
    return FrozenCLIP(loaded.model, words, _native_preprocessing(loaded.model), name=name,
                      fingerprint=_fingerprint(loaded.model, loaded.architecture))


def load_model(name: str, pretrained: str, *, device: str | torch.device = "cpu", precision: str = "fp32") -> Loaded:
    """Return open_clip's model of a backbone name and a weights file, a folder, or a tag.

    `precision` is that of the towers: fp32, fp16 or bf16. A checkpoint may say its preprocessing and its activation, and one of
    transformers its whole architecture; otherwise open_clip's preprocessing is taken, and the activation that the name stands
    for. Raises UserError if the weights cannot be had or do not fit.
    """
    file = _weights(name, pretrained)
    try:
        if file is None:
            return _of_tag(name, pretrained, device, precision)
        checkpoint = read_checkpoint(file, partial(_same_weights, name))
        architecture = _architecture(name, checkpoint)
        with NotDrawn():
            model = build(architecture, checkpoint.said.get("preprocess_cfg", {}), device, precision)
        load_state(model, checkpoint.state)
    except Exception as error:
        hint = f"; {_where_to_get(name, pretrained)}" if isinstance(error, (OSError, RuntimeError)) and not file else ""
        raise UserError(f"cannot load the weights {pretrained!r} of {name}: {first_line(error)}{hint}") from error
    has_words = checkpoint.of_transformers or architecture["text_cfg"].get("hf_tokenizer_name")
    return Loaded(model, architecture, file.parent if has_words else None)


def _of_tag(name: str, tag: str, device: str | torch.device, precision: str) -> Loaded:
    """Return the model of a tag, with the weights in Hugging Face's cache of this machine, or else from the network."""
    model_name = _open_clip_name(name, _quick_gelu_of_tag(name, tag))
    source, architecture = get_pretrained_cfg(model_name, tag), open_clip.get_model_config(model_name)
    if (file := cached_tag(source)) is not None and source.get("quick_gelu", False) != _has_quick_gelu(model_name):
        raise ValueError(f"QuickGELU mismatch: the weights need {_activation(source.get('quick_gelu'))}")
    view = {key: source[key] for key in VIEW if key in source}
    give_transformers(architecture)
    undrawn = contextlib.nullcontext() if file is None else NotDrawn()  # open_clip checks that a file has all weights
    with warnings.catch_warnings(), quiet_root(), undrawn:
        warnings.filterwarnings("error", message=".*QuickGELU mismatch.*")
        model = open_clip.create_model(model_name, pretrained=tag if file is None else str(file), device=device,
                                       precision=precision, pretrained_hf=False,
                                       force_preprocess_cfg={} if file is None else view)
    return Loaded(model, architecture)


def _weights(name: str, pretrained: str) -> Path | None:
    """Return the weights file that a backbone's keys name; None for a tag, which a folder of that name does not hide."""
    return weights_file(name, pretrained, is_tag=bool(get_pretrained_cfg(OPENAI_NAMES.get(name, name), pretrained)))


def _architecture(name: str, checkpoint: Checkpoint) -> Architecture:
    """Return the architecture of a checkpoint: what transformers' files beside it say, if there are any, or else the name.

    Raises ValueError if the name stands for another one.
    """
    said = checkpoint.said.get("model_cfg") if checkpoint.of_transformers else None
    if (folder := named_folder(name)) is not None:
        own, needed = said or folder_architecture(folder), _quick_gelu_of(checkpoint)
        if needed is not None and needed != own.get("quick_gelu", False):
            raise ValueError(f"the weights need {_activation(needed)}, but {name} has {_activation(not needed)}")
        return own
    own = _model_config(_name_of_weights(name, checkpoint))
    if said is None or same(said, own):
        return own
    if fault := misfit_of(own, checkpoint.state):
        raise ValueError(f"{fault}; {fits(checkpoint.state)}")
    return said


def _architecture_of(folder: Path) -> Architecture:
    """Return the architecture that the files of a folder say; raises ConfigError."""
    try:
        return folder_architecture(folder)
    except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise ConfigError(f"MODEL.BACKBONE.NAME: {first_line(error)}") from error


def takes_image_prompts(name: str) -> bool:
    """Return whether the image tower of a known backbone takes prompts, by its architecture alone."""
    if "image" in tower_depths(name):
        return True
    architecture = _model_config(name) if (folder := named_folder(name)) is None else _architecture_of(folder)
    return image_tower(visual_on_meta(architecture)) is not None


def open_clip_name(clip: FrozenCLIP) -> str:
    """Return open_clip's name of a loaded CLIP, with the activation that its weights need; "" if a folder is its name."""
    if named_folder(clip.name) is not None:
        return ""
    return _open_clip_name(clip.name, any(isinstance(layer, QuickGELU) for layer in clip.model.modules()))


def weights_of(name: str, pretrained: str) -> str:
    """Return what open_clip is given as `pretrained` for weights that are at hand: an absolute path, or the tag.

    It is "" for a checkpoint that open_clip does not read.
    """
    file = _weights(name, pretrained)
    if file is None:
        return pretrained
    return "" if file.name.endswith(INDEX) or read_checkpoint(file).of_transformers else str(file.absolute())


def _same_weights(name: str) -> str:
    """Return where OpenAI's weights of a model are to be had as data, "" if it is none of theirs."""
    model_name = OPENAI_NAMES.get(name, name)
    if not get_pretrained_cfg(model_name, "openai"):
        return ""
    return f"; OpenAI's weights as data: {_where_to_get(model_name, 'openai')}"


def _where_to_get(name: str, tag: str) -> str:
    """Return which files to fetch for a tag, from where, and by which keys to give them."""
    model_name = OPENAI_NAMES.get(name, name)
    source, config = get_pretrained_cfg(model_name, tag), _model_config(model_name) or {"text_cfg": {}}
    right = _open_clip_name(model_name, source.get("quick_gelu"))
    if tag == "openai":
        right = {full: own for own, full in OPENAI_NAMES.items()}.get(right, right)
    return where_to_get(source, right, config["text_cfg"].get("hf_tokenizer_name") or "")


def _native_preprocessing(model: nn.Module) -> Preprocessing:
    config = model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], (tuple, list)) else (config["size"],) * 2
    if config["resize_mode"] not in get_args(Resize):
        raise UserError(f"the weights say resize_mode {config['resize_mode']!r}; known are {', '.join(get_args(Resize))}")
    interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"  # "random" is bicubic in open_clip
    return Preprocessing(tuple(size), tuple(config["mean"]), tuple(config["std"]), interpolation,
                         resize=config["resize_mode"], fill=config["fill_color"])


def _model_config(name: str) -> dict[str, Any] | None:
    """Return the architecture of a backbone, as its JSON file or open_clip says; None for an unknown name."""
    if (custom := custom_models().get(name)) is not None:
        return json.loads(custom.read_text())
    return open_clip.get_model_config(OPENAI_NAMES.get(name, name))


def _open_clip_name(name: str, quick_gelu: bool | None) -> str:
    """Return open_clip's name of a backbone: with the activation that its weights need, or, for None, that of the name.

    OpenAI's names stand for QuickGELU, of which open_clip would only warn. Raises ValueError if name and weights disagree
    and there is no other name, or if the name was as exact as "ViT-B-16-quickgelu".
    """
    own = OPENAI_NAMES.get(name, name.replace("/", "-"))
    if quick_gelu is None or quick_gelu == _has_quick_gelu(own):
        return own
    other = f"{own}-quickgelu" if quick_gelu else own.removesuffix("-quickgelu")
    if name.endswith("-quickgelu") or _has_quick_gelu(other) != quick_gelu:
        raise ValueError(f"the weights need {_activation(quick_gelu)}, but {name} has {_activation(not quick_gelu)}")
    return other


def _has_quick_gelu(model_name: str) -> bool | None:
    """Return whether the architecture of a name has QuickGELU; None for an unknown name."""
    config = _model_config(model_name)
    return None if config is None else config.get("quick_gelu", False)


def _activation(quick_gelu: bool | None) -> str:
    return "QuickGELU" if quick_gelu else "GELU"


def _quick_gelu_of_tag(name: str, tag: str) -> bool | None:
    """Return True if a tag's weights need QuickGELU; None leaves it to the name."""
    return get_pretrained_cfg(name.replace("/", "-"), tag).get("quick_gelu")


def _quick_gelu_of(checkpoint: Checkpoint) -> bool | None:
    """Return whether weights need QuickGELU: OpenAI's own do, and a `model_cfg` says it; None where nothing does."""
    if OPENAI_NUMBERS[0] in checkpoint.state:
        return True
    return checkpoint.said["model_cfg"].get("quick_gelu", False) if "model_cfg" in checkpoint.said else None


def _name_of_weights(name: str, checkpoint: Checkpoint) -> str:
    """Return open_clip's name of a backbone whose weights came from a file, with the activation that they need.

    Where nothing says it, the name decides; if it could have been the other one, the log says which is assumed.
    """
    quick_gelu = _quick_gelu_of(checkpoint)
    model_name = _open_clip_name(name, quick_gelu)
    plain = model_name.removesuffix("-quickgelu")
    if quick_gelu is None and name != f"{plain}-quickgelu" and _has_quick_gelu(f"{plain}-quickgelu") is not None:
        logger.info("%s: the weights file does not say its activation; %s is assumed, as for the name (see docs/runs.md)", name,
                    _activation(_has_quick_gelu(model_name)))
    return model_name


def _check_supported(model: nn.Module, tokenizer: Any, name: str) -> None:
    """Raise UserError for a tower or a tokenizer that this project would compute wrongly."""
    text, layout = getattr(model, "text", model), layout_of(tokenizer)
    read = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
    if getattr(text, "text_pool_type", getattr(text, "pool_type", "")) == "eos" and layout.end[-1:] != (read,):
        raise UserError(f"{name} reads texts at the token {read}, but its tokenizer ends them by {list(layout.end)}")
    if (taken := fixed_size(model.visual)) not in (None, size := _native_preprocessing(model).size):
        raise UserError(f"the image tower of {name} takes images of {taken[0]} x {taken[1]} pixels, but its config says "
                        f"image_size {size[0]} x {size[1]}")


def _fingerprint(model: nn.Module, architecture: Architecture) -> str:
    """Return what identifies the function of the towers: their architecture and their weights."""
    return state_hash(model.state_dict(), lambda name, _: name, json.dumps(architecture, sort_keys=True).encode())
