"""Names of backbones and tags: which are known, the activation that they stand for, and what is refused by its name."""

import importlib.util
import json
import socket

import open_clip
import pytest

from dassl.utils.errors import ConfigError, UserError
from trainers.clip.architectures import MODEL_FOLDER, OPENAI_NAMES
from trainers.clip.backbones import (
    _check_supported,
    _open_clip_name,
    _quick_gelu_of_tag,
    check_backbone,
    load_clip,
)


def test_the_embedded_clip_loads_without_network(monkeypatch):
    """The embedded weights come from files of the project, with their own mean and deviation."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    clip = load_clip("tiny_clip", "configs/models/tiny_clip.safetensors")
    assert clip.preprocessing.size == (32, 32) and clip.preprocessing.mean == (0.5, 0.5, 0.5)
    assert max(clip.tokenizer.encode("a photo of the digit seven.")) < clip.tokenizer.sot_token_id
    assert clip.tokenizer.context_length == 32


def test_the_embedded_clip_is_small():
    """All files of configs/models together stay below 8 MB."""
    assert sum(file.stat().st_size for file in MODEL_FOLDER.iterdir()) < 8e6


def test_every_model_file_names_a_merges_file_that_exists():
    """The tokenizer's merges lie beside the model's JSON."""
    for file in MODEL_FOLDER.glob("*.json"):
        arguments = json.loads(file.read_text())["text_cfg"].get("tokenizer_kwargs", {})
        assert (file.parent / arguments.get("bpe_path", ".")).exists()


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


@pytest.mark.parametrize("name", [*OPENAI_NAMES, *(name.replace("/", "-") for name in OPENAI_NAMES), *OPENAI_NAMES.values()])
def test_openais_weights_get_quickgelu_by_every_name(name):
    """This holds for a tag and a file in OpenAI's format, under OpenAI's name, open_clip's plain one or its exact one."""
    for needed in (_quick_gelu_of_tag(name, "openai"), True):
        assert open_clip.get_model_config(_open_clip_name(name, needed))["quick_gelu"]


def test_a_tokenizer_that_does_not_end_texts_where_the_tower_reads_them_is_refused():
    """With CLIP's tokenizer and MetaCLIP 2's tower, the first token would silently be read."""
    text = open_clip.CLIPTextCfg(width=24, heads=3, layers=1, pool_type="eos", eos_id=2)
    model = open_clip.model.CustomTextCLIP(16, open_clip.CLIPVisionCfg(layers=1, width=32, head_width=8, image_size=32), text)
    with pytest.raises(UserError, match=r"at the token 2, but its tokenizer ends them by \[49407\]"):
        _check_supported(model, open_clip.get_tokenizer("ViT-B-32"), "other")


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "roberta-ViT-B-32", "ViT-H-14-worldwide-quickgelu"])
def test_a_backbone_that_needs_transformers_says_so_before_anything_is_fetched(name, monkeypatch):
    """Its tokenizer or text tower comes from transformers. One line says what to install."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda own, *_: None if own == "transformers" else find(own))
    with pytest.raises(ConfigError, match=f"{name} are read by transformers: pip install -r requirements-tokenizers.txt"):
        check_backbone(name, open_clip.list_pretrained_tags_by_model(name)[0])


def test_backbones_of_squashed_images_pass_the_check_of_the_config():
    """DFN5B and the Perception Encoder."""
    for name, tag in (("ViT-H-14-378", "dfn5b"), ("PE-Core-B-16", "meta")):
        check_backbone(name, tag)


@pytest.mark.parametrize(("name", "tag", "repository", "right"), [
    ("ViT-B/16", "openai", "timm/vit_base_patch16_clip_224.openai", "ViT-B/16"),
    ("ViT-B-16", "openai", "timm/vit_base_patch16_clip_224.openai", "ViT-B/16"),
    ("RN50", "openai", "timm/resnet50_clip.openai", "RN50"),
    ("RN50x4", "openai", "timm/resnet50x4_clip.openai", "RN50x4-quickgelu"),
    ("ViT-B-16", "metaclip_400m", "timm/vit_base_patch16_clip_224.metaclip_400m", "ViT-B-16-quickgelu"),
    ("ViT-B-16", "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "ViT-B-16")])
def test_weights_that_cannot_be_downloaded_say_where_they_are(monkeypatch, name, tag, repository, right):
    """Without a network, the error names the file to fetch, its source, the key that takes its path, and the fitting name."""
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("open_clip.factory.download_pretrained", offline)
    with pytest.raises(UserError, match="no network") as error:
        load_clip(name, tag)
    assert f"https://huggingface.co/{repository}/resolve/main/open_clip_model.safetensors" in str(error.value)
    assert str(error.value).endswith(f"MODEL.BACKBONE.PRETRAINED, with MODEL.BACKBONE.NAME {right}")
