"""TCP: tokens of a class in the text tower, and what the penalty holds in place."""

import numpy as np
import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from dassl.utils.errors import UserError
from tests.trainers.colors import ROWS, trainer_of
from tests.trainers.plain import plain_text
from trainers.clip.frozen_clip import normalized
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Averaging
from trainers.core.token_rows import template_rows
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts
from trainers.registry import settle_depths

NAMES = ("red", "green", "light green", "blue")
TEXTS = ClassTexts(NAMES, "a photo of a {}.")


def built(clip64, texts=TEXTS, **parameters):
    """Return the learner in float64, and the texts that it was given."""
    learner = LEARNERS["TCP"].build(clip64, texts, np.random.default_rng(0), **parameters).double()
    known = normalized(clip64.encode_text(template_rows(clip64.tokenizer, texts.classnames, texts.template)))
    learner.prepare(None, known, clip64.logit_scale)
    return learner, known


def fitted(clip, colors, *pairs):
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "TCP"), ("OPTIM.NAME", "adam"), ("OPTIM.LR", "0.005"), *pairs)
    return trainer, trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)


def test_class_tokens_by_plain_numpy(clip64):
    """n tokens U q(D t) of each class's text, one class after the other."""
    learner, known = built(clip64, n_ctx=3)
    down, up = ((linear.weight.detach().numpy(), linear.bias.detach().numpy()) for linear in (learner.down, learner.up))
    for found, text in zip(learner.class_tokens().detach().numpy(), known.numpy(), strict=True):
        hidden = down[0] @ text + down[1]
        expected = up[0] @ (hidden / (1 + np.exp(-1.702 * hidden))) + up[1]
        assert np.abs(found - expected.reshape(3, 24)).max() < 1e-12


@pytest.mark.parametrize("n_ctx", [1, 4])
def test_the_network_narrows_to_a_quarter(clip64, n_ctx):
    """In the paper, 512 goes to 128. Here 16 features go to 4, and from there to tokens of width 24."""
    learner, _ = built(clip64, n_ctx=n_ctx)
    assert learner.down.weight.shape == (4, 16) and learner.up.weight.shape == (24 * n_ctx, 4)


@pytest.mark.parametrize("block", [2, 3])
def test_they_enter_at_their_block_alone(clip64, block):
    """Block 3 is the third: the context goes through the two before it untouched. Both paths are open_clip's plain one."""
    learner, _ = built(clip64, block=block)
    text = learner().text
    assert [tuple(own.shape) for own in text] == [(4, 24), *[(0, 24)] * (block - 2), (4, 4, 24)]
    found = PromptedCLIP(clip64, learner).classifier(learner()).texts
    assert torch.allclose(found, normalized(plain_text(clip64, learner.rows, text)), rtol=0, atol=1e-12)


def test_the_context_counts_up_to_that_block(clip64):
    """It is replaced there, but the class name has seen it before."""
    learner, _ = built(clip64)
    before = clip64.encode_text(learner.rows, learner())
    learner.ctx.data *= torch.arange(24) % 2  # a constant would be lost in the first norm
    assert not torch.allclose(clip64.encode_text(learner.rows, learner()), before, atol=1e-6)


def test_descriptions_of_a_class_share_its_tokens(clip64):
    """Five texts of four classes: each is read with the tokens of its own class."""
    matrix = torch.block_diag(torch.full((1, 2), 0.5), *[torch.ones(1, 1)] * 3)
    phrases = ("red, which is warm", "red, which has a long wave", *NAMES[1:])
    learner, _ = built(clip64, ClassTexts(NAMES, TEXTS.template, phrases, Averaging(matrix, normalize=True)))
    plain, _ = built(clip64)
    assert torch.equal(learner.class_tokens(), plain.class_tokens()[[0, 0, 1, 2, 3]])


