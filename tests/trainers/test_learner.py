"""A learner that tunes no prompt is trained, evaluated, kept and read as any other."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainers.colors import ROWS, trainer_of
from trainers.learner import LEARNERS, Batch, Classifier, ClassTexts, Learner, cross_entropy, template_rows

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
    """The file has a few kilobytes and is read back bit for bit. The prompts of another learner are refused."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Probe"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    trainer.save(model, tmp_path / "probe.safetensors")
    again = trainer.load(tmp_path / "probe.safetensors")
    assert torch.equal(trainer.predict(again, "test").logits, trainer.predict(model, "test").logits)


def test_features_can_be_a_learner_s_own(clip, colors, monkeypatch):
    """What `features` makes from the frozen ones is classified, and read by samplers."""
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


@pytest.mark.parametrize("name", ["CoOp", "DualPrompt"])
@pytest.mark.parametrize("kind", ["masked", "pushed", "auto"])
def test_what_becomes_of_a_class_without_a_label(clip, colors, name, kind):
    """Masked, its logits are not part of the loss; pushed, as these learners were published, they are."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("TRAINER.ABSENT", kind))
    given = {"labeled": (torch.tensor([0, 1]), torch.tensor([0, 2]))}
    counted = trainer._labels(given, trainer._fresh(0).learner).counted
    assert counted.tolist() == ([True, False, True] if kind == "masked" else [True] * 3)


def test_a_masked_class_gets_no_gradient_and_keeps_its_prediction():
    """The gradient of its row is exactly 0; with all classes counted the loss is the plain one, bit for bit."""
    rng = np.random.default_rng(0)
    features, rows = (torch.from_numpy(rng.normal(size=shape)).float() for shape in ((6, 8), (3, 8)))
    targets, counted = torch.tensor([0, 2, 2, 0, 0, 2]), torch.tensor([True, False, True])
    rows.requires_grad_()
    cross_entropy(features @ rows.T, Batch(features, targets, 1.0, counted, rng)).backward()
    assert torch.equal(rows.grad[1], torch.zeros(8)) and bool((rows.grad[[0, 2]] != 0).all())
    logits = features @ rows.T
    everything = Batch(features, targets, 1.0, torch.ones(3, dtype=torch.bool), rng)
    assert torch.equal(cross_entropy(logits, everything), nn.functional.cross_entropy(logits, targets))


def test_a_weight_scales_the_loss_of_its_image():
    """The loss is the mean over the batch of w l, so an image given as two halves counts as one, apart from the batch size."""
    rng = np.random.default_rng(0)
    logits, targets = torch.from_numpy(rng.normal(size=(4, 3))), torch.tensor([0, 2, 2, 0])
    weights = torch.tensor([1.0, 0.5, 0.5, 0.0])
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    found = cross_entropy(logits, Batch(logits, targets, 1.0, None, rng, weights=weights))
    assert float(found) == pytest.approx(float((losses * weights).sum()) / 4, rel=1e-12)


def test_the_complement_of_dual_prompt_is_drawn_among_classes_that_count(clip):
    """With two classes that count, each is the other's complement; the third has no gradient."""
    texts = ClassTexts(("a", "b", "c"), TEMPLATE)
    learner = LEARNERS["DualPrompt"].build(clip, texts, np.random.default_rng(0), n_ctx_vision=0)
    rng = np.random.default_rng(1)
    features, positive, negative = (torch.from_numpy(rng.normal(size=(3, 16))).float() for _ in range(3))
    rows = positive.requires_grad_(), negative.requires_grad_()
    batch = Batch(features, torch.tensor([0, 2, 2]), 1.0, torch.tensor([True, False, True]), rng)
    learner.loss(Classifier(*rows), batch).backward()
    assert all(torch.equal(own.grad[1], torch.zeros(16)) and bool((own.grad[[0, 2]] != 0).all()) for own in rows)


def test_a_learner_is_given_all_labels_before_the_first_step(clip, colors, monkeypatch):
    """Frozen features of the labeled rows, their labels, the pool, and the unit-norm texts; once a fit."""
    LEARNERS.fill()
    monkeypatch.setattr(LEARNERS, "_components", dict(LEARNERS._components))
    seen = []

    @LEARNERS.register("Means")
    class Means(Learner):
        def __init__(self, clip, texts, rng):
            super().__init__()
            self.rows = template_rows(clip.tokenizer, texts.classnames, TEMPLATE)
            self.register_buffer("means", torch.zeros(len(texts.classnames), clip.feature_width))

        def prepare(self, labels, texts, scale):
            seen.append((labels, texts, scale))
            self.means[:] = torch.stack([labels.features[labels.targets == label].mean(0) for label in range(3)])

        def classifier(self, texts):
            return Classifier(self.means, bias=-self.means.square().sum(1) / 2)

    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Means"))
    truth, features = trainer.inputs.dataset.labels("train"), trainer.inputs.features["train"]
    model = trainer.fit(ROWS, truth[ROWS], 0)
    (labels, texts, scale), = seen
    assert torch.equal(labels.features, features[ROWS]) and torch.equal(labels.targets, truth[ROWS])
    assert torch.equal(labels.pool, features) and scale == clip.logit_scale
    assert torch.allclose(texts.norm(dim=1), torch.ones(3), atol=1e-6)
    found = trainer.predict(model, "train")
    nearest = torch.cdist(found.features, model.learner.means).argmin(1)
    assert torch.equal(found.logits.argmax(1), nearest) and not model.losses
    expected = scale * (found.features @ found.text_features.T + found.bias)
    assert torch.allclose(found.logits, expected, rtol=1e-4, atol=1e-3)


