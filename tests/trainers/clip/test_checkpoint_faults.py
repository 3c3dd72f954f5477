"""Checkpoints that cannot be read: each is refused with what is wrong and what to do."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dassl.utils.errors import ConfigError, UserError
from tests.trainers.clip.checkpoints import clip_model, written
from trainers.clip.backbones import check_backbone, load_clip


def broken(folder: Path, how: str) -> None:
    """Spoil a checkpoint of transformers in one way."""
    index = folder / "model.safetensors.index.json"
    if how == "shard":
        sorted(folder.glob("*.safetensors"))[1].unlink()
    elif how == "elsewhere":
        index.write_text(json.dumps({"weight_map": {"logit_scale": "../other.safetensors"}}))
    elif how == "no map":
        index.write_text("[]")
    elif how == "not held":
        content = json.loads(index.read_text())
        content["weight_map"]["text_model.more"] = sorted(content["weight_map"].values())[0]
        index.write_text(json.dumps(content))


@pytest.mark.parametrize(("how", "said"), [
    ("shard", r"1 of the \d+ files that the index lists are missing, first model-00002"),
    ("elsewhere", "no weight_map .* beside it"), ("no map", "no weight_map"),
    ("not held", "1 tensors that the index lists are not in their files, first text_model.more")])
def test_an_index_that_does_not_hold_is_refused(tmp_path, how, said):
    """Files are missing, are elsewhere, or do not hold what the index says."""
    folder = written(tmp_path / "clip", clip_model(), max_shard_size="100KB")
    broken(tmp_path / "clip", how)
    with pytest.raises(UserError, match=said):
        load_clip(folder, "")


@pytest.mark.parametrize(("change", "said"), [
    ({"vision_model.gate.weight": torch.ones(2), "classifier.bias": torch.ones(3)},
     "2 tensors are of no CLIPModel .*such as classifier.bias, vision_model.gate.weight"),
    ({"text_model.encoder.layers.0.self_attn.q_proj.bias": None}, r"text_model.encoder.layers.0 has not all of its q_proj"),
    ({"visual_projection.weight": None}, "1 are missing, 0 are unknown, such as visual.proj")])
def test_keys_that_cannot_be_mapped_are_named(tmp_path, change, said):
    """Row 37: keys that come from transformers are named as in transformers."""
    folder = written(tmp_path / "clip", clip_model())
    file = tmp_path / "clip" / "model.safetensors"
    state = load_file(file) | change
    save_file({key: value for key, value in state.items() if value is not None}, file)
    with pytest.raises(UserError, match=said):
        load_clip(folder, "")


@pytest.mark.parametrize(("change", "said"), [
    ({"model_type": "siglip2"}, r"'siglip2' model; .* clip \(CLIPModel\) and siglip"), ({"model_type": None}, "None model"),
    ({"text_config": {"hidden_act": "relu"}, "vision_config": {"hidden_act": "relu"}}, "activation 'relu'"),
    ({"vision_config": {"num_channels": 1}}, "1 channels"),
    ({"text_config": {"hidden_act": "gelu"}}, "quick_gelu in one tower alone")])
def test_a_config_of_another_kind_is_named(tmp_path, change, said):
    """The config check finds it before anything is loaded."""
    folder = written(tmp_path / "clip", clip_model())
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (tmp_path / "clip" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"^MODEL.BACKBONE.NAME: config.json .*{said}"):
        check_backbone(folder, "")


def test_an_adapter_is_refused_with_how_to_merge_it(tmp_path):
    """Row 37: a peft folder holds no whole model. One line says how to make one."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "openai/clip"}))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"LoRA adapter .*AutoModel.from_pretrained\('openai/clip'\)") as error:
        check_backbone("ViT-B/32", str(tmp_path))
    assert str(tmp_path) in str(error.value) and "merge_and_unload" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="LoRA adapter"):
        load_clip("ViT-B/32", str(tmp_path / "adapter_model.safetensors"))


@pytest.mark.parametrize(("processor", "said"), [
    ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, "resizes to 256 pixels and crops 224"),
    ({"size": {"height": 256, "width": 256}, "crop_size": 224}, "resizes to 256 pixels and crops 224"),
    ({"do_resize": False}, "do_resize false"),
    ({"resample": 1}, "resample 1")])
def test_images_that_would_be_prepared_otherwise_are_refused(tmp_path, processor, said):
    folder = written(tmp_path / "clip", clip_model())
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(processor))
    with pytest.raises(UserError, match=said):
        load_clip(folder, "")
