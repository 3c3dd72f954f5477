"""The table of backbones: what each of open_clip's models can do here, found out by running it.

    python -m benchmarks.backbones > docs/backbones.md

Every model is built without its weights (on torch's meta device) and sent through the encoders that a run uses, with prompts
and without. Nothing is fetched. Sizes of text towers from transformers are those that their makers have published.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pandas as pd
import torch
from torch import Tensor, nn

from dassl.utils.errors import UserError
from trainers.clip.architectures import needs_transformers
from trainers.clip.causal_text import CausalText
from trainers.clip.frozen_clip import image_tower, text_tower
from trainers.clip.image_tower import ImageTower
from trainers.clip.library import open_clip, use_transformers
from trainers.clip.text_tower import TextTower
from trainers.clip.tokens import Layout
from trainers.clip.transformers_text import TransformersText
from trainers.core.low_rank import LowRank
from trainers.core.prompts import Prompts, TokenRows

HEAD = """# Backbones

Written by `python -m benchmarks.backbones > docs/backbones.md` from open_clip {version}: each of its {total} models was built
and sent through the encoders that a run uses. All of them classify by their texts and take heads and adapters on features;
{context} take a text context (CoOp, KgCoOp, ProGrad), {deep} deep text prompts (MaPLe, IVLP, TCP, PromptSRC), {image} image
prompts (VPT, MaPLe, IVLP, DualPrompt, PromptSRC), {lora} changes of both towers (CLIPLoRA).

- *image*: height and width in pixels. *D*: width of the features. Parameters of the towers in millions.
- *text*: `fast` where texts are one stream without padding, each common beginning is computed once, and the last block only at
  the end tokens. Otherwise every text is computed at its full length, and the reason is given.
- *text prompts*: `deep`, or `context` where they enter only before the first block, so that MaPLe's "at most 9" blocks are 1.
- *image prompts*, *LoRA* (in the image tower), and *projection* (ProLIP): yes, or why not.
- *needs*: which library reads its texts, besides open_clip.
- The logit bias of SigLIP is the same for all classes, so it cancels in the softmax. Here, predictions are the softmax's.

"""
TRANSFORMERS = {  # what AutoConfig would fetch
    "roberta-base": ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514}),
    "xlm-roberta-base": ("xlm-roberta", {"vocab_size": 250002, "max_position_embeddings": 514}),
    "xlm-roberta-large": ("xlm-roberta", {"vocab_size": 250002, "max_position_embeddings": 514, "hidden_size": 1024,
                                          "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}),
    "google/mt5-base": ("mt5", {"vocab_size": 250112, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}),
    "google/mt5-xl": ("mt5", {"vocab_size": 250112, "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}),
    "facebook/nllb-200-distilled-600M": ("m2m_100", {"vocab_size": 256206, "d_model": 1024, "encoder_layers": 12,
                                                     "decoder_layers": 12}),
    "facebook/nllb-200-distilled-1.3B": ("m2m_100", {"vocab_size": 256206, "d_model": 1024, "encoder_layers": 24,
                                                     "decoder_layers": 24, "encoder_ffn_dim": 8192, "decoder_ffn_dim": 8192}),
}
NO_START = ("google/mt5-base", "google/mt5-xl", "timm/")  # tokenizers, by what their names begin with, without a start token
N_CONTEXT = 4
YES = "yes"


def main() -> None:
    logging.disable(logging.WARNING)
    rows = table(open_clip.list_models())
    counts = {"context": (rows["text prompts"] != "").sum(),
              "deep": (rows["text prompts"] == "deep").sum(), "image": (rows["image prompts"] == YES).sum(),
              "lora": ((rows["LoRA"] == YES) & (rows["text prompts"] == "deep")).sum()}
    print(HEAD.format(version=open_clip.__version__, total=len(rows), **counts) + written(rows))


def written(rows: pd.DataFrame) -> str:
    """Return rows as they stand in the file."""
    return rows.to_markdown(index=False)


def table(names: list[str]) -> pd.DataFrame:
    """Return a row for each model of open_clip's."""
    return pd.DataFrame([row(name) for name in names])


