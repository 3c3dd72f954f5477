"""Checkpoints that people have on disk: small random ones, as transformers and open_clip write them themselves."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel

import train
from dassl.utils.errors import ConfigError, UserError
from trainers.clip.architectures import tower_depths
from trainers.clip.backbones import check_backbone, load_clip, load_model, open_clip_name, weights_of
from trainers.clip.sources import weights_file

WORDS = 49408
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72, "vocab_size": WORDS}
VISION = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 100, "image_size": 32,
          "patch_size": 8}
SIGLIP_TEXT = TEXT | {"hidden_size": 48, "vocab_size": 32000, "max_position_embeddings": 16, "projection_size": 48}


def clip_model(text: dict | None = None, vision: dict | None = None) -> CLIPModel:
    """Return a CLIP of transformers with random weights, spread as trained ones are."""
    config = CLIPConfig(text_config=TEXT | (text or {}), vision_config=VISION | (vision or {}), projection_dim=24)
    return spread(CLIPModel(config))


def siglip_model() -> SiglipModel:
    return spread(SiglipModel(SiglipConfig(text_config=SIGLIP_TEXT, vision_config=VISION)))


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


@pytest.mark.parametrize(("text", "vision"), [
    ({}, {}), ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}), ({"hidden_act": "gelu_pytorch_tanh"}, {"hidden_act": "gelu"}),
    ({"layer_norm_eps": 1e-3}, {"layer_norm_eps": 1e-2}), ({"eos_token_id": 2}, {}), ({"max_position_embeddings": 32}, {}),
    ({}, {"image_size": 48})], ids=["quick", "gelu", "tanh", "eps", "old eos", "short", "large"])
def test_a_clip_of_transformers_computes_as_theirs(tmp_path, text, vision):
    """By the folder alone: activations, epsilons, widths of the MLP, lengths and the resolution are what its config says."""
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
    """Words of higher ids stand before it; of the built tower, as CLIP's tokenizer has no such."""
    theirs = clip_model({"eos_token_id": 1000})
    ids, images = ids_and_images()
    ids = ids.clamp(max=WORDS - 5)
    ids[:, 20] = 1000
    check_equal(load_model(written(tmp_path / "clip", theirs), "").model, theirs, ids, images)


def test_a_siglip_of_transformers_computes_as_theirs(tmp_path):
    """SigLIP and SigLIP 2 of a fixed resolution: tanh's GELU in both towers and in the pooling, epsilon 1e-6, biases."""
    theirs = siglip_model()
    loaded = load_model(written(tmp_path / "siglip", theirs), "")
    generator = torch.Generator().manual_seed(2)
    check_equal(loaded.model, theirs, torch.randint(0, 32000, (4, 16), generator=generator), ids_and_images()[1])
    assert torch.equal(loaded.model.logit_bias, theirs.logit_bias[0])
    assert loaded.model.visual.preprocess_cfg["resize_mode"] == "squash" and loaded.beside == tmp_path / "siglip"


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


SMALL = {"embed_dim": 16, "vision_cfg": {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32},
         "text_cfg": {"context_length": 20, "vocab_size": WORDS, "width": 24, "heads": 3, "layers": 1}}


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


