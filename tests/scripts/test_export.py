"""`scripts/export.py` as people call it: its folder works without this project, using the code in its own README."""

import copy
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import train
from active.record.results import RunResult
from dassl.data.transforms import Preprocessing
from scripts.export import main, resizing
from scripts.exporting.readme import readme
from trainers.core.classifier import Classifier

QUICK = ["--config-file", "configs/quickstart.yaml", "ACTIVE.ROUNDS", "2", "OPTIM.MAX_EPOCH", "2", "ACTIVE.SAMPLER", "random"]
CALIBRATED = ["TRAINER.NAME", "LinearProbe", "TRAINER.CALIBRATION", "leave_one_out"]


def run(root, output, *words) -> Path:
    assert train.main([str(word) for word in (*QUICK, "--root", root, "--output-dir", output, *words)]) == 0
    return output


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory) -> Path:
    return run(root, tmp_path_factory.mktemp("finished") / "run")


def call(capsys, *words) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def snippets(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("words", "is_plain"), [
    (["TRAINER.NAME", "CoOp", "INPUT.RESIZE", "squash"], True), (["TRAINER.NAME", "VPT"], False),
    ([*CALIBRATED, "INPUT.INTERPOLATION", "bilinear", "INPUT.EXIF_ROTATION", "false", "INPUT.PIXEL_STD", "(0.25, 0.3, 0.35)"],
     True),
    (["TRAINER.NAME", "ZeroShot", "INPUT.INTERPOLATION", "nearest"], False),
    (["TRAINER.NAME", "ZeroShot", "INPUT.RESIZE", "longest"], True),
], ids=["CoOp and squash", "VPT", "calibrated and preprocessing", "nearest", "longest"])
def test_the_lines_of_the_readme_give_what_the_classifier_gives(capsys, monkeypatch, root, tmp_path, words, is_plain):
    """To 1e-4, with onnxruntime always and with open_clip where possible. Images are prepared as in the project."""
    folder = run(root, tmp_path / "run", *words)
    exported = tmp_path / "exported"
    assert call(capsys, folder, exported) == (0, f"{exported}\n", "")
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[0x0112] = 6
    rows = rng.integers(0, 256, (7, 11, 3), dtype=np.uint8)
    Image.fromarray(rows).resize((231, 150), Image.Resampling.BICUBIC).save(exported / "photo.jpg", exif=exif)
    model = Classifier.load(folder)
    (expected,) = model.probabilities(exported / "photo.jpg")
    monkeypatch.chdir(exported)
    for known in ("_MODEL_CONFIGS", "_MODEL_CONFIG_PATHS"):  # to which the lines add theirs
        monkeypatch.setattr(open_clip.factory, known, copy.copy(getattr(open_clip.factory, known)))
    found = snippets(exported)
    assert len(found) == 1 + is_plain
    for code in found:
        names = {}
        with torch.enable_grad():  # as a fresh Python has it, and so that it is set back
            exec(compile(code, "README.md", "exec"), names)
        assert np.abs(np.asarray(names["probabilities"]) - expected).max() < 1e-4
        assert capsys.readouterr().out.startswith(f"{model.classnames[expected.argmax()]} 0.")
    if not is_plain:
        assert "Not possible" in (exported / "README.md").read_text()


