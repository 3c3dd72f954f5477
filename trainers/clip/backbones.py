"""Names and weights of CLIPs: from a backbone's name and a tag or file to a FrozenCLIP."""

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from dassl.data.transforms import Preprocessing, Resize
from dassl.utils.environment import PROJECT
from dassl.utils.errors import ConfigError, UserError, did_you_mean
from dassl.utils.paths import expanded, is_file
from dassl.utils.tensors import state_hash
from trainers.clip.architectures import OPENAI_NAMES, custom_models, needs_transformers
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.clip.tokens import layout_of
from trainers.clip.weights import OPENAI_NUMBERS, load_state, read_state, said_of

logger = logging.getLogger(__name__)

def check_backbone(name: str, pretrained: str) -> None:
    """Raise ConfigError unless the backbone is known, of a supported kind, and its weights are a file or a known tag.

    Loads and fetches nothing.
    """
    custom = custom_models()
    known = {*OPENAI_NAMES, *custom, *open_clip.list_models()}
    if name not in known:
        raise ConfigError(f"MODEL.BACKBONE.NAME: unknown backbone {name!r}; {did_you_mean(name, known)}")
    model_name = _open_clip_name(name, _quick_gelu_of_tag(name, pretrained))
    if needs_transformers(name) and importlib.util.find_spec("transformers") is None:
        raise ConfigError(f"MODEL.BACKBONE.NAME: the texts of {name} are read by transformers: pip install transformers")
    if _weights_file(pretrained) is None:
        tags = [] if name in custom else open_clip.list_pretrained_tags_by_model(model_name)
        if pretrained not in tags:
            raise ConfigError(f"MODEL.BACKBONE.PRETRAINED: {pretrained!r} is neither a file nor a tag of {name}; "
                              + did_you_mean(pretrained, tags))


def load_clip(name: str, pretrained: str, *, device: str | torch.device = "cpu", precision: str = "fp32") -> FrozenCLIP:
    """Return the frozen CLIP of a backbone name and a weights file or tag, see `check_backbone`.

    `precision` is that of the towers: fp32, fp16 or bf16. A weights file may say its preprocessing and its activation, see
    `weights.said_of`; otherwise open_clip's preprocessing is taken, and the activation that the name stands for. Raises
    UserError if the weights cannot be had or do not fit.
    """
    check_backbone(name, pretrained)
    file, tokenizer_arguments = _weights_file(pretrained), {}
    model_name = _open_clip_name(name, _quick_gelu_of_tag(name, pretrained))
    if (custom := custom_models().get(name)) is not None:
        open_clip.add_model_config(custom)
        tokenizer_arguments = _tokenizer_arguments(custom)
    try:
        state, said = (read_state(file, partial(_same_weights, model_name)), said_of(file)) if file else ({}, {})
        if file:
            model_name = _name_of_weights(name, state, said)
        with warnings.catch_warnings(), _quiet_root():
            warnings.filterwarnings("error", message=".*QuickGELU mismatch.*")
            model = open_clip.create_model(model_name, pretrained=None if file else pretrained, device=device,
                                           precision=precision, force_preprocess_cfg=said.get("preprocess_cfg", {}))
        if file:
            load_state(model, state)
        fingerprint = _fingerprint(model, model_name)
    except Exception as error:
        hint = f"; {_where_to_get(model_name, pretrained)}" if isinstance(error, (OSError, RuntimeError)) and not file else ""
        raise UserError(f"cannot load the weights {pretrained!r} of {name}: {_first_line(error)}{hint}") from error
    tokenizer = open_clip.get_tokenizer(model_name, **tokenizer_arguments)
    _check_supported(model, tokenizer, name)
    return FrozenCLIP(model, tokenizer, _native_preprocessing(model), name=name, fingerprint=fingerprint)


def open_clip_name(clip: FrozenCLIP) -> str:
    """Return open_clip's name of a loaded CLIP, with the activation that its weights need."""
    return _open_clip_name(clip.name, any(isinstance(layer, QuickGELU) for layer in clip.model.modules()))


def weights_of(pretrained: str) -> str:
    """Return what open_clip is given as `pretrained` for weights that are at hand: an absolute path, or the tag."""
    file = _weights_file(pretrained)
    return pretrained if file is None else str(file.absolute())


@contextlib.contextmanager
def _quiet_root() -> Iterator[None]:
    """Keep open_clip from warning that a model has no weights yet; they come from a file in the next line."""
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _same_weights(model_name: str) -> str:
    """Return where OpenAI's weights of a model are to be had as data, "" if it is none of theirs."""
    if not get_pretrained_cfg(model_name, "openai"):
        return ""
    return f"; OpenAI's weights as data: {_where_to_get(model_name, 'openai')}"