@pytest.fixture
def registered(monkeypatch) -> dict:
    """Let open_clip know Small, of the architecture that `clip_model` has; return it."""
    config = {"embed_dim": 24, "vision_cfg": {"layers": 3, "width": 48, "head_width": 12, "patch_size": 8, "image_size": 32,
                                              "mlp_ratio": 100 / 48},
              "text_cfg": {"context_length": 77, "vocab_size": WORDS, "width": 32, "heads": 4, "layers": 2, "mlp_ratio": 2.25}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-quickgelu", config | {"quick_gelu": True})
    return config


def test_a_checkpoint_of_transformers_and_open_clip_s_of_the_same_weights_are_one_backbone(tmp_path, registered):
    """Under a name that fits, the activation is that of its config, and the fingerprint that of open_clip's file."""
    theirs = clip_model()
    folder = written(tmp_path / "clip", theirs)
    clip = load_clip("Small", folder)
    check_equal(clip.model, theirs, *ids_and_images())
    save_file(clip.model.state_dict(), tmp_path / "small.safetensors", metadata={"model_cfg": json.dumps({"quick_gelu": True})})
    assert load_clip("Small", str(tmp_path / "small.safetensors")).fingerprint == clip.fingerprint
    (tmp_path / "clip" / "config.json").unlink()
    assert load_clip("Small-quickgelu", folder).fingerprint == clip.fingerprint


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_what_a_name_leaves_open_is_what_the_checkpoint_says(tmp_path, registered, eps):
    """An epsilon that open_clip's architecture of the name does not have is still the checkpoint's."""
    theirs = clip_model({"layer_norm_eps": eps}, {"layer_norm_eps": eps})
    check_equal(load_clip("Small", written(tmp_path / "clip", theirs)).model, theirs, *ids_and_images())


def test_a_name_that_does_not_fit_is_refused_with_one_that_does(tmp_path, registered, b32_of_transformers):
    """The small checkpoint is no ViT-B/32, and a ViT-B/32 is no ViT-B/16."""
    with pytest.raises(UserError, match=r"ViT-B-32: they are of another architecture: .*NAME Small or Small-quickgelu"):
        load_clip("ViT-B-32", written(tmp_path / "clip", clip_model()))
    with pytest.raises(UserError, match=r"ViT-B/16: they are of another architecture: .*NAME ViT-B-32 or"):
        load_clip("ViT-B/16", b32_of_transformers)


@pytest.fixture(scope="module")
def b32_of_transformers(tmp_path_factory) -> str:
    """A ViT-B/32 as openai/clip-vit-base-patch32 has it, by transformers' defaults, in half precision."""
    return written(tmp_path_factory.mktemp("b32"), CLIPModel(CLIPConfig()).half())


def test_a_checkpoint_of_full_size_is_that_of_its_name(b32_of_transformers):
    """Bit for bit what open_clip builds of these weights under OpenAI's name, at a few images."""
    clip = load_clip("ViT-B/32", b32_of_transformers)
    assert type(clip.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    theirs = CLIPModel.from_pretrained(b32_of_transformers).float().eval()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    check_equal(clip.model, theirs, open_clip.get_tokenizer("ViT-B-32")(["a photo of a heron.", "a bird"]), images)


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
    """Files that are missing, that lie elsewhere, or that have not what the index says."""
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
    """By transformers' names as far as they are theirs."""
    folder = written(tmp_path / "clip", clip_model())
    file = tmp_path / "clip" / "model.safetensors"
    state = load_file(file) | change
    save_file({key: value for key, value in state.items() if value is not None}, file)
    with pytest.raises(UserError, match=said):
        load_clip(folder, "")


def test_position_ids_of_old_files_are_passed_over(tmp_path):
    folder = written(tmp_path / "clip", clip_model())
    file = tmp_path / "clip" / "model.safetensors"
    save_file(load_file(file) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, file)
    assert load_clip(folder, "").text_depth == 2


@pytest.mark.parametrize(("change", "said"), [
    ({"model_type": "siglip2"}, r"'siglip2' model; .* clip \(CLIPModel\) and siglip"), ({"model_type": None}, "None model"),
    ({"text_config": {"hidden_act": "relu"}, "vision_config": {"hidden_act": "relu"}}, "activation 'relu'"),
    ({"vision_config": {"num_channels": 1}}, "1 channels"),
    ({"text_config": {"hidden_act": "gelu"}}, "quick_gelu in one tower alone")])
def test_a_config_of_another_kind_is_named(tmp_path, change, said):
    """Before anything is loaded, by the check of the config."""
    folder = written(tmp_path / "clip", clip_model())
    config = json.loads((tmp_path / "clip" / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    (tmp_path / "clip" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"^MODEL.BACKBONE.NAME: config.json .*{said}"):
        check_backbone(folder, "")


def test_an_adapter_is_refused_with_how_to_merge_it(tmp_path):
    """A folder of peft holds no whole model; one line says what makes one of it."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "openai/clip"}))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"LoRA adapter .*AutoModel.from_pretrained\('openai/clip'\)") as error:
        check_backbone("ViT-B/32", str(tmp_path))
    assert str(tmp_path) in str(error.value) and "merge_and_unload" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(UserError, match="LoRA adapter"):
        load_clip("ViT-B/32", str(tmp_path / "adapter_model.safetensors"))


def test_a_folder_s_weights_are_those_of_the_usual_names(tmp_path):
    """open_clip's before transformers', one file of another name alone, several or none are an error."""
    with pytest.raises(ConfigError, match=r"holds no weights \(none of open_clip_model.safetensors"):
        weights_file("ViT-B/32", str(tmp_path))
    for names, expected in [(["epoch_3.pt"], "epoch_3.pt"), (["model.safetensors"], "model.safetensors"),
                            (["open_clip_model.safetensors", "pytorch_model.bin"], "open_clip_model.safetensors")]:
        for name in names:
            (tmp_path / name).touch()
        assert weights_file("ViT-B/32", str(tmp_path)).name == expected
    (tmp_path / "several").mkdir()
    for name in ("a.pt", "b.pt"):
        (tmp_path / "several" / name).touch()
    with pytest.raises(ConfigError, match=r"several other weights files, such as a\.pt; name one"):
        weights_file("ViT-B/32", str(tmp_path / "several"))


def test_a_long_path_is_a_name(tmp_path):
    """Longer than a file of open_clip's could be called."""
    folder = tmp_path.joinpath(*["a" * 100] * 4)
    folder.mkdir(parents=True)
    assert tower_depths(written(folder, clip_model())) == {"text": 2, "image": 3}


def test_a_folder_of_a_tag_s_name_does_not_hide_it(tmp_path, monkeypatch):
    """Nor one in the working folder that is called as a backbone is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").mkdir()
    (tmp_path / "ViT-B-32").mkdir()
    check_backbone("ViT-B-32", "openai")
    assert tower_depths("ViT-B-32") == {"text": 12, "image": 12}


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
    """As transformers writes it, in its older forms, within a file for texts and images, and without one."""
    folder = written(tmp_path / "clip", clip_model())
    if isinstance(processor, dict):
        name = "processor_config.json" if "image_processor" in processor else "preprocessor_config.json"
        (tmp_path / "clip" / name).write_text(json.dumps(processor))
    elif processor is not None:
        processor.save_pretrained(folder)
    seen = load_clip(folder, "").preprocessing
    assert (seen.resize, seen.interpolation, seen.mean) == found and seen.size == (32, 32)


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


def test_what_open_clip_cannot_load_has_no_name_there(tmp_path, registered):
    """A folder as the name, and weights of transformers or in several files; others are given by an absolute path."""
    folder = written(tmp_path / "clip", clip_model())
    by_folder, by_name = load_clip(folder, ""), load_clip("Small", folder)
    assert (open_clip_name(by_folder), open_clip_name(by_name)) == ("", "Small-quickgelu")
    assert weights_of(folder, "") == weights_of("Small", folder) == "" and weights_of("Small", "openai") == "openai"
    save_file(by_name.model.state_dict(), tmp_path / "small.safetensors")
    assert weights_of("Small", str(tmp_path / "small.safetensors")) == str(tmp_path / "small.safetensors")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_siglip_of_half_precision_keeps_its_dtype(tmp_path, precision):
    """Also in the tower that is timm's."""
    loaded = load_model(written(tmp_path / "siglip", siglip_model()), "", precision=precision)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert {loaded.model.visual.trunk.patch_embed.proj.weight.dtype,
            loaded.model.text.transformer.resblocks[0].attn.in_proj_weight.dtype} == {dtype}


def test_a_run_on_a_checkpoint_of_transformers_is_one_as_any_other(tmp_path, root, capsys):
    """By its folder as the name, squashed images included: trained, recorded, evaluated again, and gone on with."""
    folder, output = written(tmp_path / "clip", clip_model()), str(tmp_path / "run")
    CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    words = ["--config-file", "configs/quickstart.yaml", "--root", str(root), "--output-dir", output, "OPTIM.MAX_EPOCH", "1",
             "MODEL.BACKBONE.NAME", folder, "MODEL.BACKBONE.PRETRAINED", "", "TRAINER.NAME", "CoOp", "ACTIVE.SAMPLER", "random"]
    assert train.main([*words, "ACTIVE.ROUNDS", "1"]) == 0, capsys.readouterr().err
    assert train.main(["--eval-only", "--model-dir", output, "--root", str(root)]) == 0, capsys.readouterr().err
    assert train.main([*words, "ACTIVE.ROUNDS", "2"]) == 0, capsys.readouterr().err
    assert "continuing after round 0" in capsys.readouterr().out