@pytest.mark.parametrize(("block", "fault"), [(1, "at least 2 are needed"), (4, "the tower has 3")])
def test_a_block_outside_the_tower_or_the_first_is_refused(clip, block, fault):
    """In the first one the tokens would be the context. The config says so before anything is loaded."""
    with pytest.raises(UserError, match=fault):
        LEARNERS["TCP"].build(clip, TEXTS, np.random.default_rng(0), block=block)
    with pytest.raises(UserError, match=rf"TRAINER\.TCP\.BLOCK: .*{fault}"):
        settle_depths(CfgNode({"TCP": {"BLOCK": block}}), {"text": 3})


def test_a_tower_of_one_block_has_no_place_for_them():
    with pytest.raises(UserError, match=r"TRAINER\.TCP\.BLOCK: at most 9 of 1 blocks"):
        settle_depths(CfgNode({"TCP": {"BLOCK": "at most 9"}}), {"text": 1})


def test_the_loss_by_plain_numpy(clip):
    """Cross-entropy plus 8 times the mean over classes of 1 - cos, with a class that has no label."""
    rng = np.random.default_rng(0)
    learner = LEARNERS["TCP"].build(clip, TEXTS, rng)
    features, rows, kept = (torch.from_numpy(rng.normal(size=(count, 16))) for count in (3, 4, 4))
    learner.prepare(None, kept, 2.0)
    counted = torch.tensor([True, False, True, True])
    found = float(learner.loss(Classifier(rows), Batch(features, torch.tensor([0, 2, 3]), 2.0, counted, rng)))
    f, w, t = (tensor.numpy() for tensor in (features, rows, kept))
    shares = [np.exp(2 * f[i] @ w[label]) / np.exp(2 * f[i] @ w[[0, 2, 3]].T).sum() for i, label in enumerate((0, 2, 3))]
    cosines = [w[k] @ t[k] / np.linalg.norm(w[k]) / np.linalg.norm(t[k]) for k in range(4)]
    assert found == pytest.approx(-np.mean(np.log(shares)) + 8 * np.mean([1 - own for own in cosines]), abs=1e-10)


def test_a_large_weight_brings_the_texts_to_the_template_s(clip, colors):
    """They start elsewhere, at random. The larger the penalty's weight, the nearer they come."""
    distances = []
    for weight in ("0", "8", "1000000"):
        trainer, model = fitted(clip, colors, ("TRAINER.TCP.WEIGHT", weight), ("OPTIM.MAX_EPOCH", "20"))
        texts, kept = (own.classifier(own.learner()).texts for own in (model, trainer.zero_shot()))
        distances.append(float((texts - kept).detach().norm()))
    assert distances[0] > distances[1] > distances[2] and distances[2] < 0.3 * distances[0], distances


def test_the_text_of_a_class_without_a_label_moves_with_the_others(clip, colors):
    """Its tokens come from the network that the other classes' labels train."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "TCP"), ("TRAINER.TCP.WEIGHT", "0"))
    labels = trainer.inputs.dataset.labels("train")
    rows = (labels != 2).nonzero().flatten()
    models = [trainer.fit(own, labels[own], 0) for own in (rows[:0], rows)]
    before, after = (model.classifier(model.learner()).texts.detach()[2] for model in models)
    assert models[0].losses == [] and (after - before).norm() > 1e-3


def test_what_is_saved_predicts_without_the_labels(clip, colors, tmp_path):
    """The texts that its tokens are made of are part of the state, but not of what is trained."""
    trainer, model = fitted(clip, colors)
    trainer.save(model, tmp_path / "tcp.safetensors")
    again = trainer.load(tmp_path / "tcp.safetensors")
    assert torch.equal(trainer.predict(again, "test").logits, trainer.predict(model, "test").logits)
    zero_shot = trainer.zero_shot()
    assert torch.equal(again.learner.template_texts, zero_shot.classifier(zero_shot.learner()).texts)
    assert isinstance(model.learner.down, nn.Linear)
    assert {name for name, _ in model.learner.named_parameters()} == {"ctx", "down.weight", "down.bias", "up.weight", "up.bias"}
