"""Outputs of every family as they were when it came: another version of open_clip, timm or transformers must not change them.

    FREEZE=1 python -m pytest tests/trainers/clip/test_frozen_outputs.py     writes the file anew
"""

import json
import os
from pathlib import Path

import pytest
import torch

from tests.trainers.clip.families import IMAGES, PLAIN, TEXTS, image_clip, plain_clip, text_clip, transformers_clip
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.patterns import random_clip
from trainers.core.prompts import Prompts
from trainers.core.token_rows import template_rows, token_rows

FILE = Path(__file__).with_name("frozen_outputs.json")
TRANSFORMERS = ("roberta", "xlm-roberta", "mt5", "m2m_100")
KINDS = {"text": TEXTS, "image": IMAGES, "plain": PLAIN, "transformers": TRANSFORMERS, "CLIP": ("GELU", "QuickGELU")}
CASES = [(kind, name) for kind, names in KINDS.items() for name in names]


def clip_of(kind: str, name: str) -> FrozenCLIP:
    if kind == "CLIP":
        return random_clip(torch.float64, quick_gelu=name == "QuickGELU")
    return {"text": text_clip, "image": image_clip, "plain": plain_clip, "transformers": transformers_clip}[kind](name)


def outputs(clip: FrozenCLIP, kind: str) -> dict[str, list[float]]:
    """Return the first numbers of normalized features of texts and images, with prompts and without."""
    names = ["cat", "a_b"]
    context = torch.linspace(-1, 1, 2 * clip.text_width, dtype=torch.float64).view(2, -1)
    found = {"template": clip.encode_text(template_rows(clip.tokenizer, names, "a {}.")),
             "context": clip.encode_text(token_rows(clip.tokenizer, names, 2), Prompts(text=(context,)))}
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32, dtype=torch.float64).sin().view(2, 3, 32, 32)
    if kind in ("image", "CLIP", "plain"):
        found["image"] = clip.encode_image(images)
    if kind in ("image", "CLIP"):
        prompt = torch.linspace(-1, 1, 2 * clip.image_width, dtype=torch.float64).view(2, -1)
        found |= {"prompted": clip.encode_image_tokens(clip.embed_image(images), Prompts(image=(prompt,)))}
    return {name: normalized(own)[:, :4].flatten().tolist() for name, own in found.items()}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_outputs_are_those_of_the_version_that_they_came_with(kind, name):
    """To 1e-9, with weights and inputs that no version draws."""
    found, frozen = outputs(clip_of(kind, name), kind), json.loads(FILE.read_text())
    if os.environ.get("FREEZE"):
        frozen[f"{kind} {name}"] = {part: [round(value, 12) for value in own] for part, own in found.items()}
        FILE.write_text(json.dumps(frozen, indent=0) + "\n")
    assert all(abs(value) < 1 for own in found.values() for value in own)  # and so no NaN
    assert found.keys() == frozen[f"{kind} {name}"].keys()
    for part, own in found.items():
        assert own == pytest.approx(frozen[f"{kind} {name}"][part], abs=1e-9), part


def test_every_output_that_was_frozen_is_still_computed():
    assert json.loads(FILE.read_text()).keys() == {f"{kind} {name}" for kind, name in CASES}
