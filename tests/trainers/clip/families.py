"""Small CLIPs of random weights of every family of towers that open_clip builds, with tokenizers that need no network."""

import functools
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import nn

from dassl.data.transforms import Preprocessing
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.clip.library import use_transformers

LENGTH, SPECIAL = 24, ("<pad>", "</s>", "<s>", "[UNK]")
VOCABULARY = {token: number for number, token in enumerate(
    (*SPECIAL, *string.ascii_letters, ".", *(f"##{own}" for own in (*string.ascii_letters, "."))))}
LAYOUTS = {"both": "<s> $A </s>", "end": "$A </s>", "none": "$A"}
VISION = open_clip.CLIPVisionCfg(layers=1, width=32, head_width=8, patch_size=16, image_size=32)
SIZE = {"context_length": LENGTH, "width": 24, "heads": 3, "layers": 3}
READ_LAST = {"no_causal_mask": True, "pool_type": "last"}
TEXTS = {  # how the text tower differs from CLIP's, and how its tokenizer lays texts out; "" is CLIP's own
    "CLIP": ({}, ""),
    "MobileCLIP": ({"no_causal_mask": True}, ""),
    "CoCa": ({"embed_cls": True}, ""),
    "SigLIP": ({**READ_LAST, "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}, "end"),
    "SigLIP 2": ({**READ_LAST, "proj_bias": True, "act_kwargs": {"approximate": "tanh"}}, "end"),
    "SigLIP without a projection": ({**READ_LAST, "proj_type": "none"}, "none"),
    "CLIPA": (READ_LAST, "stripped"),
    "MetaCLIP 2": ({"pool_type": "eos", "eos_id": 1}, "both"),
    "MetaCLIP 2 of mT5's tokens": ({"pool_type": "eos", "eos_id": 1}, "end"),
    "NLLB's pooling": ({"no_causal_mask": True, "pool_type": "first"}, "both"),
    "CLIPS": (READ_LAST, "clips"),
}


@functools.cache
def tokenizer(layout: str):
    """Return open_clip's tokenizer of a layout: CLIP's, or one of transformers over single letters."""
    if not layout:
        return open_clip.get_tokenizer("ViT-B-32", context_length=LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder), layout)
        clean = "whitespace" if layout == "both" else "canonicalize"
        return open_clip.tokenizer.HFTokenizer(folder, context_length=LENGTH, clean=clean, strip_sep_token=layout == "stripped",
                                              tokenizer_mode="clips" if layout == "clips" else None)


def save_tokenizer(folder: Path, layout: str) -> None:
    """Write the files of a tokenizer over single letters, as transformers writes them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = LAYOUTS["both" if layout in ("stripped", "clips") else layout]
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 2), ("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="</s>" if layout == "end" else "<pad>", sep_token="</s>",
                            bos_token="<s>", eos_token="</s>", cls_token="[UNK]", unk_token="[UNK]").save_pretrained(folder)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw all weights anew, so that no part of a tower is idle."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        spread = 0.3 if parameter.dim() > 1 else 0.1
        parameter.data = (torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * spread).to(parameter.dtype)
    return model


def frozen(model: nn.Module, layout: str, family: str) -> FrozenCLIP:
    preprocessing = Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3)
    return FrozenCLIP(model, tokenizer(layout), preprocessing, name=family, fingerprint=family)


def text_clip(family: str, dtype: torch.dtype = torch.float64) -> FrozenCLIP:
    """Return a CLIP of a family's text tower and a small ViT."""
    changes, layout = TEXTS[family]
    vocabulary = len(VOCABULARY) if layout else 49408
    text = open_clip.CLIPTextCfg(vocab_size=vocabulary, **{**SIZE, **changes})
    embed_dim = SIZE["width"] if changes.get("proj_type") == "none" else 16
    model = randomized(open_clip.model.CustomTextCLIP(embed_dim, VISION, text))
    return frozen(model.to(dtype), layout, family)


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 16}


def _vit(**changes) -> Callable[[], nn.Module]:
    return lambda: timm.models.vision_transformer.VisionTransformer(**{**VIT, **changes})


def _eva(**changes) -> Callable[[], nn.Module]:
    return lambda: timm.models.eva.Eva(**{**VIT, "class_token": True, **changes})


def _vitamin() -> nn.Module:
    from timm.models.vitamin import GeGluMlp, HybridEmbed, MbConvStages, VitCfg, VitConvCfg

    stages = MbConvStages(cfg=VitCfg(embed_dim=(8, 16, 32), depths=(1, 1, 1), stem_width=8,
                                     conv_cfg=VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6), head_type="1d"))
    embed = functools.partial(HybridEmbed, backbone=stages, proj=False)
    return timm.models.vision_transformer.VisionTransformer(
        **{**VIT, "patch_size": 1}, class_token=False, global_pool="avg", mlp_layer=GeGluMlp, mlp_ratio=2.0, embed_layer=embed)


