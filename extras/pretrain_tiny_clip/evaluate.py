"""Zero-shot classification of scikit-learn's 1,797 handwritten digits by the shipped files.

This is the only module that sees a real digit. The training code imports it only to report the final figures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor

from .glyphs import DIGITS
from .vocabulary import load_tokenizer

TEMPLATES = ("a photo of the digit {}.", "a photo of a {}.", "a handwritten {}.")


@dataclass(frozen=True)
class ZeroShot:
    """Accuracy over all digits and recall of each class, as fractions."""

    accuracy: float
    recall: tuple[float, ...]


def load_shipped(directory: Path) -> tuple[CLIP, SimpleTokenizer]:
    """Return the model in fp32 and its tokenizer, read from `directory` by open_clip alone."""
    open_clip.add_model_config(directory / "tiny_clip.json")
    model = open_clip.create_model("tiny_clip", pretrained=str(directory / "tiny_clip.safetensors"))
    return model.eval(), load_tokenizer(directory / "tiny_clip_bpe.txt.gz")


def real_digits() -> tuple[Tensor, Tensor]:
    """Return the images `float32 [1797, 3, 32, 32]`, normalized by mean and std 0.5, and the labels `[1797]`."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.round(digits.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8], from 0..16
    large = [np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in gray]
    images = torch.from_numpy(np.stack(large)).float() / 127.5 - 1
    return images[:, None].expand(-1, 3, -1, -1), torch.from_numpy(digits.target)


@torch.no_grad()
def zero_shot(model: CLIP, tokenizer: SimpleTokenizer, images: Tensor, labels: Tensor, template: str) -> ZeroShot:
    """Return how well the model tells the digits zero to nine apart when they are named by this template."""
    captions = tokenizer([template.format(word) for word in DIGITS])
    text_features = model.encode_text(captions, normalize=True)  # [10, D]
    image_features = torch.cat([model.encode_image(part, normalize=True) for part in images.split(256)])
    is_right = (image_features @ text_features.T).argmax(dim=1) == labels
    recall = tuple(is_right[labels == label].float().mean().item() for label in range(len(DIGITS)))
    return ZeroShot(is_right.float().mean().item(), recall)


def report(directory: Path) -> str:
    """Return a table of the zero-shot accuracy and the recall of each class, one line a template."""
    model, tokenizer = load_shipped(directory)
    images, labels = real_digits()
    lines = [f"{'zero-shot, %':26s}   all | " + " ".join(f"{word:>5s}" for word in DIGITS)]
    for template in TEMPLATES:
        result = zero_shot(model, tokenizer, images, labels, template)
        recall = " ".join(f"{100 * value:5.0f}" for value in result.recall)
        lines.append(f"{template:26s} {100 * result.accuracy:5.1f} | {recall}")
    return "\n".join(lines)
