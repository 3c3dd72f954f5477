"""How often the text tower is asked."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainers.colors import ROWS, trainer_of
from trainers.clip.frozen_clip import FrozenCLIP


@pytest.fixture
def text_calls(monkeypatch) -> list[bool]:
    """The passes through the text tower so far, each with whether it built a graph."""
    calls, encode_text = [], FrozenCLIP.encode_text

    def counted(self, rows, prompts=None):
        features = encode_text(self, rows, prompts)
        calls.append(features.requires_grad)
        return features

    monkeypatch.setattr(FrozenCLIP, "encode_text", counted)
    return calls


def fit_and_predict(clip, colors, name, text_calls) -> tuple[list[bool], list[bool]]:
    """Return the passes of a fit of six steps, and those of a prediction of three batches."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("OPTIM.MAX_EPOCH", "2"), ("DATALOADER.TEST.BATCH_SIZE", "4"))
    model = trainer.fit(ROWS, colors.labels("train")[ROWS], 0)
    of_fit = text_calls.copy()
    trainer.predict(model, "test")
    return of_fit, text_calls[len(of_fit):]


@pytest.mark.parametrize(("name", "n_each"), [("CoOp", 1), ("MaPLe", 1), ("IVLP", 1), ("CLIPLoRA", 1), ("DualPrompt", 2)])
def test_text_features_are_computed_once_a_step_and_once_an_evaluation(clip, colors, text_calls, name, n_each):
    """Six steps are six passes (two each where there are negative contexts), three batches of a prediction are one."""
    assert fit_and_predict(clip, colors, name, text_calls) == ([True] * 6 * n_each, [False] * n_each)


def test_a_classifier_that_does_not_learn_is_computed_once_and_without_a_graph(clip, colors, text_calls):
    """VPT leaves the text tower untouched: one pass for all steps and the prediction behind them."""
    assert torch.is_grad_enabled()
    assert fit_and_predict(clip, colors, "VPT", text_calls) == ([False], [])


class Conversions(TorchDispatchMode):
    """Counts the float64 tensors of one shape that are copied to another precision or device."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.n = shape, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._to_copy.default and args[0].dtype == torch.float64:
            self.n += tuple(args[0].shape) == self.shape
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["AS", "AE"])
@pytest.mark.parametrize("name", ["CoOp", "DualPrompt"])
def test_the_averaging_matrix_is_converted_once_a_model(clip, colors, tmp_path, name, mode):
    """Six steps and a prediction need it in the features' precision and on their device, converted only once."""
    file = tmp_path / "descriptions.json"
    file.write_text(json.dumps({"red": ["warmth", "a long wave"], "green": ["leaves"], "blue": ["sky"]}))
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("OPTIM.MAX_EPOCH", "2"),
                         ("TRAINER.DESCRIPTIONS.MODE", mode), ("TRAINER.DESCRIPTIONS.FILE", str(file)))
    with Conversions(shape=(3, 4)) as conversions:  # three classes, four texts
        trainer.predict(trainer.fit(ROWS, colors.labels("train")[ROWS], 0), "test")
    assert conversions.n == 1


def test_texts_that_nothing_tunes_are_encoded_once_a_trainer(clip, colors, text_calls):
    """The number of fits does not matter. Texts of another template are encoded separately."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "LinearProbe"))
    for round in range(3):
        trainer.predict(trainer.fit(ROWS, colors.labels("train")[ROWS], round), "test")
        trainer.predict(trainer.zero_shot(), "test")
    assert len(text_calls) == 1
    other = trainer_of(clip, colors, ("TRAINER.NAME", "LinearProbe"), ("TRAINER.LINEARPROBE.TEMPLATE", "art of {}"))
    other.fit(ROWS, colors.labels("train")[ROWS], 0)
    other.predict(other.zero_shot(), "test")
    assert len(text_calls) == 3