IMAGES = {  # timm's vision transformers
    "SigLIP": _vit(class_token=False, global_pool="map", num_classes=0),
    "DFN": _vit(pre_norm=True, global_pool="token"),
    "DFN with registers": _vit(pre_norm=True, global_pool="token", reg_tokens=2, no_embed_class=True, init_values=0.5),
    "mean": _vit(class_token=False, global_pool="avg", fc_norm=True, num_classes=0),
    "norm of queries": _vit(qk_norm=True, global_pool="token"),
    "ViTamin": _vitamin,
    "EVA01": _eva(qkv_fused=True, global_pool="token", init_values=0.5),
    "EVA02": _eva(qkv_fused=False, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, use_rot_pos_emb=True,
                  ref_feat_shape=(4, 4), global_pool="token"),
    "Perception Encoder": _eva(qkv_fused=True, attn_type="rope", use_pre_transformer_norm=True, use_rot_pos_emb=True,
                               ref_feat_shape=(4, 4), rope_grid_offset=1.0, rope_grid_indexing="xy", global_pool="map",
                               attn_pool_num_heads=4, attn_pool_mlp_ratio=4.0, norm_layer=nn.LayerNorm),
    "half turns": _eva(qkv_fused=True, attn_type="rope", use_rot_pos_emb=True, rope_rotate_half=True, ref_feat_shape=(4, 4),
                       global_pool="avg", use_post_norm=True),
    "mixed rotary": _eva(qkv_fused=True, attn_type="rope", use_rot_pos_emb=True, rope_type="mixed", global_pool="token"),
}


def image_clip(family: str, dtype: torch.dtype = torch.float64, *, text: str = "CLIP") -> FrozenCLIP:
    """Return a CLIP of a family's image tower and a text tower, CLIP's by default."""
    model = text_clip(text, torch.float32).model
    visual = TimmModel("vit_tiny_patch16_224", embed_dim=16, image_size=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # buffers too
        visual.trunk = IMAGES[family]()
        visual.head = nn.Sequential() if visual.trunk.num_classes else nn.Sequential(nn.Linear(32, 16, bias=False))
    model.visual = visual
    return frozen(randomized(model).to(dtype), TEXTS[text][1], family)


def _timm(trunk: nn.Module) -> nn.Module:
    visual = TimmModel("vit_tiny_patch16_224", embed_dim=16, image_size=32)
    visual.trunk, visual.head = trunk, nn.Sequential()
    return visual


PLAIN = {  # image towers that are encoded alone, by open_clip's own path
    "ResNet": lambda: open_clip.model.ModifiedResNet(layers=(1, 1, 1, 1), output_dim=16, heads=4, image_size=32, width=8),
    "CoCa": lambda: open_clip.transformer.VisionTransformer(
        image_size=32, patch_size=8, width=32, layers=2, heads=4, mlp_ratio=4.0, attentional_pool=True, attn_pooler_heads=4,
        output_dim=16),
    "ConvNeXt": lambda: _timm(timm.models.convnext.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), num_classes=16)),
    "FastViT": lambda: _timm(timm.models.fastvit.FastVit(
        layers=(1, 1, 1, 1), embed_dims=(8, 16, 32, 64), mlp_ratios=(2, 2, 2, 2),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"), num_classes=16))}


def plain_clip(family: str) -> FrozenCLIP:
    """Return a CLIP of an image tower of `PLAIN` and CLIP's text tower."""
    model = text_clip("CLIP", torch.float32).model
    model.visual = PLAIN[family]()
    return frozen(randomized(model).double(), "", family)


def transformers_clip(family: str) -> FrozenCLIP:
    """Return a CLIP whose text tower is a model of transformers: "roberta", "xlm-roberta", "mt5" or "m2m_100" (NLLB)."""
    import transformers

    use_transformers()
    from open_clip.hf_model import HFTextEncoder

    layers = {"num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32, "hidden_size": 24}
    seq2seq = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3, "encoder_layers": 2, "decoder_layers": 1,
               "encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    own = seq2seq if family in ("mt5", "m2m_100") else layers
    config = transformers.AutoConfig.for_model(
        family, vocab_size=len(VOCABULARY), pad_token_id=0, eos_token_id=1, bos_token_id=2,
        max_position_embeddings=LENGTH + 2, **own)
    text = HFTextEncoder("", output_dim=16, config=config, proj_type="mlp",
                         pooler_type="cls_pooler" if family == "m2m_100" else "mean_pooler")
    if family in ("mt5", "m2m_100"):
        text.transformer = text.transformer.encoder
    model = open_clip.model.CustomTextCLIP(16, VISION, open_clip.CLIPTextCfg(**SIZE))
    model.text = text
    return frozen(randomized(model).double(), "both", family)
