"""The encoders against open_clip itself, and loading against files of every kind."""

import json

import pytest
import torch

from dassl.utils.errors import ConfigError, UserError
from tests.conftest import random_clip
from trainers.backbones import MODEL_FOLDER, check_backbone, load_clip
from trainers.prompts import Prompts, template_rows, token_rows

NAMES = ["cat", "golden retriever", "forest with a very long name of many words"]


def test_image_encoder_without_prompts_is_open_clip_bit_for_bit(clip):
    """No prompt, no difference."""
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clip.encode_image(images), clip.model.encode_image(images))


def test_text_encoder_without_prompts_is_open_clip_bit_for_bit(clip):
    """No prompt, no difference."""
    rows = template_rows(clip.tokenizer, NAMES, "a photo of a {}.")
    assert torch.equal(clip.encode_text(rows), clip.model.encode_text(rows.ids))


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True])
def test_prompted_text_encoder_equals_a_hand_computed_tower(clip64, position, specific):
    """In float64, every text laid out by hand at full length and sent through the blocks one by one gives the same."""
    clip, text = clip64, clip64.model
    rows = token_rows(clip.tokenizer, NAMES, 3, position)
    context = torch.randn(*((3,) if specific else ()), 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = []
    for row in range(3):
        x = text.token_embedding(rows.ids[row]).clone()
        for token, slot in enumerate(rows.slots[row]):
            x[slot] = context[row, token] if specific else context[token]
        x = (x + text.positional_embedding)[None]
        for block in text.transformer.resblocks:
            x = block(x, attn_mask=text.attn_mask)
        expected.append(text.ln_final(x)[0, rows.ids[row].argmax()] @ text.text_projection)
    assert torch.allclose(clip.encode_text(rows, Prompts(text=(context,))), torch.stack(expected), rtol=0, atol=1e-12)


def test_weights_take_no_gradients(clip):
    """Only prompts learn."""
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())


def test_the_embedded_clip_loads_without_network(monkeypatch):
    """The embedded weights come from files of the project, with their own mean and deviation."""
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    clip = load_clip("tiny_clip", "configs/models/tiny_clip.safetensors")
    assert clip.preprocessing.size == (32, 32) and clip.preprocessing.mean == (0.5, 0.5, 0.5)
    assert max(clip.tokenizer.encode("a photo of the digit seven.")) < clip.tokenizer.sot_token_id
    assert clip.tokenizer.context_length == 32


def test_the_embedded_clip_is_small():
    """All files of configs/models together stay below 8 MB."""
    assert sum(file.stat().st_size for file in MODEL_FOLDER.iterdir()) < 8e6


@pytest.mark.parametrize(("name", "pretrained", "message"), [
    ("ViT-B/61", "openai", "did you mean 'ViT-B/16'"),
    ("ViT-B/16", "openia", "did you mean 'openai'"),
    ("tiny_clip", "openai", "neither a file nor a tag"),
    ("", "openai", "unknown backbone"),
])
def test_an_unknown_backbone_or_tag_is_named_with_the_nearest(name, pretrained, message):
    """Row 15: a wrong name is an error of one line before anything is loaded."""
    with pytest.raises(ConfigError, match=message) as error:
        check_backbone(name, pretrained)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ViT-B/16", "ViT-B/32", "ViT-L/14", "RN50", "RN101", "ViT-B-16", "ViT-B-16-quickgelu"])
def test_openai_names_are_known(name):
    """The field's names of OpenAI's models, and open_clip's own, pass."""
    check_backbone(name, "openai")


def test_a_truncated_weights_file_is_one_clear_error(tmp_path):
    """A file cut in half names itself and the backbone."""
    whole = (MODEL_FOLDER / "tiny_clip.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.safetensors.*tiny_clip"):
        load_clip("tiny_clip", str(tmp_path / "half.safetensors"))


def test_the_fingerprint_tells_weights_apart(tmp_path):
    """Two weights files that differ in one value have different fingerprints; a copy has the same."""
    from safetensors.torch import load_file, save_file

    original = MODEL_FOLDER / "tiny_clip.safetensors"
    (tmp_path / "copy.safetensors").write_bytes(original.read_bytes())
    state = load_file(original)
    state["logit_scale"] += 0.125
    save_file(state, tmp_path / "other.safetensors")
    prints = [load_clip("tiny_clip", str(path)).fingerprint
              for path in (original, tmp_path / "copy.safetensors", tmp_path / "other.safetensors")]
    assert prints[0] == prints[1] != prints[2]


def test_every_model_file_names_a_merges_file_that_exists():
    """The tokenizer's merges lie beside the model's JSON."""
    for file in MODEL_FOLDER.glob("*.json"):
        arguments = json.loads(file.read_text())["text_cfg"].get("tokenizer_kwargs", {})
        assert (file.parent / arguments.get("bpe_path", ".")).exists()


def test_the_test_clip_spreads_its_features():
    """The random CLIP of the tests is worth testing with: its texts and images are not nearly alike."""
    clip = random_clip()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cosines = torch.corrcoef(clip.encode_image(images))
    assert cosines.fill_diagonal_(0).max() < 0.99
