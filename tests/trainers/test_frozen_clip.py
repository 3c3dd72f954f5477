"""The encoders against open_clip itself, and loading against files of every kind."""

import json
import zipfile

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from dassl.utils.errors import ConfigError, UserError
from tests.conftest import random_clip
from trainers.backbones import (
    MODEL_FOLDER,
    _check_supported,
    _is_clips_text,
    _is_clips_tower,
    check_backbone,
    load_clip,
)
from trainers.frozen_clip import normalized
from trainers.prompted_clip import PromptedCLIP, averaged
from trainers.prompts import TRAINERS, Averaging, ClassTexts, Prompts, template_rows, token_rows

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


@pytest.fixture(scope="module")
def b32() -> dict[str, torch.Tensor]:
    """The state dict of a ViT-B/32 of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.create_model("ViT-B-32-quickgelu").state_dict()


@pytest.mark.parametrize("form", ["openai", "open_clip", "trained"])
def test_a_local_file_of_either_format_loads_with_quickgelu(tmp_path, b32, form):
    """A state dict as OpenAI writes it (fp16, three numbers beside), an open_clip safetensors file and a training
    checkpoint with "module." in front give the same encoder, with QuickGELU."""
    half = {key: value.half() for key, value in b32.items()}
    file = tmp_path / {"openai": "ViT-B-32.pt", "open_clip": "open_clip_model.safetensors", "trained": "epoch_1.pt"}[form]
    if form == "open_clip":
        save_file(half, file)
    elif form == "openai":
        torch.save({**half, "input_resolution": torch.tensor(224), "context_length": torch.tensor(77),
                    "vocab_size": torch.tensor(49408)}, file)
    else:
        torch.save({"epoch": 1, "state_dict": {f"module.{key}": value for key, value in half.items()}}, file)
    clip = load_clip("ViT-B/32", str(file))
    assert all(torch.equal(value, half[key].float()) for key, value in clip.model.state_dict().items())
    assert type(clip.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert clip.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


@pytest.mark.parametrize("change", [{"no_causal_mask": True}, {"embed_cls": True}, {"pool_type": "last"}])
def test_text_towers_of_another_kind_are_refused(change):
    """A tower that is not causal, or not read at the end token, would be computed wrongly, so it is refused."""
    model = open_clip.model.CustomTextCLIP(16, open_clip.CLIPVisionCfg(layers=1, width=32, head_width=8, image_size=32),
                                           open_clip.CLIPTextCfg(width=24, heads=3, layers=1, **change))
    with pytest.raises(UserError, match="another text tower"):
        _check_supported(model, open_clip.get_tokenizer("ViT-B-32"), "other")


@pytest.mark.parametrize(("name", "tag", "message"), [
    ("ViT-B-16-SigLIP", "webli", "text tower"), ("coca_ViT-B-32", "laion2b_s13b_b90k", "text tower"),
    ("roberta-ViT-B-32", "laion2b_s12b_b32k", "text tower"), ("ViT-L-14-worldwide", "metaclip2_worldwide", "text tower"),
    ("ViT-H-14-378", "dfn5b", "'squash'")])
def test_towers_and_views_of_another_kind_are_refused_before_anything_is_fetched(name, tag, message):
    """What a known name and tag cannot do here is an error of one line at the check of the config, not after a download."""
    with pytest.raises(ConfigError, match=message) as error:
        check_backbone(name, tag)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_weights_file_for_squashed_images_is_refused(tmp_path):
    """The views that a weights file asks for are those of training, so another way to resize is an error, not a guess."""
    state = load_file(MODEL_FOLDER / "tiny_clip.safetensors")
    save_file(state, tmp_path / "tiny.safetensors", metadata={"preprocess_cfg": json.dumps({"resize_mode": "squash"})})
    with pytest.raises(UserError, match=r"tiny_clip.*'squash'.*'shortest'"):
        load_clip("tiny_clip", str(tmp_path / "tiny.safetensors"))


@pytest.mark.parametrize(("name", "supported"), [
    ("ViT-B-16", True), ("EVA02-B-16", True), ("RN50", True), ("MobileCLIP-B", True), ("MobileCLIP-S1", False),
    ("coca_ViT-B-32", False), ("ViT-L-14-CLIPA", False), ("ViT-B-16-SigLIP", False)])
def test_the_check_of_a_name_agrees_with_the_text_tower_when_built(name, supported):
    """What the config of a text tower says of it is what the tower is, for one model of each kind."""
    config = open_clip.get_model_config(name)["text_cfg"]
    with torch.device("meta"):
        tower = open_clip.model._build_text_tower(16, open_clip.CLIPTextCfg(**config))
    assert _is_clips_text(config) == _is_clips_tower(tower) == supported


def test_weights_of_another_architecture_are_refused(tmp_path, b32):
    """ViT-B/32's weights do not load into ViT-B/16; the error counts what does not fit."""
    save_file(b32, tmp_path / "b32.safetensors")
    with pytest.raises(UserError, match=r"ViT-B/16: they are of another architecture: 2 tensors have other shapes"):
        load_clip("ViT-B/16", str(tmp_path / "b32.safetensors"))


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
    """A TorchScript file, as OpenAI releases its models, is a program: the error says so and where the same weights lie."""
    with zipfile.ZipFile(tmp_path / "ViT-B-16.pt", "w") as file:
        for name in ("version", "data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"archive/{name}", "3\n")
    with pytest.raises(UserError, match=r"ViT-B-16\.pt.*a program \(TorchScript\)") as error:
        load_clip("ViT-B/16", str(tmp_path / "ViT-B-16.pt"))
    assert "vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors" in str(error.value)


@pytest.mark.parametrize(("name", "tag", "address"), [
    ("ViT-B/16", "openai", "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors"),
    ("ViT-B-16", "laion2b_s34b_b88k",
     "https://huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K/resolve/main/open_clip_model.safetensors")])
def test_weights_that_cannot_be_downloaded_say_where_they_are(monkeypatch, name, tag, address):
    """Without a network the error names the file to fetch, from where, and the key that takes its path."""
    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("open_clip.factory.download_pretrained", offline)
    with pytest.raises(UserError, match="no network") as error:
        load_clip(name, tag)
    assert address in str(error.value) and "MODEL.BACKBONE.PRETRAINED" in str(error.value)


@pytest.mark.parametrize("normalize", [False, True])
def test_descriptions_are_averaged_in_fp32(normalize):
    """Features of low-precision towers are averaged in fp32, in both modes."""
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = averaged(features, Averaging(matrix, normalize))
    assert found.dtype == torch.float32 and torch.equal(found, averaged(features.float(), Averaging(matrix, normalize)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_towers_stay_near_fp32_and_prompts_stay_fp32(precision):
    """MODEL.PREC is the towers' precision: features are near those of fp32; a prompt and its gradient are fp32."""
    weights = "configs/models/tiny_clip.safetensors"
    exact, low = (load_clip("tiny_clip", weights, precision=name) for name in ("fp32", precision))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (normalized(low.encode_image(images)) - normalized(exact.encode_image(images))).abs().max() < 0.02
    models = [PromptedCLIP(clip, TRAINERS["MaPLe"].build(clip, ClassTexts(tuple(NAMES), "{}"), np.random.default_rng(0),
                                                         prompt_depth=2)) for clip in (exact, low)]
    features = [model.classifier(model.learner()).texts for model in models]
    assert features[1].dtype == torch.float32 and (features[1] - features[0]).abs().max() < 0.02
    (models[1].image_features(low.embed_image(images), models[1].learner()).sum() + features[1].sum()).backward()
    assert all(parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()
               for parameter in models[1].learner.parameters())


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
