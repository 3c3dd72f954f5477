"""Tensors of transformers' CLIPModel and SiglipModel under the names that open_clip and timm have for them."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

LISTED = 3  # keys that an error names
UNUSED = re.compile(r"(text|vision)_model\.embeddings\.position_ids")  # a buffer of old files
STACKED = re.compile(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)")
TOWERS = re.compile(r"(text_model|vision_model)\.")

# Whole names and parts of names, for which each key is searched from the top; the first that begins it is replaced.
TEXT = {
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_model.final_layer_norm.": "ln_final."}
CLIP = TEXT | {
    "logit_scale": "logit_scale",
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # their spelling
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "vision_model.post_layernorm.": "visual.ln_post."}
SIGLIP = TEXT | {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "text_model.head.": "text_projection.",
    "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
    "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
    "vision_model.encoder.layers.": "visual.trunk.blocks.",
    "vision_model.post_layernorm.": "visual.trunk.norm.",
    "vision_model.head.probe": "visual.trunk.attn_pool.latent",
    "vision_model.head.attention.in_proj_": "visual.trunk.attn_pool.qkv.",
    "vision_model.head.attention.out_proj.": "visual.trunk.attn_pool.proj.",
    "vision_model.head.layernorm.": "visual.trunk.attn_pool.norm.",
    "vision_model.head.mlp.": "visual.trunk.attn_pool.mlp."}
BLOCK = {".layer_norm1.": ".ln_1.", ".layer_norm2.": ".ln_2.", ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
         ".self_attn.out_proj.": ".attn.out_proj.", ".self_attn.qkv_": ".attn.in_proj_"}
TIMM_BLOCK = {".layer_norm1.": ".norm1.", ".layer_norm2.": ".norm2.", ".self_attn.out_proj.": ".attn.proj.",
              ".self_attn.qkv_": ".attn.qkv."}
TRANSPOSED = ("text_projection.weight", "visual_projection.weight")


def is_transformers(keys: Iterable[str]) -> bool:
    """Return whether tensors are named as transformers names those of a CLIP or SigLIP."""
    return any(TOWERS.match(key) for key in keys)


def is_siglip(keys: Iterable[str]) -> bool:
    """Return whether tensors of transformers are a SigLIP's, whose towers have heads."""
    return any(key.startswith(("vision_model.head.", "text_model.head.")) for key in keys)


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors by open_clip's names; raises ValueError with the keys that no CLIPModel or SiglipModel has."""
    names, found, unknown = (SIGLIP if is_siglip(state) else CLIP), {}, []
    for key, value in _stacked(state).items():
        first = next((part for part in names if key == part or (part[-1] in "._" and key.startswith(part))), None)
        if first is None:
            unknown.append(key)
            continue
        name = names[first] + key.removeprefix(first)
        for theirs, ours in (TIMM_BLOCK if name.startswith("visual.trunk.") else BLOCK).items():
            name = name.replace(theirs, ours)
        found[name] = value.T.contiguous() if key in TRANSPOSED else value
    if unknown:
        raise ValueError(f"{len(unknown)} tensors are of no CLIPModel or SiglipModel of transformers, such as "
                         + ", ".join(sorted(unknown)[:LISTED]))
    return _of_siglip(found) if is_siglip(state) else found


def _stacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with queries, keys and values of a block in one, as `...self_attn.qkv_weight`."""
    found = {}
    for key, value in state.items():
        if UNUSED.fullmatch(key):
            continue
        if (match := STACKED.fullmatch(key)) is None:
            found[key] = value
            continue
        block, _, kind = match.groups()
        name = f"{block}.self_attn.qkv_{kind}"
        if name not in found:
            parts = [state.get(f"{block}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            if any(part is None for part in parts):
                raise ValueError(f"{block} has not all of its q_proj, k_proj and v_proj")
            found[name] = torch.cat(parts)
    return found


def _of_siglip(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in the shapes of timm: scalars, a leading axis of positions, queries apart from keys and values."""
    found |= {name: found[name].reshape(()) for name in found.keys() & {"logit_scale", "logit_bias"}}
    found |= {name: found[name][None] for name in found.keys() & {"visual.trunk.pos_embed"}}
    for name in [name for name in found if ".attn_pool.qkv." in name]:
        queries, *others = found.pop(name).chunk(3)
        found |= {name.replace("qkv", "q"): queries.contiguous(), name.replace("qkv", "kv"): torch.cat(others)}
    return found
