"""A learner that tunes no prompt is trained, evaluated, kept and read as any other."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainers.colors import ROWS, trainer_of
from trainers.learner import LEARNERS, Classifier, Learner, template_rows

TEMPLATE = "a photo of a {}."


@pytest.fixture
def probe(monkeypatch):
    """The linear probe of the docstring of `trainers.learner`."""
    LEARNERS.fill()
    monkeypatch.setattr(LEARNERS, "_components", dict(LEARNERS._components))

    @LEARNERS.register("Probe")
    class Probe(Learner):
        def __init__(self, clip, texts, rng, *, template: str = TEMPLATE):
            super().__init__()
            self.rows = template_rows(clip.tokenizer, texts.classnames, template)
            self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))

        def classifier(self, texts):
            return Classifier(texts.texts + self.shift)

    return Probe


def test_it_begins_as_zero_shot_clip_and_learns(clip, colors, probe):
    """Without a step its logits are the frozen model's; with steps the loss on the labeled rows falls."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Probe"), ("OPTIM.LR", "0.1"))
    labels = trainer.inputs.dataset.labels("train")
    untrained, zero_shot = (trainer.predict(model, "train") for model in (trainer._fresh(0), trainer.zero_shot()))
    assert torch.equal(untrained.logits, zero_shot.logits)
    model = trainer.fit(ROWS, labels[ROWS], 0)
    loss = nn.functional.cross_entropy
    assert loss(trainer.predict(model, "train").logits[ROWS], labels[ROWS]) < loss(zero_shot.logits[ROWS], labels[ROWS])
    assert len(model.losses) == trainer.recipe.n_epochs and model.losses[-1] < model.losses[0]


def test_logits_are_the_scale_times_features_and_rows(clip, colors, probe):
    """What samplers read: the rows as they are, not scaled to length 1."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Probe"), ("OPTIM.LR", "0.1"))
    labels = trainer.inputs.dataset.labels("train")
    found = trainer.predict(trainer.fit(ROWS, labels[ROWS], 0), "test")
    expected = clip.logit_scale * found.features.double() @ found.text_features.double().T
    assert torch.allclose(found.logits.double(), expected, rtol=1e-5, atol=1e-4)
    assert (found.text_features.norm(dim=1) - 1).abs().max() > 1e-3


def test_it_is_kept_and_read(clip, colors, probe, tmp_path):
    """A few kilobytes, bit for bit; the prompts of another learner are refused."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Probe"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    trainer.save(model, tmp_path / "probe.safetensors")
    again = trainer.load(tmp_path / "probe.safetensors")
    assert torch.equal(trainer.predict(again, "test").logits, trainer.predict(model, "test").logits)


def test_features_can_be_a_learner_s_own(clip, colors, monkeypatch):
    """What `features` makes of the frozen ones is what is classified, and what samplers read."""
    LEARNERS.fill()
    monkeypatch.setattr(LEARNERS, "_components", dict(LEARNERS._components))

    @LEARNERS.register("Mirror")
    class Mirror(Learner):
        def __init__(self, clip, texts, rng: np.random.Generator):
            super().__init__()
            self.rows = template_rows(clip.tokenizer, texts.classnames, TEMPLATE)

        def features(self, features):
            return -features

    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Mirror"))
    mirrored, zero_shot = (trainer.predict(model, "test") for model in (trainer._fresh(0), trainer.zero_shot()))
    assert torch.equal(mirrored.features, -zero_shot.features) and torch.equal(mirrored.logits, -zero_shot.logits)
