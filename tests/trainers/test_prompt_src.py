"""PromptSRC: its loss, its averaging, and its teacher."""

import numpy as np
import pytest
import torch

from tests.trainers.colors import ROWS, trainer_of
from trainers.clip.frozen_clip import normalized
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts
from trainers.prompt_src import PromptSRC, epoch_weights

TEXTS = ClassTexts(("red", "green", "blue"), "a photo of a {}.")
SRC = ("TRAINER.NAME", "PromptSRC")
LAST = ("TRAINER.PROMPTSRC.AVERAGE_MEAN", "1"), ("TRAINER.PROMPTSRC.AVERAGE_STD", "0.001")
NO_TERMS = tuple((f"TRAINER.PROMPTSRC.{name}_LOSS_WEIGHT", "0") for name in ("TEXT", "IMAGE", "LOGIT"))


def fitted(clip, colors, *pairs):
    trainer = trainer_of(clip, colors, ("OPTIM.MAX_EPOCH", "3"), *pairs)
    return trainer, trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [normalized(torch.from_numpy(rng.normal(size=shape))) for shape in shapes]


@pytest.mark.parametrize("counted", [None, (True, False, True)])
def test_the_loss_by_plain_python(clip, counted):
    """Cross-entropy over the classes that count, and three terms over all of them."""
    weights = {"text_loss_weight": 3.0, "image_loss_weight": 2.0, "logit_loss_weight": 0.5}
    learner = LEARNERS["PromptSRC"].build(clip, TEXTS, np.random.default_rng(0), **weights)
    f, f0, w, t = drawn(*[(4, 16)] * 2, *[(3, 16)] * 2)
    learner.prepare(None, t, 5.0)
    batch = Batch(f, torch.tensor([0, 2, 2, 0]), 5.0, None if counted is None else torch.tensor(counted), None, f0)
    found = float(learner.loss(Classifier(w), batch))
    f, f0, w, t = (tensor.numpy() for tensor in (f, f0, w, t))
    entropy, divergence = 0.0, 0.0
    for i, label in enumerate((0, 2, 2, 0)):
        exponentials, known = np.exp(5 * w @ f[i]), np.exp(5 * t @ f0[i])
        entropy -= np.log(exponentials[label] / sum(exponentials[k] for k in range(3) if counted is None or counted[k])) / 4
        p, p0 = exponentials / exponentials.sum(), known / known.sum()
        divergence += sum(p0[k] * np.log(p0[k] / p[k]) for k in range(3))
    texts = sum(abs(w[k, d] - t[k, d]) for k in range(3) for d in range(16)) / (3 * 16)
    pictures = sum(abs(f[i, d] - f0[i, d]) for i in range(4) for d in range(16)) / (4 * 16)
    assert found == pytest.approx(entropy + 3 * texts + 2 * pictures + 0.5 * divergence / (4 * 3), abs=1e-10)


def test_the_terms_are_0_where_nothing_has_changed(clip, colors):
    """With the template's words, no image prompts and no step yet, the loss is IVLP's."""
    shape = "N_CTX_TEXT", "4"
    pairs = ("OPTIM.MAX_EPOCH", "1"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "12")
    losses = [fitted(clip, colors, ("TRAINER.NAME", name), *pairs, (f"TRAINER.{name.upper()}.{shape[0]}", shape[1]),
                     (f"TRAINER.{name.upper()}.N_CTX_VISION", "0"), (f"TRAINER.{name.upper()}.PROMPT_DEPTH_TEXT", "1"),
                     ("TRAINER.ABSENT", "pushed"))[1].losses[0] for name in ("IVLP", "PromptSRC")]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_without_its_terms_and_with_the_last_epoch_alone_it_is_ivlp(clip, colors):
    """The same prompts after the same steps, bit for bit."""
    _, own = fitted(clip, colors, SRC, *LAST, *NO_TERMS, ("TRAINER.ABSENT", "pushed"))
    sizes = [(f"TRAINER.IVLP.{key}", "4") for key in ("N_CTX_TEXT", "N_CTX_VISION")]
    _, ivlp = fitted(clip, colors, ("TRAINER.NAME", "IVLP"), *sizes)
    states = own.learner.state_dict(), ivlp.learner.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_prompts_are_the_weighted_mean_of_those_after_each_epoch(clip, colors, monkeypatch):
    """The weights are those of the Gaussian. Nothing else is averaged or part of the state."""
    seen, after_epoch = [], PromptSRC.after_epoch

    def noted(self, epoch, n_epochs):
        seen.append([prompt.clone() for prompt in self.parameters()])
        after_epoch(self, epoch, n_epochs)

    monkeypatch.setattr(PromptSRC, "after_epoch", noted)
    weights = {name: value.clone() for name, value in clip.model.state_dict().items()}
    _, model = fitted(clip, colors, SRC, ("TRAINER.PROMPTSRC.AVERAGE_MEAN", "0.9"), ("TRAINER.PROMPTSRC.AVERAGE_STD", "0.2"))
    shares = [np.exp(-((e / 3 - 0.9) / 0.2) ** 2 / 2) for e in (1, 2, 3)]
    for index, prompt in enumerate(model.learner.parameters()):
        expected = sum(share / sum(shares) * own[index] for share, own in zip(shares, seen, strict=True))
        assert torch.allclose(prompt, expected, rtol=1e-5, atol=1e-7) and not torch.equal(prompt, seen[-1][index])
    assert set(model.learner.state_dict()) == {f"{tower}.{block}" for tower in ("text", "image") for block in range(3)}
    assert all(torch.equal(value, weights[name]) for name, value in clip.model.state_dict().items())


