"""The contract that every learner must keep, for learners of this project and of others.

    from trainers.testing import learner_contract

    @learner_contract("MyLearner", plugins=["path/to/my_learner.py"])
    def test_contract(check):
        check()

The checks train the learner through `trainers.core.trainer.PromptTrainer`, as a run does, on a CLIP with random weights. A
learner states its properties when it is registered: `is_linear=False` (logits are not a product with class features),
`begins_as_zero_shot=False` (without a label it is not zero-shot CLIP), `moves_absent=True` (a class without a label changes
although it is left out of the loss), `draws_classes=True` (its loss draws classes by number), `keeps_order=True` (see
`trainers.learner`), and, if its steps draw something for each place in a batch, the parameters with which they draw nothing:
`without_draws={"dropout": 0.0}`.
"""

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from dassl.config.setup import load_plugin
from dassl.data.dataset import SPLITS
from trainers.core.patterns import TinyInputs, make_inputs, tiny_clip
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Classifier, ClassTexts
from trainers.core.recipe import Recipe, Setting
from trainers.core.trainer import PromptTrainer
from trainers.learner import LEARNERS, Learner
from trainers.registry import settle_depths


def learner_contract(*names: str, plugins: Sequence[str] = ()) -> Any:
    """Return a pytest decorator that runs every check on registered learners, with the defaults of their YAML nodes."""
    import pytest

    for plugin in plugins:
        load_plugin(plugin)
    cases = [pytest.param(partial(check, learner_by_name(name)), id=f"{name}-{check.__name__.removeprefix('check_')}")
             for name in names for check in CHECKS]
    return pytest.mark.parametrize("check", cases)


@dataclass(frozen=True)
class Subject:
    """A learner under test: its name, what builds it, and the facts that it is registered with."""

    name: str
    build: Callable[..., Learner]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def says(self, fact: str, default: bool = False) -> bool:
        return self.facts.get(fact, default)

    def without_draws(self) -> "Subject":
        """Return the learner with the parameters by which its steps draw nothing, if it names any."""
        return replace(self, build=partial(self.build, **self.facts.get("without_draws", {})))


def learner_by_name(name: str, **parameters: Any) -> Subject:
    """Return a registered learner with its default parameters, or the ones given; depths are those of the tiny CLIP."""
    component = LEARNERS[name]
    own = component.arguments({key.upper(): value for key, value in parameters.items()})
    node = CfgNode({component.key: CfgNode({key.upper(): value for key, value in own.items()})})
    clip = tiny_clip()
    settle_depths(node, {"image": clip.image_depth, "text": clip.text_depth})
    return Subject(name, partial(component.build, **component.arguments(node[component.key])), component.facts)


def make_trainer(subject: Subject, inputs: TinyInputs, *, masked: bool = True, n_epochs: int = 3) -> PromptTrainer:
    """Return the learner's trainer: SGD with momentum, all labels in one batch, seed 0."""

    def build_optimization(parameters: Sequence[nn.Parameter]) -> tuple[Optimizer, LRScheduler]:
        optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

    recipe = Recipe(
        name=subject.name, build_learner=subject.build, build_zero_shot=LEARNERS["ZeroShot"].build,
        build_optimization=build_optimization, n_epochs=n_epochs, batch_size=1000, n_mined=1000, drop_last=False, seed=0,
        keeps_order=subject.says("keeps_order"), masked=masked)
    texts = ClassTexts(inputs.dataset.classnames, inputs.dataset.template)
    return PromptTrainer(Setting(inputs, texts, recipe))


def fitted(trainer: PromptTrainer, rows: Sequence[int] | Tensor) -> PromptedCLIP:
    """Return a model trained on rows of the train split and their labels."""
    rows = torch.as_tensor(rows, dtype=torch.int64)
    return trainer.fit(rows, trainer.inputs.dataset.labels("train")[rows], 0)


def all_rows(trainer: PromptTrainer) -> Tensor:
    return torch.arange(len(trainer.inputs.dataset.train))


def rows_of(trainer: PromptTrainer, *classes: int) -> Tensor:
    """Return all train rows of some classes."""
    return torch.isin(trainer.inputs.dataset.labels("train"), torch.tensor(classes)).nonzero().flatten()


def class_features(model: PromptedCLIP) -> Classifier:
    """Return the model's current classifier."""
    with torch.no_grad():
        return model.classifier(model.learner())


def logits_of(trainer: PromptTrainer, model: PromptedCLIP) -> Tensor:
    """Return the logits of the test split; raises AssertionError unless features, logits and class features are finite."""
    found = trainer.predict(model, "test")
    n_rows, n_classes = len(trainer.inputs.dataset.test), len(trainer.inputs.dataset.classnames)
    assert found.logits.shape == (n_rows, n_classes), f"logits are {tuple(found.logits.shape)}, not {(n_rows, n_classes)}"
    for name in ("features", "logits", "text_features", "bias"):
        value = getattr(found, name)
        assert value is None or bool(value.isfinite().all()), f"{name} are not finite"
        assert value is None or not value.requires_grad, f"{name} are still being trained"
    return found.logits


