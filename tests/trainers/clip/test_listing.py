"""The table of all backbones, and what it says about this disk."""

import subprocess
import sys

import huggingface_hub
import open_clip
import pytest

import train
from dassl.utils.environment import PROJECT
from tests.trainers.clip.test_sources import put_into_cache
from trainers.clip.architectures import OPENAI_NAMES
from trainers.clip.listing import _rows, backbones


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """An empty Hugging Face cache. What was read from the disk before is forgotten."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    _rows.cache_clear()
    yield tmp_path / "hub"
    _rows.cache_clear()


def test_every_backbone_that_a_config_can_name_has_a_row_with_its_tags():
    """OpenAI's names, open_clip's and the embedded one have a row. The embedded file is on this disk."""
    rows = {row[0]: row for row in _rows()}
    assert rows.keys() == {*OPENAI_NAMES, *open_clip.list_models(), "tiny_clip"}
    for name, row in rows.items():
        if name != "tiny_clip":
            assert row[-1].split() == open_clip.list_pretrained_tags_by_model(OPENAI_NAMES.get(name, name))
    assert rows["tiny_clip"] == ("tiny_clip", "32", "128", "32", "configs/models/tiny_clip.safetensors*")
    assert rows["ViT-L-14-336"][1:4] == ("336", "768", "77") and rows["PE-Core-B-16"][1:4] == ("224", "1024", "32")


def test_weights_in_the_cache_have_a_mark(hub):
    """Only the tag that is there has a mark, under each of its names."""
    put_into_cache(hub, "timm/vit_base_patch16_clip_224.openai", PROJECT / "LICENSE", "open_clip_model.safetensors")
    rows = {row[0]: row[-1].split() for row in _rows()}
    assert "openai*" in rows["ViT-B/16"] and "openai*" in rows["ViT-B-16"] and "openai" in rows["ViT-B/32"]
    assert sum(word.endswith("*") for words in rows.values() for word in words) == 4  # with the -quickgelu, and tiny_clip's


@pytest.mark.parametrize("word", ["siglip2", "RN50", "laion2b_s34b_b88k"])
def test_a_word_chooses_names_and_tags(capsys, word):
    """It works in any case, and even if the word looks like a config key."""
    assert train.main(["--list-backbones", word]) == 0
    out = capsys.readouterr().out
    lines = out.split("\n\n")[0].splitlines()[2:]
    assert lines and all(word in line.lower() or word in line for line in lines)
    assert huggingface_hub.constants.HF_HUB_CACHE in out


def test_a_word_that_nothing_has_is_one_line(capsys):
    assert train.main(["--list-backbones", "siglap"]) == 2
    assert capsys.readouterr().err == ("train.py: no backbone has 'siglap' in its name or a tag; --list-backbones without a "
                                       "word prints all\n")


def test_the_table_takes_neither_torch_nor_open_clip():
    """It does not need transformers either, and so it is printed at once."""
    code = ("import sys, train; code = train.main(['--list-backbones']); "
            "print(code, {'torch', 'open_clip', 'transformers'} & sys.modules.keys())")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert found.stdout.splitlines()[-1] == "0 set()" and "ViT-B-16-SigLIP2" in found.stdout and len(backbones()) > 5000