@pytest.mark.parametrize("n_epochs", [1, 2, 8, 50, 200])
@pytest.mark.parametrize(("mean", "std"), [
    (0.6, 0.6), (0.9, 0.1), (0.75, 0.05), (1.0, 0.001), (0.0, 0.001), (10.0, 0.001), (0.5, 1e6)])
def test_the_weights_of_the_epochs_sum_to_1(n_epochs, mean, std):
    """This holds for any number of epochs, even if all Gaussian values are too small for a float."""
    weights = epoch_weights(n_epochs, mean, std)
    assert len(weights) == n_epochs and min(weights) >= 0 and sum(weights) == pytest.approx(1)


def test_the_authors_settings_are_the_shares():
    """Of 50 epochs 30 and 30, nearly the plain mean of 49 epochs, and 45 and 5; the shape is that of any number of epochs."""
    for mean, std, effective in ((30, 30, 49.3), (45, 5, 14.1)):
        gaussian = np.exp(-((np.arange(1, 51) - mean) / std) ** 2 / 2)
        weights = np.array(epoch_weights(50, mean / 50, std / 50))
        assert weights == pytest.approx(gaussian / gaussian.sum(), abs=1e-12)
        assert 1 / np.square(weights).sum() == pytest.approx(effective, abs=0.05)
        tenfold = np.array(epoch_weights(500, mean / 50, std / 50))
        assert tenfold.reshape(50, 10).sum(1) == pytest.approx(weights, abs=0.01)
    *others, last = epoch_weights(50, 1.0, 0.001)
    assert last == 1.0 and sum(others) < 1e-80


def test_a_teacher_of_templates_for_imagenet(clip, colors):
    """It is the mean of 60 templates' raw features at length 1, by open_clip itself; else it is the data set's template."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    for teacher, templates in (("dataset", [TEXTS.template.format]), ("imagenet", OPENAI_IMAGENET_TEMPLATES[:60])):
        _, model = fitted(clip, colors, SRC, ("TRAINER.PROMPTSRC.TEACHER", teacher))
        raw = sum(clip.model.encode_text(clip.tokenizer([template(name) for name in TEXTS.classnames]))
                  for template in templates)
        assert torch.allclose(model.learner.template_texts, normalized(raw), rtol=0, atol=1e-5)
    assert len({template("{}") for template in OPENAI_IMAGENET_TEMPLATES[:60]}) == 60
    assert "a photo of a {}." in {template("{}") for template in OPENAI_IMAGENET_TEMPLATES[:60]}


def test_larger_weights_hold_texts_and_images(clip, colors):
    """The more the terms weigh, the nearer texts and images stay to the frozen ones."""
    distances = []
    for weight in ("0", "20", "200"):
        pairs = [(f"TRAINER.PROMPTSRC.{name}_LOSS_WEIGHT", weight) for name in ("TEXT", "IMAGE")]
        trainer, model = fitted(clip, colors, SRC, *LAST, *pairs, ("OPTIM.LR", "0.001"), ("OPTIM.MAX_EPOCH", "20"))
        found, kept = (trainer.predict(own, "train") for own in (model, trainer.zero_shot()))
        distances.append([float((found.text_features - kept.text_features).abs().mean()),
                          float((found.features - kept.features)[ROWS].abs().mean())])
    for term in range(2):
        assert distances[0][term] > distances[1][term] > distances[2][term]


def test_a_class_without_a_label_is_held_as_the_others_are(clip):
    """It is masked only in the cross-entropy, so its text has the gradient of the other terms."""
    learner = LEARNERS["PromptSRC"].build(clip, TEXTS, np.random.default_rng(0))
    f, f0, w, t = drawn(*[(3, 16)] * 2, *[(3, 16)] * 2)
    learner.prepare(None, t, 1.0)
    w.requires_grad_()
    learner.loss(Classifier(w), Batch(f, torch.tensor([0, 2, 2]), 1.0, torch.tensor([True, False, True]), None, f0)).backward()
    again = w.detach().clone().requires_grad_()
    p0 = (f0 @ t.T).softmax(1)
    (25 * (again - t).abs().mean() - (p0 * (f @ again.T).log_softmax(1)).sum() / 9).backward()
    assert torch.allclose(w.grad[1], again.grad[1], rtol=0, atol=1e-12) and float(w.grad[1].abs().max()) > 0
