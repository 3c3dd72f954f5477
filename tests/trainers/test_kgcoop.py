"""KgCoOp: the penalty, and what it holds in place."""

import numpy as np
import pytest
import torch

from tests.trainers.colors import ROWS, trainer_of
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts

TEXTS = ClassTexts(("red", "green", "blue"), "a photo of a {}.")
WORDS = ("TRAINER.NAME", "KgCoOp"), ("TRAINER.KGCOOP.CTX_INIT", "a photo of a")


def fitted(clip, colors, *pairs):
    trainer = trainer_of(clip, colors, ("TRAINER.ABSENT", "pushed"), ("OPTIM.MAX_EPOCH", "3"), *pairs)
    return trainer, trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)


def test_without_weight_it_is_coop(clip, colors):
    """The same context after the same steps, bit for bit."""
    _, own = fitted(clip, colors, *WORDS, ("TRAINER.KGCOOP.WEIGHT", "0"))
    _, coop = fitted(clip, colors, ("TRAINER.NAME", "CoOp"), ("TRAINER.COOP.CTX_INIT", "a photo of a"))
    assert torch.equal(own.learner.ctx, coop.learner.ctx)


def test_the_penalty_is_0_where_the_context_is_the_template(clip, colors):
    """The texts are then those of zero-shot CLIP, and the first loss is CoOp's."""
    coop = ("TRAINER.NAME", "CoOp"), ("TRAINER.COOP.CTX_INIT", "a photo of a")
    one_step = ("OPTIM.MAX_EPOCH", "1"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "12")
    (_, own), (_, other) = (fitted(clip, colors, *pairs, *one_step) for pairs in (WORDS, coop))
    assert own.losses[0] == pytest.approx(other.losses[0], abs=1e-5)


def test_a_large_weight_keeps_the_texts(clip, colors):
    """The more it weighs, the nearer the texts stay to the template's."""
    distances = []
    for weight in ("0", "2", "20"):
        trainer, model = fitted(clip, colors, *WORDS, ("TRAINER.KGCOOP.WEIGHT", weight), ("OPTIM.LR", "0.0002"))
        texts, kept = (own.classifier(own.learner()).texts for own in (model, trainer.zero_shot()))
        distances.append(float((texts - kept).detach().norm()))
    assert distances[0] > distances[1] > distances[2]


def test_the_loss_by_plain_python(clip):
    """Cross-entropy plus W times the mean over classes of 1 - cos."""
    rng = np.random.default_rng(0)
    learner = LEARNERS["KgCoOp"].build(clip, TEXTS, rng, weight=3.0)
    features, rows, kept = (torch.from_numpy(rng.normal(size=(3, 16))) for _ in range(3))
    learner.prepare(None, kept, 2.0)
    found = float(learner.loss(Classifier(rows), Batch(features, torch.tensor([0, 2, 1]), 2.0, None, rng)))
    f, w, t = (tensor.numpy() for tensor in (features, rows, kept))
    shares = [np.exp(2 * f[i] @ w[label]) / np.exp(2 * f[i] @ w.T).sum() for i, label in enumerate((0, 2, 1))]
    entropy = -np.mean(np.log(shares))
    cosines = [w[k] @ t[k] / np.linalg.norm(w[k]) / np.linalg.norm(t[k]) for k in range(3)]
    assert found == pytest.approx(entropy + 3.0 * np.mean([1 - cosine for cosine in cosines]), abs=1e-10)


def test_a_class_without_a_label_is_held_as_the_others_are(clip):
    """It is masked in the cross-entropy, so the gradient of its text comes only from the penalty."""
    rng = np.random.default_rng(0)
    learner = LEARNERS["KgCoOp"].build(clip, TEXTS, rng)
    features, rows, kept = (torch.from_numpy(rng.normal(size=(3, 16))) for _ in range(3))
    learner.prepare(None, kept, 1.0)
    rows.requires_grad_()
    batch = Batch(features, torch.tensor([0, 2, 2]), 1.0, torch.tensor([True, False, True]), rng)
    learner.loss(Classifier(rows), batch).backward()
    again = rows.detach().clone().requires_grad_()
    (8.0 / 3 * (1 - torch.cosine_similarity(again, kept, dim=1))[1]).backward()
    assert torch.allclose(rows.grad[1], again.grad[1], rtol=0, atol=1e-12)
