"""Exported classifiers against the originals, by onnxruntime, for learners of each kind of graph."""

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from dassl.utils.errors import UserError
from tests.trainers.clip.families import image_clip
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.core.classifier import Classifier, Reading
from trainers.core.export import MODEL, MODEL_UINT8, WEIGHTS, check_export, class_weights, is_plain, write_onnx
from trainers.learner import LEARNERS
from trainers.testing import fitted, learner_by_name, make_inputs, make_trainer, rows_of

NAMES = ("cat", "dog", "forest", "golden retriever")
PLAIN = {"CoOp", "CrossModal", "GDA", "KgCoOp", "LPpp", "LinearProbe", "ProGrad", "TCP", "ZeroShot"}
AS_ANOTHER = PLAIN - {"CoOp", "GDA"} | {"IVLP", "MaPLe", "PromptSRC", "TipAdapterF"}  # have the graph of another one


def classifier_of(name: str, clip: FrozenCLIP | None = None, **parameters) -> Classifier:
    """Return the classifier of a learner, trained on labels of three of four classes, with a temperature."""
    trainer = make_trainer(learner_by_name(name, **parameters), make_inputs(clip=clip))
    model = fitted(trainer, rows_of(trainer, 0, 1, 2))
    model.temperature = 1.5
    return Classifier(model, NAMES, Reading(trainer.clip.preprocessing, 4, 1))


def pixels_of(n_images: int) -> np.ndarray:
    """Return uint8 images [N, 32, 32, 3] of several levels of light."""
    rng = np.random.default_rng(n_images)
    return (rng.integers(0, 256, (n_images, 32, 32, 3)) * rng.uniform(0.2, 1, (n_images, 1, 1, 3))).astype(np.uint8)


def check_same(classifier: Classifier, folder) -> None:
    """Both graphs give the classifier's probabilities, to 1e-4, for any number of images."""
    sessions = {name: onnxruntime.InferenceSession(folder / name) for name in (MODEL, MODEL_UINT8)}
    for n_images in (1, 2, 7):
        pixels = pixels_of(n_images)
        images = np.moveaxis(pixels, 3, 1)
        expected = classifier.probabilities(images)
        for name, inputs in ((MODEL, {"images": images.astype(np.float32) / 255}), (MODEL_UINT8, {"pixels": pixels})):
            (found,) = sessions[name].run(None, inputs)
            assert found.shape == (n_images, len(NAMES)) and found.dtype == np.float32
            assert np.abs(found - expected).max() < 1e-4, name
    assert np.ptp(expected, 0).max() > 1e-3  # it depends on the image


@pytest.mark.parametrize("name", [own.name for own in LEARNERS if own.name not in AS_ANOTHER])
def test_each_kind_of_graph_is_exported_as_it_is(name, tmp_path):
    """Visual prompts, maps of features, caches, biases and the temperature are inside; later learners are not left out.

    Of learners whose graphs differ in numbers alone one is: of plain ones CoOp, without a bias, and GDA, with one; VPT of those
    with image prompts; TipAdapter of those with a cache.
    """
    classifier = classifier_of(name)
    write_onnx(classifier, tmp_path)
    check_same(classifier, tmp_path)


@pytest.mark.parametrize(("family", "learner"), [
    ("SigLIP", "VPT"), ("ViTamin", "VPT"), ("EVA02", "CLIPLoRA"), ("Perception Encoder", "VPT"), ("half turns", "CLIPLoRA")])
def test_towers_of_timm_are_exported_as_they_are(family, learner, tmp_path):
    """They have prompts and changed matrices, rotary positions and pooling by attention."""
    clip = image_clip(family, torch.float32)
    clip.logit_scale = 100.0  # these towers hardly tell images apart
    classifier = classifier_of(learner, clip)
    write_onnx(classifier, tmp_path)
    check_same(classifier, tmp_path)


def test_a_learner_without_image_tokens_is_exported_as_it_is(tmp_path):
    """DualPrompt without them is a product of CLIP's features and class features; with them it is not."""
    classifier = classifier_of("DualPrompt", n_ctx_vision=0)
    write_onnx(classifier, tmp_path)
    check_same(classifier, tmp_path)
    assert is_plain(classifier) and not is_plain(classifier_of("DualPrompt"))


@pytest.mark.parametrize("name", [component.name for component in LEARNERS])
def test_class_weights_are_the_whole_of_plain_learners(name):
    """It is the softmax of scale * (features @ texts.T + bias), on frozen CLIP's features. For other learners it is not."""
    classifier = classifier_of(name)
    images = torch.from_numpy(np.moveaxis(pixels_of(5), 3, 1).copy())
    with torch.no_grad():
        features = classifier.model.clip.encode_image((images / 255 - 0.5) / 0.25)
    features, own = torch.nn.functional.normalize(features, dim=1), class_weights(classifier)
    found = (own["scale"] * (features @ own["texts"].T + own["bias"])).softmax(1)
    same = np.abs(found.numpy() - classifier.probabilities(images)).max() < 1e-5
    assert is_plain(classifier) == (name in PLAIN) and (same or name not in PLAIN)


def test_an_export_says_nothing_of_this_machine_and_repeats(tmp_path):
    """It has no paths of the code that made it, and the same bytes each time. Its content passes onnx's own check."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_onnx(classifier_of("CoOp"), tmp_path / name)
    for name in (MODEL, MODEL_UINT8, WEIGHTS):
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes() and b".py" not in content
    for name in (MODEL, MODEL_UINT8):
        onnx.checker.check_model(str(tmp_path / "one" / name), full_check=True)
        properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "one" / name).metadata_props}
        assert json.loads(properties["class_names"]) == list(NAMES)


def test_what_is_missing_is_said_with_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(UserError, match=r"^an export needs onnxscript: pip install onnx onnxscript$"):
        check_export()