def _assert_alike(found: Tensor, expected: Tensor, what: str) -> None:
    difference = float((found - expected).detach().abs().max())
    limit = 1e-3 * max(1.0, float(expected.abs().max()))
    assert difference <= limit, f"{what}: logits differ by {difference:.2g}"


def _same_state(one: PromptedCLIP, other: PromptedCLIP) -> bool:
    mine, yours = one.learner.state_dict(), other.learner.state_dict()
    return mine.keys() == yours.keys() and all(torch.equal(value, yours[name]) for name, value in mine.items())


def check_no_label(subject: Subject) -> None:
    """Without a label its logits are finite; without prompts they are zero-shot CLIP's, unless its facts say otherwise."""
    trainer = make_trainer(subject, make_inputs())
    model = fitted(trainer, [])
    found, zero_shot = logits_of(trainer, model), trainer.predict(trainer.zero_shot(), "test").logits
    if type(model.learner).forward is Learner.forward and subject.says("begins_as_zero_shot", True):
        _assert_alike(found, zero_shot, "without a label")


def check_label_counts(subject: Subject) -> None:
    """Classes with no, one and many labels together, and one label in all, give finite features, rows and logits."""
    for masked in (True, False):
        trainer = make_trainer(subject, make_inputs(), masked=masked)
        for rows in (torch.cat([rows_of(trainer, 1), rows_of(trainer, 0)[:1]]), rows_of(trainer, 2)[:1]):
            logits_of(trainer, fitted(trainer, rows))


def check_one_class(subject: Subject) -> None:
    """A single class works."""
    trainer = make_trainer(subject, make_inputs(1))
    logits_of(trainer, fitted(trainer, all_rows(trainer)))


def check_identical_features(subject: Subject) -> None:
    """Identical images under different labels work."""
    trainer = make_trainer(subject, make_inputs(alike=True))
    for rows in (all_rows(trainer), rows_of(trainer, 0, 2)):
        logits_of(trainer, fitted(trainer, rows))


def check_class_permutation(subject: Subject) -> None:
    """Numbering the classes in another order gives the same logits in that order."""
    subject = subject.without_draws()
    inputs = make_inputs(2 if subject.says("draws_classes") else 4)
    dataset = inputs.dataset
    order = [1, 0] if len(dataset.classnames) == 2 else [2, 0, 3, 1]  # the new class k is the old order[k]
    trainer = make_trainer(subject, inputs)
    splits = {split: tuple(replace(item, label=order.index(item.label)) for item in dataset.split(split))
              for split in ("train", "test")}
    other = make_trainer(subject, replace(inputs, dataset=replace(
        dataset, classnames=tuple(dataset.classnames[old] for old in order), **splits)))
    rows = rows_of(trainer, *range(len(order) - 1 or 1)) if len(order) > 2 else all_rows(trainer)
    found, expected = logits_of(other, fitted(other, rows)), logits_of(trainer, fitted(trainer, rows))
    _assert_alike(found, expected[:, order], "classes in another order")


def check_row_order(subject: Subject) -> None:
    """With all labels in one batch, their order changes nothing."""
    subject = subject.without_draws()
    trainer = make_trainer(subject, make_inputs())
    rows = all_rows(trainer)[:-3]
    shuffled = rows[torch.from_numpy(np.random.default_rng(5).permutation(len(rows)))]
    if subject.says("draws_classes"):  # what the loss draws belongs to a place in the batch
        trainer = make_trainer(subject, make_inputs(2))
        shuffled = rows_of(trainer, 0, 1).flip(0)
        rows = shuffled.flip(0)
    found, expected = (logits_of(trainer, fitted(trainer, own)) for own in (shuffled, rows))
    _assert_alike(found, expected, "labels in another order")


def check_absent(subject: Subject) -> None:
    """Masked, the class features of classes without a label stay as they were, bit for bit, unless prompts make them."""
    trainer = make_trainer(subject, make_inputs())
    start, model = fitted(trainer, []), fitted(trainer, rows_of(trainer, 0, 2))
    if type(model.learner).forward is Learner.forward and not subject.says("moves_absent"):
        now, before = (class_features(own).texts[[1, 3]] for own in (model, start))
        assert torch.equal(now, before), "class features of classes without a label have moved"


def check_all_present(subject: Subject) -> None:
    """With a label for each class, masked and pushed give the same parameters, bit for bit."""
    trainers = [make_trainer(subject, make_inputs(), masked=masked) for masked in (True, False)]
    models = [fitted(trainer, all_rows(trainer)) for trainer in trainers]
    assert _same_state(*models), "masked and pushed differ although each class has a label"


