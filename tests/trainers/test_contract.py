"""Every registered learner under the contract kit, and the kit under learners that break it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainers.testing as kit
from trainers.core.trainer import PromptTrainer
from trainers.learner import LEARNERS, Classifier, Learner, cross_entropy, template_rows
from trainers.testing import CHECKS, Subject, learner_by_name, learner_contract


@learner_contract(*(component.name for component in LEARNERS))
def test_every_learner_keeps_the_contract(check):
    """Row 33: each check of the kit passes for each learner in `trainers/`, with its defaults."""
    check()


class Sound(Learner):
    """A linear probe that starts at the texts. Each faulty learner below differs from it in one thing."""

    def __init__(self, clip, texts, rng):
        super().__init__()
        self.rows = template_rows(clip.tokenizer, texts.classnames, "a photo of a {}.")
        self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))

    def classifier(self, texts):
        return Classifier(texts.texts + self.shift)


class BeginsElsewhere(Sound):
    def __init__(self, clip, texts, rng):
        super().__init__(clip, texts, rng)
        self.shift.data[:] = torch.from_numpy(rng.normal(size=self.shift.shape))


class MeanOfNothing(Sound):
    def prepare(self, labels, texts, scale):
        self.shift.data[:] = torch.stack([labels.features[labels.targets == label].mean(0) for label in range(len(texts))])


class SpreadOfOne(Sound):
    def prepare(self, labels, texts, scale):
        if len(labels.targets):
            self.shift.data[:] = labels.features.std(0)


class NeedsAnOther(Sound):
    def loss(self, classifier, batch):
        logits = self.logits(batch.scale, batch.features, classifier)
        return cross_entropy(logits, batch) - logits.topk(2, dim=1).values.mean()


class Whitened(Sound):
    def prepare(self, labels, texts, scale):
        spread = labels.pool.var(0)
        self.shift.data[:] = 1e-3 * texts / spread if len(labels.targets) else 0


class PrefersTheFirstClass(Sound):
    def prepare(self, labels, texts, scale):
        self.shift.data[0] = texts[0] * bool(len(labels.targets))


class PrefersTheFirstRow(Sound):
    def prepare(self, labels, texts, scale):
        self.shift.data[labels.targets[:1]] = labels.features[:1]


class Pushes(Sound):
    def loss(self, classifier, batch):
        return F.cross_entropy(self.logits(batch.scale, batch.features, classifier), batch.targets)


class ForgetsItsKeys(Sound):
    def prepare(self, labels, texts, scale):
        self.keys = nn.Parameter(labels.features.clone())


class ForgetsWhatItKnows(Sound):
    known = 0.0

    def prepare(self, labels, texts, scale):
        self.known = labels.features.sum()

    def classifier(self, texts):
        return Classifier(texts.texts + self.shift, bias=self.shift.sum(1) * 0 + self.known * texts.texts[:, 0])


class Bent(Sound):
    def logits(self, scale, features, classifier):
        return super().logits(scale, features, classifier) + (features @ classifier.texts.T).square()


class CountsAllAlike(Sound):
    def loss(self, classifier, batch):
        return cross_entropy(self.logits(batch.scale, batch.features, classifier), kit.replace(batch, weights=None))


class FollowsWhatItSees(Sound):
    def __init__(self, clip, texts, rng):
        super().__init__(clip, texts, rng)
        self.norm = nn.BatchNorm1d(clip.feature_width)

    def features(self, features):
        norm = self.norm
        seen = F.batch_norm(features, norm.running_mean, norm.running_var, training=True)
        return F.normalize(features + 0 * seen, dim=1)


class DrawsAtLarge(Sound):
    def prepare(self, labels, texts, scale):
        self.shift.data += torch.randn_like(self.shift) * bool(len(labels.targets))


@pytest.mark.parametrize(("learner", "check"), [
    (BeginsElsewhere, "check_no_label"), (MeanOfNothing, "check_no_label"), (MeanOfNothing, "check_label_counts"),
    (SpreadOfOne, "check_label_counts"), (NeedsAnOther, "check_one_class"), (Whitened, "check_identical_features"),
    (PrefersTheFirstClass, "check_class_permutation"), (PrefersTheFirstRow, "check_row_order"), (Pushes, "check_absent"),
    (ForgetsItsKeys, "check_save_and_load"), (ForgetsWhatItKnows, "check_save_and_load"), (Bent, "check_linear"),
    (CountsAllAlike, "check_weights"),
    (FollowsWhatItSees, "check_prediction_is_pure"), (DrawsAtLarge, "check_global_random_state"),
    (DrawsAtLarge, "check_same_seed"),
])
@pytest.mark.filterwarnings("ignore:std\\(\\)")
def test_the_kit_catches_a_faulty_learner(learner, check):
    """Each fault is found by the check that is made for it, which a sound learner passes."""
    getattr(kit, check)(Subject("Sound", Sound))
    with pytest.raises(Exception) as caught:
        getattr(kit, check)(Subject("Faulty", learner))
    assert not isinstance(caught.value, (AttributeError, TypeError, NotImplementedError)), caught.value


def test_the_kit_trains_by_the_order_that_a_learner_asks_for():
    for name in ("CrossModal", "TipAdapterF"):
        trainer = kit.make_trainer(learner_by_name(name), kit.make_inputs())
        rows = kit.all_rows(trainer)
        (batch,), *_ = (list(batches) for batches in trainer._epochs({"labeled": (rows, rows)}, 0, reads="features"))
        assert (batch[1].tolist() == rows.tolist()) == (name == "CrossModal")


def test_the_kit_catches_a_loss_that_differs_where_nothing_is_masked(monkeypatch):
    """If a learner scales its loss by whether the run is pushed, its parameters differ even if all classes are present."""
    class Scales(Sound):
        def prepare(self, labels, texts, scale):
            self.shift.data += float(pushed) * len(labels.targets)

    pushed, make_trainer = False, kit.make_trainer

    def telling(subject, inputs, *, masked=True, n_epochs=3):
        trainer = make_trainer(subject, inputs, masked=masked, n_epochs=n_epochs)
        prepare = trainer._labels

        def labels(sources, reads):
            nonlocal pushed
            pushed = not masked
            return prepare(sources, reads)

        trainer._labels = labels
        return trainer

    monkeypatch.setattr(kit, "make_trainer", telling)
    kit.check_all_present(Subject("Sound", Sound))
    with pytest.raises(AssertionError, match="masked and pushed differ"):
        kit.check_all_present(Subject("Scales", Scales))


class Averages(Sound):
    """Takes what it can from labels and pool, so that a trainer that hands out too much is noticed."""

    def prepare(self, labels, texts, scale):
        self.shift.data[:] = labels.pool.mean(0)
        self.shift.data[labels.targets] += labels.features


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("check", ["check_poisoned_labels", "check_test_images"])
def test_the_kit_catches_a_trainer_that_hands_out_too_much(monkeypatch, check, split):
    """A pool with images of another split, or labels of that split, changes the parameters."""
    made = PromptTrainer._labels

    def too_much(self, sources, reads):
        labels, others = made(self, sources, reads), self.inputs.features[split]
        guilty = self.inputs.dataset.labels(split)[: len(labels.targets)]
        return kit.replace(labels, pool=torch.cat([labels.pool, others]), targets=guilty.expand(len(guilty)),
                           features=labels.features[: len(guilty)])

    getattr(kit, check)(Subject("Averages", Averages))
    monkeypatch.setattr(PromptTrainer, "_labels", too_much)
    with pytest.raises(AssertionError, match="are read"):
        getattr(kit, check)(Subject("Averages", Averages))


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_learner_passes_every_check(check):
    """The kit does not refuse the simplest sound learner."""
    check(Subject("Sound", Sound))


def test_a_stranger_runs_the_kit_on_a_plug_in(tmp_path):
    """The docstring's two lines: a learner in a file of its own, by its name."""
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nfrom trainers.learner import LEARNERS, Classifier, Learner, template_rows\n\n"
        "@LEARNERS.register('OfAStranger')\nclass OfAStranger(Learner):\n"
        "    def __init__(self, clip, texts, rng, *, template: str = 'a photo of a {}.'):\n        super().__init__()\n"
        "        self.rows = template_rows(clip.tokenizer, texts.classnames, template)\n"
        "        self.shift = nn.Parameter(torch.zeros(len(texts.classnames), clip.feature_width))\n\n"
        "    def classifier(self, texts):\n        return Classifier(texts.texts + self.shift)\n")
    try:
        mark = learner_contract("OfAStranger", plugins=[str(tmp_path / "mine.py")])
        cases = mark.mark.args[1]
        assert len(cases) == len(CHECKS)
        for case in cases:
            case.values[0]()
        assert learner_by_name("OfAStranger", template="{}").build.keywords == {"template": "{}"}
    finally:
        LEARNERS._components.pop("OfAStranger", None)
