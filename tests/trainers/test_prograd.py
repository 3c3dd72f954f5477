"""ProGrad: what is left of a gradient that goes against zero-shot CLIP."""

import numpy as np
import pytest
import torch

from tests.trainers.colors import ROWS, trainer_of
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts
from trainers.prograd import aligned


def test_opposed_gradients_lose_what_they_have_in_common():
    """With strength 1 the two are then at right angles. With half of it, half is left."""
    rng = np.random.default_rng(0)
    own, general = (torch.from_numpy(rng.normal(size=(4, 6))) for _ in range(2))
    own = own - 2 * (own * general).sum() / general.square().sum() * general if (own * general).sum() > 0 else own
    before = float((own * general).sum())
    assert before < 0 and float((aligned(own, general, 1.0) * general).sum()) == pytest.approx(0, abs=1e-12)
    assert float((aligned(own, general, 0.5) * general).sum()) == pytest.approx(before / 2)


def test_gradients_that_agree_and_a_general_one_of_0_change_nothing():
    """The result must not depend on a comparison with NaN."""
    rng = np.random.default_rng(1)
    own, general = (torch.from_numpy(rng.normal(size=(4, 6))) for _ in range(2))
    general = general if (own * general).sum() > 0 else -general
    assert torch.equal(aligned(own, general, 1.0), own) and torch.equal(aligned(own, torch.zeros(4, 6), 1.0), own)


def test_without_strength_it_is_coop(clip, colors):
    """The same context after the same steps."""
    contexts = []
    for pairs in ((("TRAINER.NAME", "ProGrad"), ("TRAINER.PROGRAD.STRENGTH", "0")), (("TRAINER.NAME", "CoOp"),)):
        trainer = trainer_of(clip, colors, ("TRAINER.ABSENT", "pushed"), ("OPTIM.MAX_EPOCH", "3"), *pairs)
        contexts.append(trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0).learner.ctx)
    assert torch.allclose(*contexts, rtol=1e-4, atol=1e-6)


def test_a_step_is_that_of_the_aligned_gradient(clip64):
    """The loss's value and gradient are compared with both gradients computed separately, in float64."""
    rng = np.random.default_rng(0)
    learner = LEARNERS["ProGrad"].build(clip64, ClassTexts(("red", "green", "blue"), "a {}."), rng, n_ctx=2).double()
    maps, kept, features = (torch.from_numpy(rng.normal(size=shape)) for shape in ((48, 48), (3, 16), (4, 16)))
    learner.prepare(None, kept, 5.0)
    targets, opposed = torch.tensor([0, 1, 2, 0]), 0
    for trial in range(20):
        texts = (learner.ctx.flatten() @ maps.roll(trial, 0)).reshape(3, 16).tanh()
        value = learner.loss(Classifier(texts), Batch(features, targets, 5.0, None, rng))
        found, = torch.autograd.grad(value, learner.ctx, retain_graph=True)
        logits = 5.0 * features @ texts.T
        entropy = torch.nn.functional.cross_entropy(logits, targets)
        p = (5.0 * features @ kept.T).softmax(1)
        divergence = (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
        g, h = (torch.autograd.grad(loss, learner.ctx, retain_graph=True)[0] for loss in (entropy, divergence))
        dot = float((g * h).sum())
        opposed += dot < 0
        expected = g - dot / float((h * h).sum()) * h if dot < 0 else g
        assert torch.allclose(found, expected, rtol=0, atol=1e-10) and value.item() == pytest.approx(entropy.item(), abs=1e-12)
    assert 0 < opposed < 20
