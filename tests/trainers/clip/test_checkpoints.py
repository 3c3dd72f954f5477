"""Checkpoints on disk compute the same as in their source: transformers, or open_clip's folders."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, CLIPImageProcessor, SiglipImageProcessor

from tests.trainers.clip.checkpoints import (
    SMALL,
    TEXT,
    VISION,
    WORDS,
    check_equal,
    clip_model,
    ids_and_images,
    siglip_model,
    spread,
    written,
)
from tests.trainers.clip.families import save_tokenizer
from trainers.clip.architectures import tower_depths
from trainers.clip.backbones import load_clip, load_model
from trainers.clip.frozen_clip import normalized
from trainers.core.prompts import Prompts
from trainers.core.token_rows import template_rows, token_rows, word_ids


@pytest.mark.parametrize(("text", "vision"), [
    ({}, {}), ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}), ({"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "gelu"}),
    ({"layer_norm_eps": 1e-3}, {"layer_norm_eps": 1e-2}), ({"eos_token_id": 2}, {}), ({"max_position_embeddings": 32}, {}),
    ({}, {"image_size": 48})], ids=["quick", "gelu", "tanh", "eps", "old eos", "short", "large"])
def test_a_clip_of_transformers_computes_as_theirs(tmp_path, text, vision):
    """The folder is enough: activations, epsilons, MLP widths, lengths and resolution are those of its config."""
    theirs = clip_model(text, vision)
    folder = written(tmp_path / "clip", theirs)
    clip = load_clip(folder, "")
    ids, images = ids_and_images(text.get("max_position_embeddings", 77))
    if vision.get("image_size") == 48:
        images = nn.functional.interpolate(images, 48)
    check_equal(clip.model, theirs, ids, images)
    assert clip.logit_scale == pytest.approx(float(theirs.logit_scale.detach().exp()))
    assert tower_depths(folder) == {"text": 2, "image": 3} and clip.name == folder


def test_an_end_token_that_is_not_the_last_one_is_found_where_transformers_finds_it(tmp_path):
    """Words with higher ids stand before it. The built tower is tested, as CLIP's tokenizer has no such words."""
    theirs = clip_model({"eos_token_id": 1000})
    ids, images = ids_and_images()
    ids = ids.clamp(max=WORDS - 5)
    ids[:, 20] = 1000
    check_equal(load_model(written(tmp_path / "clip", theirs), "").model, theirs, ids, images)


def test_a_siglip_of_transformers_computes_as_theirs(tmp_path):
    """SigLIP and SigLIP 2 of a fixed resolution: tanh's GELU in both towers and in the pooling, epsilon 1e-6, biases."""
    theirs = siglip_model()
    folder = written(tmp_path / "siglip", theirs)
    save_tokenizer(tmp_path / "siglip", "end")
    clip = load_clip(folder, "")
    generator = torch.Generator().manual_seed(2)
    check_equal(clip.model, theirs, torch.randint(0, 32000, (4, 16), generator=generator), ids_and_images()[1])
    assert torch.equal(clip.model.logit_bias, theirs.logit_bias[0])
    assert clip.preprocessing.resize == "squash" and tower_depths(folder) == {"text": 2}


@torch.no_grad()
def test_texts_of_a_siglip_are_those_of_transformers_with_a_context_and_without(tmp_path):
    """The tokenizer is in its folder. A context of the template's words gives the template; long texts are cut the same."""
    theirs = siglip_model()
    folder = written(tmp_path / "siglip", theirs)
    save_tokenizer(tmp_path / "siglip", "end")
    clip, names = load_clip(folder, ""), ["heron", "Blue_tit", "extraordinarily"]
    read = AutoTokenizer.from_pretrained(folder)(["my heron", "my blue tit", "my extraordinarily"], padding="max_length",
                                                 truncation=True, max_length=16)
    expected = normalized(theirs.get_text_features(input_ids=torch.tensor(read.input_ids)).pooler_output)
    plain = clip.encode_text(template_rows(clip.tokenizer, names, "my {}."))
    assert (normalized(plain) - expected).abs().max() < 1e-5
    words = word_ids(clip.tokenizer, "my")
    context = Prompts(text=(clip.embed_tokens(words),))
    found = clip.encode_text(token_rows(clip.tokenizer, names[:2], len(words)), context)
    assert (normalized(found) - expected[:2]).abs().max() < 1e-5


@pytest.mark.parametrize("how", ["fp16", "bin", "sharded", "sharded bin", "index", "file", "wrapped", "local-dir", "prefixed"])
def test_every_form_of_the_same_weights_is_read(tmp_path, how):
    """In one file or many, pickled or not, in half precision, and as training code wraps them."""
    theirs, folder = clip_model(), tmp_path / "clip"
    if how == "fp16":
        theirs = theirs.half()
    written(folder, theirs, max_shard_size="100KB" if how in ("sharded", "index", "sharded bin") else "5GB")
    files = sorted(folder.glob("*.safetensors"))
    assert (len(files) > 2) == (how in ("sharded", "index", "sharded bin"))
    if how in ("bin", "sharded bin"):
        as_bins(folder)
    if how in ("wrapped", "prefixed"):
        state = load_file(files[0])
        files[0].unlink()
        torch.save({"model": {f"module.clip.{key}": value for key, value in state.items()}} if how == "prefixed" else
                   {"state_dict": state, "epoch": 2}, folder / "epoch_2.pt")
    given = {"file": str(files[0]), "index": f"{folder}/model.safetensors.index.json", "local-dir": f"local-dir:{folder}"}
    clip = load_clip(str(folder), given.get(how, str(folder)))
    check_equal(clip.model, theirs.float(), *ids_and_images())


