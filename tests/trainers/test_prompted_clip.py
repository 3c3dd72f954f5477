"""How often the text tower is asked."""

import pytest
import torch

from tests.trainers.colors import ROWS, trainer_of
from trainers.frozen_clip import FrozenCLIP


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


@pytest.mark.parametrize(("name", "n_each"), [("CoOp", 1), ("MaPLe", 1), ("IVLP", 1), ("DualPrompt", 2)])
def test_text_features_are_computed_once_a_step_and_once_an_evaluation(clip, colors, text_calls, name, n_each):
    """Six steps are six passes (two each where there are negative contexts), three batches of a prediction are one."""
    assert fit_and_predict(clip, colors, name, text_calls) == ([True] * 6 * n_each, [False] * n_each)


def test_a_classifier_that_does_not_learn_is_computed_once_and_without_a_graph(clip, colors, text_calls):
    """VPT leaves the text tower untouched: one pass for all steps and the prediction behind them."""
    assert torch.is_grad_enabled()
    assert fit_and_predict(clip, colors, "VPT", text_calls) == ([False], [])
