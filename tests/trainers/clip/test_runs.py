"""Whole runs on checkpoints of today's families: trained, gone on with, verified, used and exported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import numpy as np
import onnxruntime
import pytest
from open_clip.push_to_hf_hub import save_for_hf
from PIL import Image
from transformers import CLIPImageProcessor, RobertaConfig, SiglipImageProcessor

import active.verify
import train
from active.record.results import RunResult
from dassl.utils.errors import UserError
from scripts import export, predict
from tests import commands
from tests.trainers.clip.checkpoints import SMALL, clip_model, siglip_model, spread, written
from tests.trainers.clip.families import VOCABULARY, save_tokenizer
from tests.trainers.clip.test_sources import put_into_cache
from trainers.clip.backbones import load_clip
from trainers.clip.building import build
from trainers.core.classifier import Classifier

TEXT, LETTERS = SMALL["text_cfg"], 64  # tokens, of texts whose tokens are letters
PE = SMALL | {"custom_text": True, "vision_cfg": {  # timm's architecture, at a size for which neither has a name
    "image_size": 32, "timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_model_pretrained": False, "timm_pool": "map",
    "timm_proj": None, "timm_args": {"img_size": 32, "depth": 2, "ref_feat_shape": [2, 2]}}}
COCA = SMALL | {
    "custom_text": True, "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
    "vision_cfg": SMALL["vision_cfg"] | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
    "multimodal_cfg": {"context_length": 20, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 1, "attn_pooler_heads": 3}}
RESNET = SMALL | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
REPOSITORY = "people/roberta"
ROBERTA = SMALL | {"text_cfg": {"hf_model_name": REPOSITORY, "hf_tokenizer_name": REPOSITORY, "context_length": LETTERS,
                                "vocab_size": len(VOCABULARY), "hf_pooler_type": "mean_pooler"}}


class NoTokenizer:
    def save_pretrained(self, folder) -> None:
        """Write nothing: CLIP's own tokenizer is built in, and that of transformers is in the cache."""