def _where_to_get(model_name: str, tag: str) -> str:
    """Return which file to fetch for a tag, from where, and by which path and name to give it."""
    source = get_pretrained_cfg(model_name, tag)
    repository, _, file = source.get("hf_hub", "").rpartition("/")
    address = f"https://huggingface.co/{repository}/resolve/main/{file or 'open_clip_model.safetensors'}"
    name = _open_clip_name(model_name, source.get("quick_gelu"))
    if tag == "openai":
        name = {full: own for own, full in OPENAI_NAMES.items()}.get(name, name)
    return (f"without a network, fetch {address if repository else source.get('url')} elsewhere, and the open_clip_config.json "
            "beside it if there is one, put both into one folder of this machine and give the path of the weights as "
            f"MODEL.BACKBONE.PRETRAINED, with MODEL.BACKBONE.NAME {name}")


def _native_preprocessing(model: nn.Module) -> Preprocessing:
    config = model.visual.preprocess_cfg
    size = config["size"] if isinstance(config["size"], (tuple, list)) else (config["size"],) * 2
    if config["resize_mode"] not in get_args(Resize):
        raise UserError(f"the weights say resize_mode {config['resize_mode']!r}; known are {', '.join(get_args(Resize))}")
    interpolation = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"  # "random" is bicubic in open_clip
    return Preprocessing(tuple(size), tuple(config["mean"]), tuple(config["std"]), interpolation,
                         resize=config["resize_mode"], fill=config["fill_color"])


def _model_config(name: str) -> dict:
    """Return the architecture of a known backbone, as its JSON file or open_clip says."""
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
    """Return whether open_clip's config of a name has QuickGELU; None for an unknown name."""
    config = open_clip.get_model_config(model_name)
    return None if config is None else config.get("quick_gelu", False)


def _activation(quick_gelu: bool | None) -> str:
    return "QuickGELU" if quick_gelu else "GELU"


def _quick_gelu_of_tag(name: str, tag: str) -> bool | None:
    """Return True if a tag's weights need QuickGELU; None leaves it to the name."""
    return get_pretrained_cfg(name.replace("/", "-"), tag).get("quick_gelu")


def _name_of_weights(name: str, state: dict[str, Tensor], said: dict[str, dict]) -> str:
    """Return open_clip's name of a backbone whose weights came from a file, with the activation that they need.

    OpenAI's own state dicts need QuickGELU, and a `model_cfg` says what it needs. Where nothing does, the name decides; if
    it could have been the other one, the log says which is assumed.
    """
    quick_gelu = None
    if OPENAI_NUMBERS[0] in state:
        quick_gelu = True
    elif "model_cfg" in said:
        quick_gelu = said["model_cfg"].get("quick_gelu", False)
    model_name = _open_clip_name(name, quick_gelu)
    plain = model_name.removesuffix("-quickgelu")
    if quick_gelu is None and name != f"{plain}-quickgelu" and _has_quick_gelu(f"{plain}-quickgelu") is not None:
        logger.info("%s: the weights file does not say its activation; %s is assumed, as for the name (see README.md)", name,
                    _activation(_has_quick_gelu(model_name)))
    return model_name


def _weights_file(pretrained: str) -> Path | None:
    """Return the weights file, looked up from the working folder and then from the project's; None if it is no file."""
    for path in (expanded(pretrained), PROJECT / pretrained):
        if is_file(path):
            return path
    return None


def _tokenizer_arguments(config: Path) -> dict[str, str]:
    """Return the tokenizer's arguments of a model file, with the merges file found beside it."""
    arguments = json.loads(config.read_text())["text_cfg"].get("tokenizer_kwargs", {})
    if "bpe_path" in arguments:
        arguments["bpe_path"] = str(config.parent / arguments["bpe_path"])
    return arguments


def _check_supported(model: nn.Module, tokenizer, name: str) -> None:
    """Raise UserError for a tower or a tokenizer that this project would compute wrongly."""
    text, layout = getattr(model, "text", model), layout_of(tokenizer)
    read = getattr(text, "text_eos_id", getattr(text, "eos_id", None))
    if getattr(text, "text_pool_type", getattr(text, "pool_type", "")) == "eos" and layout.end[-1:] != (read,):
        raise UserError(f"{name} reads texts at the token {read}, but its tokenizer ends them by {list(layout.end)}")


def _fingerprint(model: nn.Module, model_name: str) -> str:
    """Return what identifies the function of the towers: their architecture and their weights."""
    architecture = json.dumps(open_clip.get_model_config(model_name), sort_keys=True).encode()
    return state_hash(model.state_dict(), lambda name, _: name, architecture)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
