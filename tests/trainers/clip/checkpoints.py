"""Small random checkpoints, as transformers and open_clip write them themselves, and what both compute of them."""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

WORDS = 49408
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72, "vocab_size": WORDS}
VISION = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100, "image_size": 32,
          "patch_size": 8}
SIGLIP_TEXT = TEXT | {"hidden_size": 48, "vocab_size": 32000, "max_position_embeddings": 16, "projection_size": 48}
SMALL = {"embed_dim": 16, "vision_cfg": {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32},
         "text_cfg": {"context_length": 20, "vocab_size": WORDS, "width": 24, "heads": 3, "layers": 1}}


def clip_model(text: dict | None = None, vision: dict | None = None) -> CLIPModel:
    """Return a CLIP of transformers with random weights, spread as trained ones are."""
    config = CLIPConfig(text_config=TEXT | (text or {}), vision_config=VISION | (vision or {}), projection_dim=24)
    return spread(CLIPModel(config))


def siglip_model(text: dict | None = None) -> SiglipModel:
    return spread(SiglipModel(SiglipConfig(text_config=SIGLIP_TEXT | (text or {}), vision_config=VISION)))


def spread(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def ids_and_images(n_tokens: int = 77, n_words: int = WORDS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, n_words - 3, (4, n_tokens), generator=generator)
    ids[:, 0] = n_words - 2
    ids[range(4), [3, 5, 9, n_tokens - 1]] = n_words - 1
    return ids, torch.randn(5, 3, 32, 32, generator=generator)


@torch.no_grad()
def check_equal(model: nn.Module, theirs: nn.Module, ids: Tensor, images: Tensor) -> None:
    """Hold features and logits of an open_clip model against those of transformers, to 1e-5."""
    expected = theirs(input_ids=ids, pixel_values=images)
    image, text = model.encode_image(images, normalize=True), model.encode_text(ids, normalize=True)
    logits = model.get_logits(images, ids)[0]
    assert (image - expected.image_embeds).abs().max() < 1e-5
    assert (text - expected.text_embeds).abs().max() < 1e-5
    assert (logits - expected.logits_per_image).abs().max() < 1e-5 * max(1, float(logits.abs().max()))


def written(folder: Path, model: nn.Module, **how) -> str:
    model.save_pretrained(folder, **how)
    return str(folder)
