"""Checkpoints in the format of transformers (CLIPModel, SiglipModel): what their JSON files say, in open_clip's words.

Nothing is loaded, and neither torch nor transformers is imported. An architecture is what open_clip's JSON files hold. One
key is added, `timm_args` of a `vision_cfg`: how the image tower of a SigLIP differs from timm's of the name beside it.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# What transformers leaves out of a config where it is the default.
COMMON = {"vision": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                     "num_channels": 3, "image_size": 224}}
CLIP = {"text": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
                 "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
                 "eos_token_id": 49407},
        "vision": COMMON["vision"] | {"patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}}
SIGLIP = {"text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                   "max_position_embeddings": 64, "vocab_size": 32000, "hidden_act": "gelu_pytorch_tanh",
                   "layer_norm_eps": 1e-6},
          "vision": COMMON["vision"] | {"patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
                                        "vision_use_head": True}}
KINDS = ("clip", "siglip")
OLD_EOS = 2  # in configs of before transformers wrote the right id: the last token is then found by the highest id
TANH = ("gelu_pytorch_tanh", "gelu_new")
SIGLIP_TRUNK = "vit_base_patch16_siglip_224"  # of which `timm_args` says all dimensions
SIGLIP_EPS = 1e-6  # of timm's layer norms
SIGLIP_TOKENIZERS = {32000: "timm/ViT-B-16-SigLIP", 250000: "timm/ViT-B-16-SigLIP-i18n-256", 256000: "timm/ViT-B-16-SigLIP2"}
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # by Pillow's numbers
OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711], "interpolation": "bicubic",
          "resize_mode": "shortest"}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
NOTHING: Mapping[str, Any] = MappingProxyType({})


def architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture that a `config.json` describes; raises ValueError if it is of another kind, naming it."""
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ValueError(f"config.json is of a {kind!r} model; of transformers' formats clip (CLIPModel) and siglip "
                         "(SiglipModel, SigLIP 2 of a fixed resolution) are read")
    text, vision = (_part(config, part, CLIP if kind == "clip" else SIGLIP) for part in ("text", "vision"))
    if vision["num_channels"] != 3:
        raise ValueError(f"config.json is of images with {vision['num_channels']} channels; only RGB is read")
    return _clip(config, text, vision) if kind == "clip" else _siglip(text, vision)