class Watched(Learner):
    """A linear probe that is asked what it is told, with a dropout that is off unless torch says that it trains."""

    seen: list

    def __init__(self, clip, texts, rng):
        super().__init__()
        self.rows = template_rows(clip.tokenizer, texts.classnames, TEMPLATE)
        self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))
        self.dropout = nn.Dropout(0.5)

    def classifier(self, texts):
        return Classifier(self.dropout(texts.texts + self.shift))

    def loss(self, classifier, batch):
        self.seen.append((self.training, batch.features, batch.frozen))
        return super().loss(classifier, batch)

    def after_epoch(self, epoch, n_epochs):
        self.seen.append((epoch, n_epochs, torch.is_grad_enabled()))


@pytest.fixture
def watched(monkeypatch):
    LEARNERS.fill()
    monkeypatch.setattr(LEARNERS, "_components", dict(LEARNERS._components))
    monkeypatch.setattr(Watched, "seen", [], raising=False)
    LEARNERS.register("Watched")(Watched)
    return Watched


def test_a_learner_is_in_training_mode_in_steps_alone(clip, colors, watched):
    """Torch's own dropout acts in the steps and in no prediction, before or after the fit."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Watched"), ("OPTIM.MAX_EPOCH", "2"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    assert [own[0] for own in watched.seen if len(own[1:]) == 2 and isinstance(own[0], bool)] == [True] * 6
    for own in (model, trainer._fresh(0)):
        assert not own.learner.training
        assert torch.equal(trainer.predict(own, "test").logits, trainer.predict(own, "test").logits)


def test_a_learner_is_told_of_each_epoch_after_its_last_step(clip, colors, watched):
    """Its number and how many there are, outside the graph."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Watched"), ("OPTIM.MAX_EPOCH", "2"))
    trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    assert [own if isinstance(own[1], int) else "step" for own in watched.seen] == [
        *["step"] * 3, (0, 2, False), *["step"] * 3, (1, 2, False)]


@pytest.mark.parametrize("augmented", [False, True])
def test_frozen_features_are_those_of_the_same_views(clip, colors, watched, monkeypatch, augmented):
    """Without image prompts they are the batch's features, even for drawn views. They are given only if asked for."""
    pairs = [("TRAINER.NAME", "Watched"), ("OPTIM.MAX_EPOCH", "2")]
    pairs += [("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']")] if augmented else []
    for tunes_images in (False, True):
        monkeypatch.setattr(watched, "tunes_images", tunes_images)
        for reads_frozen in (False, True):
            monkeypatch.setattr(watched, "reads_frozen", reads_frozen)
            watched.seen.clear()
            trainer = trainer_of(clip, colors, *pairs)
            trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
            steps = [own for own in watched.seen if isinstance(own[1], torch.Tensor)]
            assert len(steps) == 6
            for _, features, frozen in steps:
                assert (frozen is not None) == reads_frozen
                assert frozen is None or (torch.equal(frozen, features) and not frozen.requires_grad)


def test_a_teacher_of_several_templates_is_their_mean_and_is_asked_once(clip, colors, watched, monkeypatch):
    """`prepare` is given the mean of raw features over the templates, scaled to length 1; the next round has the same."""
    given, calls = [], []
    templates = ("a photo of a {}.", "art of the {}.")
    monkeypatch.setattr(watched, "prepare", lambda self, labels, texts, scale: given.append(texts))
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Watched"), ("OPTIM.MAX_EPOCH", "1"))
    rows = tuple(template_rows(clip.tokenizer, trainer.texts.classnames, template) for template in templates)
    monkeypatch.setattr(watched, "teacher", templates)
    raw = [clip.model.encode_text(own.ids) for own in rows]
    encode_text = type(clip).encode_text
    monkeypatch.setattr(type(clip), "encode_text", lambda self, own, prompts=None: (
        calls.append(own), encode_text(self, own, prompts))[1])
    for round in range(2):
        trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], round)
    mean = (raw[0] + raw[1]) / 2
    for texts in given:
        assert torch.allclose(texts, mean / mean.norm(dim=1, keepdim=True), rtol=0, atol=1e-6)
    assert {own.digest() for own in rows} == {own.digest() for own in calls[:2]}
    assert sum(own.digest() in {rows[1].digest()} for own in calls) == 1 and given[0] is not given[1]