def about_of(resize: str, size: tuple[int, int], fill: int) -> tuple[dict, Preprocessing]:
    """Return what `classifier.json` would contain for a backbone with such images, and how the project prepares them."""
    own = Preprocessing(size, (0.5,) * 3, (0.25,) * 3, resize=resize, fill=fill)
    seen = {"size": list(size), "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3, "exif_rotation": False}
    backbone = {"name": "ViT-B/16", "open_clip_name": "ViT-B-16-quickgelu", "open_clip_pretrained": "openai"}
    came_from = {"run": "run", "model": "model", "backbone": backbone}
    return {"class_names": ["a"], "learner": "CoOp", "is_linear_on_clip_features": True, "preprocessing": seen | resizing(own),
            "came_from": came_from}, own


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize(("resize", "fill"), [("shortest", 0), ("squash", 0), ("longest", 0), ("longest", 90)])
def test_the_lines_of_the_readme_resize_as_the_project_does(monkeypatch, tmp_path, resize, fill, size):
    """The pixels are equal bit for bit, for frames and shapes that no command can select with the embedded CLIP."""
    about, own = about_of(resize, size, fill)
    text = readme(about)
    code = re.search(r"^height, width = .*?(?=^session)", text, re.DOTALL | re.M)[0]
    monkeypatch.chdir(tmp_path)
    for shape in [(90, 61, 3), (50, 77, 3)]:
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        image.save("photo.jpg")
        names = {"about": about, "Image": Image}
        exec(compile(code, "README.md", "exec"), names)
        assert np.array_equal(np.asarray(names["image"]), own.transform().pixels(Image.open("photo.jpg")))
    assert ("view.transforms[1].fill = 90" in text) == bool(fill) and f"image_resize_mode={resize!r}" in text


@pytest.mark.parametrize("key", ["open_clip_name", "open_clip_pretrained"])
def test_a_backbone_that_open_clip_does_not_load_is_said_to_be_none(key):
    """This is a transformers checkpoint, or a folder as the name. The README then has no code for open_clip."""
    about, _ = about_of("squash", (32, 32), 0)
    about["came_from"]["backbone"][key] = ""
    text = readme(about)
    assert "Not possible: the backbone is a checkpoint of transformers or a folder" in text and "create_model" not in text


def test_a_folder_holds_all_that_it_promises(capsys, finished, tmp_path):
    """The hashes of the record say where it came from. It has no path of this machine except that of the backbone's weights."""
    assert call(capsys, finished, tmp_path / "exported")[0] == 0
    names = {"README.md", "classifier.json", "classifier.safetensors", "model.onnx", "model_uint8.onnx", "weights.bin",
             "tiny_clip.json"}
    assert {path.name for path in (tmp_path / "exported").iterdir()} == names
    about = json.loads((tmp_path / "exported" / "classifier.json").read_text())
    record = RunResult.read(finished / "results.json")
    assert about["came_from"]["certificate"] == record.certificate
    assert about["came_from"]["metrics"] == record.rounds[-1].metrics and about["came_from"]["n_labeled"] == 24
    assert about["came_from"]["model_sha256"] == record.rounds[-1].files["prompts/round_001.safetensors"]
    assert about["came_from"]["commit"] == record.environment["commit"]
    assert about["class_names"] == record.dataset["classnames"]
    with safe_open(tmp_path / "exported" / "classifier.safetensors", "pt") as weights:
        assert set(weights.keys()) == {"texts", "bias", "scale"} and weights.get_tensor("texts").shape[0] == 10
        assert json.loads(weights.metadata()["class_names"]) == about["class_names"]
    for path in (tmp_path / "exported").iterdir():
        assert path.stat().st_mode & 0o444 == 0o444 and str(finished).encode() not in path.read_bytes()


def test_a_round_by_its_prompts_file(capsys, finished, tmp_path):
    assert call(capsys, finished / "prompts" / "round_000.safetensors", tmp_path / "exported")[0] == 0
    about = json.loads((tmp_path / "exported" / "classifier.json").read_text())["came_from"]
    assert (about["model"], about["n_labeled"]) == ("round_000.safetensors", 12)


def test_towers_of_half_precision_are_exported_in_float32(capsys, root, tmp_path):
    """Their rounded weights are kept. Only the rounding of intermediate values differs."""
    folder = run(root, tmp_path / "run", "MODEL.PREC", "bf16")
    assert call(capsys, folder, tmp_path / "exported")[0] == 0
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "exported" / "model_uint8.onnx")
    (found,) = session.run(None, {"pixels": pixels})
    assert np.abs(found - Classifier.load(folder).probabilities(np.moveaxis(pixels, 3, 1))).max() < 0.05


@pytest.mark.parametrize(("words", "said", "code"), [
    (["nowhere", "{tmp}/new"], "nowhere is neither the output folder of a run", 1),
    (["{run}", "{run}"], "holds files already; name a new one", 1),
    (["{run}", "/dev/null/new"], "cannot write", 1),
    (["{run}"], "the following arguments are required: DIR", 2),
    (["{run}", "{tmp}/new", "--nothing"], "unrecognized arguments", 2),
    (["{run}", "{tmp}/new", "--set", "MODEL.BACKBONE.PRETRAINED", "gone.pt"], "'gone.pt' is neither a file nor a tag", 2),
])
def test_wrong_usage_is_one_line(capsys, tmp_path, finished, words, said, code):
    """There is no traceback, exit codes are those of the other commands, and nothing is written."""
    found, out, err = call(capsys, *(word.format(run=finished, tmp=tmp_path) for word in words))
    assert (found, out) == (code, "") and said in err and err.startswith("export.py: ") and len(err.splitlines()) == 1, err
    assert list(tmp_path.iterdir()) == []


def test_missing_libraries_are_said_before_anything_is_loaded(capsys, monkeypatch, tmp_path, finished):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name.startswith("onnx") else find(name, *rest))
    monkeypatch.setattr("trainers.core.classifier.build_classifier", lambda *_: pytest.fail("it was loaded"))
    code, _, err = call(capsys, finished, tmp_path / "new")
    assert (code, err) == (1, "export.py: an export needs onnx and onnxscript: pip install onnx onnxscript\n")


def test_ctrl_c_leaves_nothing(capsys, monkeypatch, tmp_path, finished):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("scripts.export.readme", stop)
    code, out, err = call(capsys, finished, tmp_path / "new")
    assert (code, out) == (130, "") and "stopped by Ctrl-C; nothing was written" in err and list(tmp_path.iterdir()) == []