def preprocessing(kind: str, processor: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
    """Return the `preprocess_cfg` that a `preprocessor_config.json` stands for; that of the kind of model for what it omits.

    Raises ValueError for steps that would be done otherwise here.
    """
    own = dict(OPENAI if kind == "clip" else HALF)
    if not processor:
        return own
    if skipped := [step for step in ("do_resize", "do_rescale") if processor.get(step) is False]:
        raise ValueError(f"preprocessor_config.json has {skipped[0]} false; images are resized and scaled to [0, 1] here")
    size, crop = processor.get("size"), processor.get("crop_size")
    if size is not None:
        shorter = size.get("shortest_edge") if isinstance(size, dict) else (size if kind == "clip" else None)
        own["resize_mode"] = "squash" if shorter is None else "shortest"
        resized = _pair(size if shorter is None else shorter)
        if processor.get("do_center_crop", kind == "clip") and crop is not None and resized != _pair(crop):
            raise ValueError(f"preprocessor_config.json resizes to {resized[0]} pixels and crops {_pair(crop)[0]}; only equal "
                             "sides are done here")
    if (number := processor.get("resample")) is not None:
        if number not in RESAMPLING:
            raise ValueError(f"preprocessor_config.json resizes by resample {number}; known are 0, 2 and 3")
        own["interpolation"] = RESAMPLING[number]
    if processor.get("do_normalize") is False:
        return own | {"mean": [0.0] * 3, "std": [1.0] * 3}
    return own | {key: list(processor[f"image_{key}"]) for key in ("mean", "std") if processor.get(f"image_{key}")}


def _part(config: Mapping[str, Any], part: str, defaults: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return a tower's config with what it leaves out; `text_config_dict` of old files wins, with its defaults."""
    said = dict(config.get(f"{part}_config") or {})
    if (old := config.get(f"{part}_config_dict")) is not None:
        said |= defaults[part] | old
    return dict(defaults[part]) | {key: value for key, value in said.items() if value is not None}


def _clip(config: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    activations = {text["hidden_act"], vision["hidden_act"]}
    if "quick_gelu" in activations and len(activations) > 1:
        raise ValueError("config.json has quick_gelu in one tower alone, which open_clip's CLIP cannot have")
    found = {"embed_dim": config.get("projection_dim", 512)}
    if activations == {"quick_gelu"}:
        found["quick_gelu"] = True
    image = {"image_size": _side(vision["image_size"]), "layers": vision["num_hidden_layers"], "width": vision["hidden_size"],
             "head_width": vision["hidden_size"] // vision["num_attention_heads"], "patch_size": _side(vision["patch_size"])}
    return found | {"vision_cfg": image | _details(vision), "text_cfg": _text(text) | _details(text) | _end(text)}


def _end(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the end token is found: CLIP's has the highest id of all."""
    eos = text["eos_token_id"]
    return {} if eos in (OLD_EOS, text["vocab_size"] - 1) else {"pool_type": "eos", "eos_id": eos}


def _siglip(text: Mapping[str, Any], vision: Mapping[str, Any]) -> dict[str, Any]:
    if not vision["vision_use_head"] or vision["layer_norm_eps"] != SIGLIP_EPS:
        raise ValueError("config.json is of an image tower without a pooling head, or with another layer_norm_eps than "
                         f"{SIGLIP_EPS}; timm's, which is taken, has them so")
    width, size = vision["hidden_size"], _side(vision["image_size"])
    trunk = {"img_size": size, "patch_size": _side(vision["patch_size"]), "embed_dim": width,
             "depth": vision["num_hidden_layers"], "num_heads": vision["num_attention_heads"],
             "mlp_ratio": _ratio(vision), "act_layer": _activation(vision)}
    image = {"image_size": size, "timm_model_name": SIGLIP_TRUNK, "timm_pool": "map", "timm_proj": "none", "timm_args": trunk}
    own = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"}}
    if (tokenizer := SIGLIP_TOKENIZERS.get(text["vocab_size"])) is not None:
        own["hf_tokenizer_name"] = tokenizer
    return {"embed_dim": width, "init_logit_bias": -10, "custom_text": True, "vision_cfg": image,
            "text_cfg": _text(text) | own | _details(text)}


def _text(text: Mapping[str, Any]) -> dict[str, Any]:
    return {"context_length": text["max_position_embeddings"], "vocab_size": text["vocab_size"], "width": text["hidden_size"],
            "heads": text["num_attention_heads"], "layers": text["num_hidden_layers"]}


def _details(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is rarely other than open_clip's default: the width of the MLP, epsilon, and the form of GELU."""
    found = {} if (ratio := _ratio(part)) == 4 else {"mlp_ratio": ratio}
    if part["layer_norm_eps"] != 1e-5:
        found["norm_kwargs"] = {"eps": part["layer_norm_eps"]}
    return found | ({"act_kwargs": {"approximate": "tanh"}} if _activation(part) == "gelu_tanh" else {})


def _ratio(part: Mapping[str, Any]) -> float:
    """Return a ratio by which open_clip and timm, who cut off what is behind the point, come to the width of the MLP."""
    width, hidden = part["hidden_size"], part["intermediate_size"]
    return hidden / width if int(width * (hidden / width)) == hidden else (hidden + 0.5) / width


def _activation(part: Mapping[str, Any]) -> str:
    """Return timm's name of the activation of an MLP; raises ValueError for one that no CLIP has."""
    name = part["hidden_act"]
    if name not in ("gelu", "quick_gelu", *TANH):
        raise ValueError(f"config.json has the activation {name!r}; known are gelu, quick_gelu and {', '.join(TANH)}")
    return "gelu_tanh" if name in TANH else name


def _side(size: int | list[int]) -> int | list[int]:
    """Return a side of a square as one number."""
    return size[0] if isinstance(size, list) and len(set(size)) == 1 else size


def _pair(crop: int | Mapping[str, int]) -> tuple[int, int]:
    return (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])