def check_save_and_load(subject: Subject) -> None:
    """A model that was written and read back gives equal logits, whatever the number of labels."""
    trainer = make_trainer(subject, make_inputs())
    with tempfile.TemporaryDirectory() as folder:
        for number, rows in enumerate(([], rows_of(trainer, 1)[:1], all_rows(trainer))):
            path = Path(folder) / f"{number}.safetensors"
            model = fitted(trainer, rows)
            trainer.save(model, path)
            again = trainer.load(path)
            assert torch.equal(logits_of(trainer, again), logits_of(trainer, model)), "logits differ after saving and loading"


def check_weights(subject: Subject) -> None:
    """Weights of 1 change nothing; the class of a label of weight 0 does not matter; a half label counts as neither 0 nor 1."""
    trainer = make_trainer(subject, make_inputs())
    rows = rows_of(trainer, 0, 1, 2)
    labels = trainer.inputs.dataset.labels("train")[rows]
    ones, other = torch.ones(len(rows)), labels.clone()
    other[0] = 1
    found = {}
    for name, given, weight in (("one", labels, 1.0), ("none", labels, 0.0), ("none of another", other, 0.0),
                                ("half", labels, 0.5)):
        found[name] = logits_of(trainer, trainer.fit(rows, given, 0, weights=torch.cat([ones[:1] * weight, ones[1:]])))
    _assert_alike(found["one"], logits_of(trainer, fitted(trainer, rows)), "with weights of 1")
    _assert_alike(found["none of another"], found["none"], "another class in a label of weight 0")
    if not torch.equal(found["one"], trainer.predict(trainer.zero_shot(), "test").logits):
        assert not any(torch.equal(found["half"], found[name]) for name in ("one", "none")), "half a label is one or none"


def check_linear(subject: Subject) -> None:
    """Logits are the scale times (features @ class features + bias), as samplers rebuild them, unless it is not linear."""
    trainer = make_trainer(subject, make_inputs())
    found = trainer.predict(fitted(trainer, rows_of(trainer, 0, 1)), "test")
    rebuilt = found.features.double() @ found.text_features.double().T + (0 if found.bias is None else found.bias.double())
    if subject.says("is_linear", True):
        _assert_alike(trainer.clip.logit_scale * rebuilt, found.logits.double(), "rebuilt from features and class features")


def check_prediction_is_pure(subject: Subject) -> None:
    """Predicting changes nothing: the state stays, and a second prediction equals the first."""
    trainer = make_trainer(subject, make_inputs())
    model = fitted(trainer, all_rows(trainer))
    before = {name: value.clone() for name, value in model.learner.state_dict().items()}
    first, second = logits_of(trainer, model), logits_of(trainer, model)
    assert torch.equal(first, second), "a second prediction differs from the first"
    assert all(torch.equal(value, before[name]) for name, value in model.learner.state_dict().items()), "predicting changed it"


def check_poisoned_labels(subject: Subject) -> None:
    """Wrong labels for all validation and test images, and for pool images without a label, change no parameter."""
    inputs = make_inputs()
    trainer = make_trainer(subject, inputs)
    rows = rows_of(trainer, 0, 2)
    wrong = {split: tuple(item if split == "train" and row in rows.tolist() else replace(item, label=(item.label + 1) % 4)
                          for row, item in enumerate(inputs.dataset.split(split))) for split in SPLITS}
    poisoned = make_trainer(subject, replace(inputs, dataset=replace(inputs.dataset, **wrong)))
    assert _same_state(fitted(trainer, rows), fitted(poisoned, rows)), "labels that nobody gave are read"


def check_test_images(subject: Subject) -> None:
    """Other validation and test images change no parameter: `prepare` is given only the pool."""
    inputs = make_inputs()
    others = {name: own | {split: own[split].flip(0) + 1 for split in ("val", "test")} for name, own in
              (("features", inputs.features), ("tokens", inputs.tokens), ("before_projection", inputs.before_projection))}
    models = [fitted(trainer, rows_of(trainer, 0, 2)) for trainer in
              (make_trainer(subject, inputs), make_trainer(subject, replace(inputs, **others)))]
    assert _same_state(*models), "validation or test images are read before they are predicted"


def check_same_seed(subject: Subject) -> None:
    """The same labels and the same seed give the same parameters, bit for bit."""
    trainer = make_trainer(subject, make_inputs())
    assert _same_state(*(fitted(trainer, all_rows(trainer)) for _ in range(2))), "a second fit differs from the first"


def check_global_random_state(subject: Subject) -> None:
    """The global generators of Python, NumPy and torch are neither read nor moved."""
    trainer, models = make_trainer(subject, make_inputs()), []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        models.append(fitted(trainer, all_rows(trainer)))
        assert random.getstate() == states[0], "Python's global generator was moved"
        assert np.random.get_state()[1].tolist() == states[1], "NumPy's global generator was moved"  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), states[2]), "torch's global generator was moved"
    assert _same_state(*models), "the fit depends on a global generator"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_no_label, check_label_counts, check_one_class, check_identical_features, check_class_permutation, check_row_order,
    check_absent, check_all_present, check_save_and_load, check_weights, check_linear, check_prediction_is_pure,
    check_poisoned_labels, check_test_images, check_same_seed, check_global_random_state)
