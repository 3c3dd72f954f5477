"""Weights files of every kind: what is read from them, the activation that they need, and which files are refused."""

import json
import logging
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from dassl.utils.errors import UserError
from trainers.clip.architectures import MODEL_FOLDER, OPENAI_NAMES
from trainers.clip.backbones import load_clip
from trainers.clip.building import NotDrawn
from trainers.clip.frozen_clip import FrozenCLIP


@pytest.fixture(scope="module")
def b32() -> dict[str, torch.Tensor]:
    """The state dict of a ViT-B/32 of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.create_model("ViT-B-32-quickgelu").state_dict()


@pytest.mark.parametrize("form", ["openai", "open_clip", "trained"])
def test_a_local_file_of_either_format_loads_with_quickgelu(request, tmp_path, form):
    """A state dict as OpenAI writes it (fp16, three numbers beside), an open_clip safetensors file and a training
    checkpoint with "module." in front give the same encoder, with QuickGELU."""
    name, weights = ("ViT-B/32", "b32") if form == "openai" else ("Small/8", "small")  # one of full size is enough
    half = {key: value.half() for key, value in request.getfixturevalue(weights).items()}
    file = tmp_path / {"openai": "ViT-B-32.pt", "open_clip": "open_clip_model.safetensors", "trained": "epoch_1.pt"}[form]
    if form == "open_clip":
        save_file(half, file)
    elif form == "openai":
        torch.save({**half, "input_resolution": torch.tensor(224), "context_length": torch.tensor(77),
                    "vocab_size": torch.tensor(49408)}, file)
    else:
        torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in half.items()}}, file)
    clip = load_clip(name, str(file))
    assert all(torch.equal(value, half[key].float()) for key, value in clip.model.state_dict().items())
    assert type(clip.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert clip.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


@pytest.fixture
def small(monkeypatch) -> dict[str, torch.Tensor]:
    """Register a CLIP of two small towers as Small, Small-quickgelu and, like OpenAI's names, Small/8; return its weights."""
    config = {"embed_dim": 16, "vision_cfg": {"layers": 1, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32},
              "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 1}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small", config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-quickgelu", {**config, "quick_gelu": True})
    monkeypatch.setitem(OPENAI_NAMES, "Small/8", "Small-quickgelu")
    with torch.random.fork_rng(devices=[]):
        return open_clip.create_model("Small").state_dict()


def written(folder: Path, state: dict[str, torch.Tensor], says: str) -> str:
    """Write weights to a file. `says` is where the activation is given: OpenAI's format, a config, metadata, or nowhere."""
    if says == "openai":
        torch.save({**state, "input_resolution": torch.tensor(32), "context_length": torch.tensor(77),
                    "vocab_size": torch.tensor(49408)}, folder / "weights.pt")
        return str(folder / "weights.pt")
    place, _, activation = says.partition(" ")
    model_cfg = {"embed_dim": 16, **({"quick_gelu": True} if activation == "QuickGELU" else {})}
    if place == "beside":
        content = {"model_cfg": model_cfg, "preprocess_cfg": {"interpolation": "bilinear", "mean": [0.0, 0.0, 0.5]}}
        (folder / "open_clip_config.json").write_text(json.dumps(content))
    metadata = {"model_cfg": json.dumps(model_cfg)} if place == "metadata" else None
    save_file(state, folder / "weights.safetensors", metadata=metadata)
    return str(folder / "weights.safetensors")


def activations(clip: FrozenCLIP) -> set[str]:
    return {type(tower.resblocks[0].mlp.gelu).__name__ for tower in (clip.model.transformer, clip.model.visual.transformer)}


@pytest.mark.parametrize(("name", "says", "expected"), [
    ("Small", "openai", "QuickGELU"), ("Small/8", "openai", "QuickGELU"), ("Small-quickgelu", "openai", "QuickGELU"),
    ("Small", "beside QuickGELU", "QuickGELU"), ("Small/8", "beside GELU", "GELU"),
    ("Small", "metadata QuickGELU", "QuickGELU"), ("Small/8", "metadata GELU", "GELU"),
    ("Small", "", "GELU"), ("Small/8", "", "QuickGELU"), ("Small-quickgelu", "", "QuickGELU")])
def test_the_activation_is_what_the_weights_say_or_else_what_the_name_says(tmp_path, small, caplog, name, says, expected):
    """Both towers have it. If neither weights nor exact name give it, one line of the log says what was assumed."""
    file = written(tmp_path, small, says)
    with caplog.at_level(logging.INFO):
        assert activations(load_clip(name, file)) == {expected}
    assumed = [line for line in caplog.messages if "assumed" in line]
    assert len(assumed) == (name != "Small-quickgelu" and not says) and all(f" {expected} is" in line for line in assumed)


def test_weights_that_need_another_activation_than_an_exact_name_are_refused(tmp_path, small):
    """Someone who writes -quickgelu means it, so the error names both."""
    with pytest.raises(UserError, match="weights need GELU, but Small-quickgelu has QuickGELU"):
        load_clip("Small-quickgelu", written(tmp_path, small, "beside GELU"))


@pytest.mark.parametrize(("says", "interpolation", "mean"), [
    ("beside GELU", "bilinear", (0.0, 0.0, 0.5)), ("", "bicubic", open_clip.OPENAI_DATASET_MEAN)])
def test_a_config_beside_the_weights_says_their_preprocessing(tmp_path, small, says, interpolation, mean):
    """Without one it is OpenAI's, which open_clip takes for any file."""
    preprocessing = load_clip("Small", written(tmp_path, small, says)).preprocessing
    assert (preprocessing.interpolation, preprocessing.mean) == (interpolation, tuple(mean))


@pytest.mark.parametrize(("says", "found"), [
    ({}, ("shortest", 0)), ({"resize_mode": "squash"}, ("squash", 0)),
    ({"resize_mode": "longest", "fill_color": 114}, ("longest", 114)), ({"resize_mode": None}, ("shortest", 0))])
def test_a_weights_file_says_how_its_images_are_resized(tmp_path, says, found):
    """They do so in their metadata, as open_clip's own files do."""
    state = load_file(MODEL_FOLDER / "tiny_clip.safetensors")
    save_file(state, tmp_path / "tiny.safetensors", metadata={"preprocess_cfg": json.dumps(says)})
    preprocessing = load_clip("tiny_clip", str(tmp_path / "tiny.safetensors")).preprocessing
    assert (preprocessing.resize, preprocessing.fill) == found


def test_a_way_to_resize_that_nobody_knows_is_refused(tmp_path):
    """The error names it and those that are known."""
    state = load_file(MODEL_FOLDER / "tiny_clip.safetensors")
    save_file(state, tmp_path / "tiny.safetensors", metadata={"preprocess_cfg": json.dumps({"resize_mode": "zoom"})})
    with pytest.raises(UserError, match=r"'zoom'.*shortest, squash, longest"):
        load_clip("tiny_clip", str(tmp_path / "tiny.safetensors"))


def test_weights_of_another_architecture_are_refused(tmp_path, b32):
    """ViT-B/32's weights do not load into ViT-B/16; the error counts what does not fit."""
    save_file(b32, tmp_path / "b32.safetensors")
    with pytest.raises(UserError, match=r"ViT-B/16: they are of another architecture: 2 tensors have other shapes"):
        load_clip("ViT-B/16", str(tmp_path / "b32.safetensors"))


def test_a_truncated_weights_file_is_one_clear_error(tmp_path):
    """Of a file cut in half, the error names the file and the backbone."""
    whole = (MODEL_FOLDER / "tiny_clip.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half\.safetensors.*tiny_clip"):
        load_clip("tiny_clip", str(tmp_path / "half.safetensors"))


def test_a_pickle_with_a_program_is_refused_and_not_run(tmp_path):
    """Row 19: a weights file that would run code is not run."""
    class Program:
        def __reduce__(self):
            return (tmp_path.joinpath("planted").write_text, ("run",))

    torch.save({"state_dict": Program()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt"):
        load_clip("ViT-B/32", str(tmp_path / "evil.pt"))
    assert not (tmp_path / "planted").exists()


def test_openais_released_program_is_refused_with_the_place_of_its_weights(tmp_path):
    """OpenAI releases its models as TorchScript, which is a program. The error says so, and where to get the same weights."""
    with zipfile.ZipFile(tmp_path / "ViT-B-16.pt", "w") as file:
        for name in ("version", "data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"archive/{name}", "3\n")
    for name in ("ViT-B/16", "ViT-B-16"):
        with pytest.raises(UserError, match=r"ViT-B-16\.pt.*a program \(TorchScript\)") as error:
            load_clip(name, str(tmp_path / "ViT-B-16.pt"))
        assert "vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors" in str(error.value)
        assert str(error.value).endswith("MODEL.BACKBONE.NAME ViT-B/16")


def test_the_fingerprint_tells_weights_apart(tmp_path):
    """Two weights files that differ in one value have different fingerprints; a copy has the same."""
    original = MODEL_FOLDER / "tiny_clip.safetensors"
    (tmp_path / "copy.safetensors").write_bytes(original.read_bytes())
    state = load_file(original)
    state["logit_scale"] += 0.125
    save_file(state, tmp_path / "other.safetensors")
    prints = [load_clip("tiny_clip", str(path)).fingerprint
              for path in (original, tmp_path / "copy.safetensors", tmp_path / "other.safetensors")]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("wrapped", [
    lambda state: {"model": state, "optimizer": {}, "epoch": 3}, lambda state: {"state_dict": state},
    lambda state: {f"clip.{key}": value for key, value in state.items()},
    lambda state: {"model": {f"module.clip.{key}": value for key, value in state.items()}},
    lambda state: {"model": {"state_dict": state}}, lambda state: {"model_state_dict": state},
    lambda state: {f"clip.module.{key}": value for key, value in state.items()}])
def test_weights_in_a_wrapper_are_those_inside(tmp_path, small, wrapped):
    """Training code saves the model among other things, or as a part that is called clip."""
    torch.save(wrapped(small), tmp_path / "weights.pt")
    state = load_clip("Small", str(tmp_path / "weights.pt")).model.state_dict()
    assert all(torch.equal(value, small[key]) for key, value in state.items())


@pytest.mark.parametrize(("state", "said"), [
    ({"base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2)},
     "LoRA adapter.*merge_and_unload"),
    ({"state_dict": {"prompt_learner.ctx": torch.ones(4, 8), "prompt_learner.token_prefix": torch.ones(3, 1, 8)}},
     "prompts of a CoOp or MaPLe checkpoint"),
    ({"ctx": torch.ones(4, 8), "token_prefix": torch.ones(3, 1, 8)}, "prompts of a CoOp or MaPLe checkpoint"),
    ({"ctx": torch.ones(4, 8)}, "prompts of a CoOp or MaPLe checkpoint"), ({}, "something else than tensors by name"),
    ({"clip.logit_scale": torch.ones(()), "head.weight": torch.ones(2)}, "a model around a CLIP .*CLIP alone"),
    ({"epoch": 3, "weights": [torch.ones(2)]}, "something else than tensors by name"),
    ([torch.ones(2)], "something else than tensors by name")])
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path, small, state, said):
    """The error says what to do, instead of counting missing tensors."""
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=said):
        load_clip("Small", str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_git_lfs_pointer_is_named(tmp_path, small, name):
    """What a checkout without LFS holds in place of the weights."""
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n")
    with pytest.raises(UserError, match=r"Git LFS pointer .*git lfs pull"):
        load_clip("Small", str(tmp_path / name))


@pytest.mark.parametrize("content", [
    b"", b"<!DOCTYPE html><html>not found</html>", b"PK", MODEL_FOLDER / "tiny_clip.safetensors"])
def test_torch_s_advice_to_run_what_is_in_a_file_is_not_passed_on(tmp_path, small, content):
    """The file is the page of a failed download, an empty file, or safetensors under another suffix."""
    (tmp_path / "weights.pt").write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with pytest.raises(UserError, match=r"neither safetensors .* nor a state dict") as caught:
        load_clip("Small", str(tmp_path / "weights.pt"))
    assert "weights_only" not in str(caught.value)


def test_a_model_keeps_what_its_file_held_when_it_was_read(small, tmp_path):
    """All weights are the file's, bit for bit. The file is not memory-mapped, so a later change does not matter."""
    file = Path(written(tmp_path, small, "beside GELU"))
    clip = load_clip("Small", str(file))
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    state = clip.model.state_dict()
    assert state.keys() == small.keys() and all(torch.equal(state[name], value) for name, value in small.items())


def test_what_a_file_must_hold_is_not_drawn_and_all_else_is():
    """Under `NotDrawn` a layer's weights stay uninitialized, while norms are built as usual."""
    before = torch.random.get_rng_state()
    with NotDrawn():
        layer, norm = torch.nn.Linear(4, 3), torch.nn.LayerNorm(4)
        kept = torch.zeros(5)
        assert torch.nn.init.normal_(kept) is kept and not kept.any() and torch.nn.init.trunc_normal_(kept) is kept
        assert not torch.nn.init.kaiming_uniform_(kept[None]).any() and not kept.any()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert layer.weight.shape == (3, 4) and torch.equal(norm.weight, torch.ones(4))