@torch.no_grad()
def row(name: str) -> dict[str, Any]:
    """Return what a model is and can do; a reason in place of what it cannot."""
    model = built(name)
    size = model.visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    text = getattr(model, "text", model)
    tower, image = text_tower(text, layout_on_meta(name)), image_tower(model.visual)
    images = torch.zeros(1, 3, height, width, device="meta")
    n_parameters = sum(own.numel() for own in model.parameters())
    n_image = sum(own.numel() for own in model.visual.parameters())
    assert model.encode_image(images, normalize=False).shape[1] == tower.feature_width
    return {
        "name": name, "image": f"{height}x{width}", "D": tower.feature_width,
        "image tower": round(n_image / 1e6), "text tower": round((n_parameters - n_image) / 1e6),
        "text": "fast" if isinstance(tower, CausalText) else tower.why_plain,
        "text prompts": text_prompts(tower),
        "image prompts": no_tower(model) if image is None else reason(images_with, image, images, prompts=True) or YES,
        "LoRA": no_tower(model) if image is None else reason(images_with, image, images, prompts=False) or YES,
        "projection": YES if image is not None and image.projection is not None else "no",
        "needs": "transformers" if needs_transformers(name) else ""}


def built(name: str) -> nn.Module:
    """Return a model of open_clip's without weights."""
    use_transformers()
    with fetching_nothing(), torch.device("meta"):
        return open_clip.create_model(name, pretrained_hf=False, device="meta").eval()


def reason(run: Callable, *arguments: Any, **keywords: Any) -> str:
    """Return why something cannot be run, as the user is told; "" if it can."""
    try:
        run(*arguments, **keywords)
    except UserError as error:
        return "biases apart" if "biases apart" in str(error) else str(error)
    return ""


def text_prompts(tower: TextTower) -> str:
    """Return which prompts a text tower takes. One of transformers reads values, and runs in the tests, at a small size."""
    if isinstance(tower, TransformersText):
        return "context"
    return "deep" if not reason(texts_with, tower, 2) else "" if reason(texts_with, tower, 1) else "context"


def texts_with(tower: TextTower, depth: int) -> Tensor:
    """Encode two texts with prompts in the first blocks."""
    length, first = tower.layout.length, len(tower.layout.begin)
    slots = torch.arange(first, first + N_CONTEXT).expand(2, -1)
    rows = TokenRows(torch.zeros(2, length, dtype=torch.long), slots, torch.tensor([N_CONTEXT + 2, N_CONTEXT + 3]))
    return tower.encode(rows, Prompts(text=(torch.zeros(N_CONTEXT, tower.width, device="meta"),) * depth))


def images_with(tower: ImageTower, images: Tensor, *, prompts: bool) -> Tensor:
    """Encode images with prompts in all blocks, or with changed matrices in the first."""
    def empty(*shape: int) -> Tensor:
        return torch.zeros(*shape, device="meta")

    change = LowRank(empty(2, tower.width), empty(tower.width, 2))
    own = (Prompts(image=(empty(N_CONTEXT, tower.width),) * tower.depth) if prompts
           else Prompts(image_changes={0: dict.fromkeys("qkvo", change)}))
    return tower.encode_tokens(tower.embed(images), own)


def no_tower(model: nn.Module) -> str:
    """Return in words which image tower takes no prompts."""
    kind = type(getattr(model.visual, "trunk", model.visual)).__name__
    return "relative positions" if kind == "VisionTransformerRelPos" else f"no ViT ({kind})"


def layout_on_meta(name: str) -> Layout:
    """Return a tokenizer's layout as far as it decides on a path: whether texts have a start token."""
    config = open_clip.get_model_config(name)["text_cfg"]
    begin = () if config.get("hf_tokenizer_name", "").startswith(NO_START) else (0,)
    return Layout(begin, (1,), 2, config.get("context_length", 77), lambda text: [])


@contextlib.contextmanager
def fetching_nothing() -> Iterator[None]:
    """Give open_clip the published sizes of transformers' models where it would fetch them."""
    from transformers import AutoConfig

    def config(name: str, **_: Any) -> Any:
        kind, sizes = TRANSFORMERS[name]
        return AutoConfig.for_model(kind, **sizes)

    with mock.patch("open_clip.hf_model.AutoConfig.from_pretrained", config), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main()