def as_bins(folder: Path) -> None:
    """Write the weights of a folder as files of torch.save, under the names that transformers gave them."""
    for file in folder.glob("*.safetensors"):
        name = file.name.replace("model", "pytorch_model", 1).replace(".safetensors", ".bin")
        torch.save(load_file(file), folder / name)
        file.unlink()
    for index in folder.glob("*.index.json"):
        content = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(content)
        index.unlink()


@pytest.mark.parametrize(("config", "old"), [({}, {}), ({}, {"text_config_dict": {"hidden_act": "gelu"}}),
                                             ({"text_config_dict": None}, {})])
def test_a_config_says_what_it_leaves_out(tmp_path, config, old):
    """Defaults of transformers, and the parts of old files, which win with all their defaults."""
    folder = written(tmp_path / "clip", clip_model())
    said = json.loads((tmp_path / "clip" / "config.json").read_text()) | config
    for part in ("text_config", "vision_config"):
        said[part] = {key: value for key, value in said[part].items() if value not in (1e-5, "quick_gelu", 77)}
    if old:
        both = TEXT | {"hidden_act": "gelu"}
        said |= {"text_config_dict": both, "vision_config_dict": VISION | {"hidden_act": "gelu"}}
    (tmp_path / "clip" / "config.json").write_text(json.dumps(said))
    activation = type(load_clip(folder, "").model.transformer.resblocks[0].mlp.gelu).__name__
    assert activation == ("GELU" if old else "QuickGELU")


@pytest.mark.parametrize("changes", [{}, {"quick_gelu": True}, {"custom_text": True, "init_logit_bias": -10.0}],
                         ids=["gelu", "quick", "custom text"])
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_folder_of_open_clip_computes_as_its_own(tmp_path, changes, form):
    """What push_to_hf_hub writes and `local-dir:` reads, by either file, with how images are resized."""
    config = SMALL | changes
    kind = open_clip.CustomTextCLIP if "custom_text" in changes else open_clip.CLIP
    theirs = spread(kind(**{key: value for key, value in config.items() if key != "custom_text"}))
    view = {"size": (32, 32), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear",
            "resize_mode": "squash", "fill_color": 0}
    open_clip.model.set_model_preprocess_cfg(theirs, view)
    save_for_hf(theirs, NoTokenizer(), config, str(tmp_path), safe_serialization=form == "safetensors")
    clip = load_clip(f"local-dir:{tmp_path}", "")
    ids, images = ids_and_images(20)
    with torch.no_grad():
        assert torch.equal(clip.model.encode_image(images), theirs.encode_image(images))
        assert torch.equal(clip.model.encode_text(ids), theirs.encode_text(ids))
    seen = clip.preprocessing
    assert (seen.mean, seen.std, seen.interpolation, seen.resize) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", "squash")
    assert tower_depths(f"local-dir:{tmp_path}") == {"text": 1, "image": 2}


class NoTokenizer:
    def save_pretrained(self, folder) -> None:
        """Write nothing."""


def test_position_ids_of_old_files_are_passed_over(tmp_path):
    folder = written(tmp_path / "clip", clip_model())
    file = tmp_path / "clip" / "model.safetensors"
    save_file(load_file(file) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file)
    assert load_clip(folder, "").text_depth == 2


@pytest.mark.parametrize(("processor", "found"), [
    (CLIPImageProcessor(), ("shortest", "bicubic", open_clip.OPENAI_DATASET_MEAN)),
    (SiglipImageProcessor(resample=2), ("squash", "bilinear", (0.5, 0.5, 0.5))),
    ({"size": 32, "crop_size": 32, "do_center_crop": True, "resample": 3, "image_mean": [0.1, 0.2, 0.3]},
     ("shortest", "bicubic", (0.1, 0.2, 0.3))),
    ({"do_normalize": False, "size": {"height": 32, "width": 32}, "do_center_crop": False}, ("squash", "bicubic", (0.0,) * 3)),
    ({"image_processor": {"size": {"height": 32, "width": 32}, "resample": 2}}, ("squash", "bilinear",
                                                                                open_clip.OPENAI_DATASET_MEAN)),
    (None, ("shortest", "bicubic", open_clip.OPENAI_DATASET_MEAN))])
def test_images_are_prepared_as_the_processor_s_file_says(tmp_path, processor, found):
    """They may be as transformers writes them now or wrote them earlier, be in a file for texts and images, or be absent."""
    folder = written(tmp_path / "clip", clip_model())
    if isinstance(processor, dict):
        name = "processor_config.json" if "image_processor" in processor else "preprocessor_config.json"
        (tmp_path / "clip" / name).write_text(json.dumps(processor))
    elif processor is not None:
        processor.save_pretrained(folder)
    seen = load_clip(folder, "").preprocessing
    assert (seen.resize, seen.interpolation, seen.mean) == found and seen.size == (32, 32)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_siglip_of_half_precision_keeps_its_dtype(tmp_path, precision):
    """This includes timm's tower."""
    loaded = load_model(written(tmp_path / "siglip", siglip_model()), "", precision=precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {loaded.model.visual.trunk.patch_embed.proj.weight.dtype,
            loaded.model.text.transformer.resblocks[0].attn.in_proj_weight.dtype} == {dtype}