def of_open_clip(folder: Path, config: dict) -> str:
    """Write what push_to_hf_hub would, of random weights; return the folder."""
    view = {"mean": (0.4,) * 3, "std": (0.3,) * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    model = spread(build(config, view, "cpu", "fp32"))
    save_for_hf(model, NoTokenizer(), config, str(folder))
    return str(folder)


def siglip(folder: Path) -> str:
    written(folder, siglip_model({"max_position_embeddings": LETTERS}))
    save_tokenizer(folder, "end")
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


def clip(folder: Path) -> str:
    CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    return written(folder, clip_model())


def roberta(folder: Path) -> str:
    """A text tower by the name of a model of transformers, whose config and tokenizer are in Hugging Face's cache."""
    files, hub = folder.with_name("roberta"), Path(huggingface_hub.constants.HF_HUB_CACHE)
    RobertaConfig(vocab_size=len(VOCABULARY), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32,
                  max_position_embeddings=LETTERS + 2, pad_token_id=0, bos_token_id=2, eos_token_id=1).save_pretrained(files)
    save_tokenizer(files, "both")
    for file in files.iterdir():
        put_into_cache(hub, REPOSITORY, file)
    return of_open_clip(folder, ROBERTA)


MAKERS: dict[str, Callable[[Path], str]] = {
    "SigLIP of transformers": siglip, "CLIP of transformers": clip, "RoBERTa": roberta,
    "Perception Encoder": lambda folder: of_open_clip(folder, PE), "CoCa": lambda folder: of_open_clip(folder, COCA),
    "ResNet": lambda folder: of_open_clip(folder, RESNET)}
LEARNED = [*(("SigLIP of transformers", learner) for learner in ("LinearProbe", "CoOp", "VPT", "MaPLe")),
           ("CLIP of transformers", "MaPLe"), ("Perception Encoder", "VPT"), ("Perception Encoder", "MaPLe"), ("CoCa", "CoOp"),
           ("CoCa", "MaPLe"), ("RoBERTa", "CoOp"), ("RoBERTa", "VPT"), ("ResNet", "LinearProbe")]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Callable[[str], str]:
    """A function from the name of a maker to the folder of its checkpoint; the cache of Hugging Face's is that of the tests."""
    made: dict[str, str] = {}
    folder = tmp_path_factory.mktemp("backbones")

    def made_once(name: str) -> str:
        if name not in made:
            made[name] = MAKERS[name](folder / name.replace(" ", "_"))
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield made_once


def words(folder: str, root: Path, output: Path, learner: str, n_rounds: int = 2) -> list[str]:
    return ["--config-file", "configs/quickstart.yaml", "--root", str(root), "--output-dir", str(output),
            "MODEL.BACKBONE.NAME", folder, "MODEL.BACKBONE.PRETRAINED", "", "TRAINER.NAME", learner, "ACTIVE.SAMPLER", "random",
            "OPTIM.MAX_EPOCH", "1", "ACTIVE.ROUNDS", str(n_rounds), "DATASET.NUM_SHOTS", "4", "TRAINER.COOP.N_CTX", "4"]


@pytest.mark.parametrize(("name", "learner"), LEARNED)
def test_a_run_goes_on_and_repeats(tmp_path, capsys, monkeypatch, root, backbone, name, learner):
    """There are two rounds, a third one later, and a repetition of the whole by another process."""
    if name != "RoBERTa":  # of which a process that was started before looks into another cache
        monkeypatch.setattr(active.verify.subprocess, "run", commands.run)
    folder, output = backbone(name), tmp_path / "run"
    assert train.main(words(folder, root, output, learner)) == 0, capsys.readouterr().err
    assert train.main(words(folder, root, output, learner, 3)) == 0, capsys.readouterr().err
    assert "continuing after round 1" in capsys.readouterr().out
    assert train.main(["--eval-only", "--model-dir", str(output), "--root", str(root)]) == 0, capsys.readouterr().err
    assert active.verify.main([str(output / "results.json")]) == 0, capsys.readouterr()


@pytest.mark.parametrize(("name", "learner"), [
    ("SigLIP of transformers", "CoOp"), ("CLIP of transformers", "LinearProbe"), ("Perception Encoder", "VPT"),
    ("CoCa", "MaPLe"), ("RoBERTa", "CoOp"), ("ResNet", "CoOp")])
def test_a_model_is_used_and_exported(tmp_path, capsys, root, backbone, name, learner):
    """Classifier.load, scripts/predict.py and the ONNX graph agree, and the accuracy is that of the record."""
    output = tmp_path / "run"
    assert train.main(words(backbone(name), root, output, learner, 1)) == 0, capsys.readouterr().err
    assert predict.main([str(output), "--root", str(root), "--split", "test", "--output", str(tmp_path / "found.csv")]) == 0
    model = Classifier.load(output)
    rows = [line.split(",") for line in (tmp_path / "found.csv").read_text().splitlines()]
    assert len(rows) == 451 and set(model.classnames) >= {row[1] for row in rows[1:]}
    assert RunResult.read(output / "results.json").rounds[0].metrics["accuracy"] <= 1
    assert export.main([str(output), str(tmp_path / "exported")]) == 0, capsys.readouterr().err
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "exported" / "model_uint8.onnx"))
    expected = model.probabilities([Image.fromarray(own) for own in pixels])
    assert np.abs(session.run(None, {"pixels": pixels})[0] - expected).max() < 1e-4


