"""The names by which checkpoints are given: a folder, open_clip's name with a folder, or a file; and what each means."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from dassl.utils.errors import ConfigError, UserError
from tests.trainers.clip.checkpoints import WORDS, check_equal, clip_model, ids_and_images, written
from trainers.clip.architectures import tower_depths
from trainers.clip.backbones import check_backbone, load_clip, open_clip_name, weights_of
from trainers.clip.sources import weights_file


@pytest.fixture
def registered(monkeypatch) -> dict:
    """Make open_clip know Small, with the architecture of `clip_model`, and return it."""
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
    """An epsilon in the checkpoint that open_clip's architecture of that name lacks is still used."""
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


def test_a_folder_s_weights_are_those_of_the_usual_names(tmp_path):
    """open_clip's names come before transformers'. One file of another name is used; several, or none, are an error."""
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
    """The path is longer than open_clip's cache could name a file."""
    folder = tmp_path.joinpath(*["a" * 100] * 4)
    folder.mkdir(parents=True)
    assert tower_depths(written(folder, clip_model())) == {"text": 2, "image": 3}


def test_a_folder_of_a_tag_s_name_does_not_hide_it(tmp_path, monkeypatch):
    """Neither does one in the working folder with the name of a backbone."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").mkdir()
    (tmp_path / "ViT-B-32").mkdir()
    check_backbone("ViT-B-32", "openai")
    assert tower_depths("ViT-B-32") == {"text": 12, "image": 12}


def test_what_open_clip_cannot_load_has_no_name_there(tmp_path, registered):
    """These are a folder as the name, transformers weights, and weights in several files. Others have an absolute path."""
    folder = written(tmp_path / "clip", clip_model())
    by_folder, by_name = load_clip(folder, ""), load_clip("Small", folder)
    assert (open_clip_name(by_folder), open_clip_name(by_name)) == ("", "Small-quickgelu")
    assert weights_of(folder, "") == weights_of("Small", folder) == "" and weights_of("Small", "openai") == "openai"
    save_file(by_name.model.state_dict(), tmp_path / "small.safetensors")
    assert weights_of("Small", str(tmp_path / "small.safetensors")) == str(tmp_path / "small.safetensors")