@pytest.mark.parametrize(("name", "words", "said"), [
    *((name, [learner], "tunes the image tower, but that of") for name in ("ResNet", "RN50", "MobileCLIP2-S0")
      for learner in ("VPT", "MaPLe", "IVLP", "DualPrompt", "PromptSRC", "CLIPLoRA")),
    ("RoBERTa", ["MaPLe", "TRAINER.MAPLE.PROMPT_DEPTH", "2"], "TRAINER.MAPLE.PROMPT_DEPTH: prompts in 2 blocks"),
    ("roberta-ViT-B-32", ["MaPLe", "TRAINER.MAPLE.PROMPT_DEPTH", "2"], "TRAINER.MAPLE.PROMPT_DEPTH: prompts in 2 blocks")])
def test_what_a_backbone_cannot_be_tuned_by_is_refused_before_weights_are_loaded(
        tmp_path, capsys, monkeypatch, backbone, name, words, said):
    """Row 40: one line says so. Only the architecture of the checkpoint or of the name is needed."""
    monkeypatch.setattr("trainers.core.build.load_clip", lambda *_, **__: pytest.fail("weights were loaded"))
    own, tag = (backbone(name), "") if name in MAKERS else (name, {"RN50": "openai", "MobileCLIP2-S0": "dfndr2b"}.get(
        name, "laion2b_s12b_b32k"))
    keys = ["--config-file", "configs/quickstart.yaml", "--output-dir", str(tmp_path / "run"), "MODEL.BACKBONE.NAME", own,
            "MODEL.BACKBONE.PRETRAINED", tag, "TRAINER.NAME", *words]
    assert train.main(keys) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(("learner", "keys"), [
    ("IVLP", ["TRAINER.IVLP.N_CTX_VISION", "0"]), ("CLIPLoRA", ["TRAINER.CLIPLORA.TOWERS", "text"])])
def test_a_learner_that_leaves_images_alone_is_for_a_resnet_too(tmp_path, capsys, root, backbone, learner, keys):
    """The keys are the same ones that would tune it."""
    assert train.main([*words(backbone("ResNet"), root, tmp_path / "run", learner, 1), *keys]) == 0, capsys.readouterr().err


def test_maple_is_shallow_on_a_text_tower_of_transformers(tmp_path, capsys, root, backbone):
    """The deeper blocks of such a tower take no prompts, and the record says so."""
    output = tmp_path / "run"
    assert train.main(words(backbone("RoBERTa"), root, output, "MaPLe", 1)) == 0, capsys.readouterr().err
    assert RunResult.read(output / "results.json").config["TRAINER"]["MAPLE"]["PROMPT_DEPTH"] == 1


def test_a_tower_of_another_size_than_its_config_says_is_refused(tmp_path):
    """Row 40: otherwise timm would stop during feature extraction with a traceback."""
    folder = Path(of_open_clip(tmp_path / "pe", PE))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["image_size"] = 64
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="takes images of 32 x 32 pixels, but its config says image_size 64 x 64"):
        load_clip(str(folder), "")


def with_other_letters(folder: Path) -> None:
    """Give two letters of a tokenizer each other's number: the same weights now read other texts."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["##e"], words["##o"] = words["##o"], words["##e"]
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("learner", ["LinearProbe", "CoOp"])
@pytest.mark.parametrize("where", ["beside", "elsewhere"])
def test_a_model_under_another_tokenizer_is_refused(tmp_path, capsys, root, learner, where):
    """Row 36: it is not used or continued, be it next to the weights or given by key, although image features agree."""
    folder, output = siglip(tmp_path / "siglip"), tmp_path / "run"
    assert train.main(words(folder, root, output, learner, 1)) == 0, capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    with_other_letters(Path(folder) if where == "beside" else other)
    keys = {} if where == "beside" else {"MODEL.BACKBONE.TOKENIZER": str(other)}
    with pytest.raises(UserError, match="holds prompts of another text layout"):
        Classifier.load(output, keys)
    more = [own for pair in keys.items() for own in pair]
    assert train.main([*words(folder, root, output, learner, 2), *more]) in (1, 2)
    assert ("text layout" if where == "beside" else "MODEL.BACKBONE.TOKENIZER: '' ->") in capsys.readouterr().err
