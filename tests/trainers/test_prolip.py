"""ProLIP: the projection in the span of the labels against the whole one, in float64, and the rows that it is fitted to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trainers.rla as rla
from dassl.data import feature_bank
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.held import Held
from tests.trainers.colors import ROWS, trainer_of
from tests.trainers.heads import SCALE, logits_of, map_loss_and_gradient, permuted, prepared, problem, twice, unit, weighted
from trainers.core import job
from trainers.core.build import kinds_read
from trainers.learner import LEARNERS, Learner, template_rows

PROJECT = Path(__file__).parents[2]
COUNTS = [(3, 0, 1, 4, 2), (1, 0, 0, 0, 0), (2, 2, 2, 2, 2), (9, 8, 7, 6, 5)]
AUGMENTED = ("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']")


def rows_problem(clip, *arguments, **named):
    """Return a problem whose images are rows [., width] before the projection, of no particular length."""
    given = problem(*arguments, **named)
    back = torch.linalg.pinv(clip.image_projection.double())
    rng = np.random.default_rng(1)

    def lifted(features):
        return 3 * features @ back + torch.from_numpy(rng.normal(size=(len(features), 32))) / 8

    labels = replace(given.labels, features=lifted(given.labels.features), pool=lifted(given.labels.pool))
    return replace(given, labels=labels, images=lifted(given.images))


def start(clip) -> np.ndarray:
    return clip.image_projection.double().numpy()


def zero_shot(clip, given) -> np.ndarray:
    return SCALE * unit(given.images.numpy() @ start(clip)) @ given.texts.numpy().T


def loss_and_gradient(clip, given, projection: np.ndarray) -> tuple[float, np.ndarray]:
    """Return sum CE + C |P - P0|^2 and its gradient by P."""
    loss, gradient = map_loss_and_gradient(given, start(clip).T, projection.T)
    return loss, gradient.T


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
def test_it_is_a_minimum_of_the_whole_projection(clip, counts, masked):
    """In all width * D entries: the gradient is 0, and nowhere nearby is lower."""
    given = rows_problem(clip, counts, masked=masked)
    projection = start(clip) + prepared(clip, "ProLIP", given).shift.numpy().T
    loss, gradient = loss_and_gradient(clip, given, projection)
    assert np.abs(gradient).max() < 1e-8
    rng = np.random.default_rng(0)
    assert all(loss_and_gradient(clip, given, projection + 1e-3 * rng.normal(size=(32, 16)))[0] > loss for _ in range(20))


@pytest.mark.parametrize("counts", COUNTS)
def test_the_form_of_low_rank_is_the_whole_one(clip, counts, monkeypatch):
    """At the minimum, with all directions instead of those of labels and texts: to 1e-10."""
    given = rows_problem(clip, counts, masked=counts != COUNTS[1])  # one class alone would move nothing
    found = prepared(clip, "ProLIP", given).shift
    monkeypatch.setattr(rla, "row_basis", lambda rows: torch.eye(rows.shape[1], dtype=torch.float64))
    assert (found - prepared(clip, "ProLIP", given).shift).abs().max() < 1e-10
    assert found.shape == (16, 32) and found.abs().max() > 1e-3


def test_logits_are_those_of_projected_rows(clip):
    """They are s n(P^T x).t_k, image by image. Features that samplers read have length 1."""
    given = rows_problem(clip)
    learner = prepared(clip, "ProLIP", given)
    projection = start(clip) + learner.shift.numpy().T
    expected = np.array([[SCALE * unit(x @ projection) @ t for t in given.texts.numpy()] for x in given.images.numpy()])
    assert np.abs(logits_of(learner, given) - expected).max() < 1e-10
    assert torch.allclose(learner.features(given.images).norm(dim=1), torch.ones(7, dtype=torch.float64), atol=1e-12)


def test_a_strong_pull_or_no_label_leaves_zero_shot(clip):
    """lambda to infinity, and M = 0."""
    given, expected = rows_problem(clip), zero_shot(clip, rows_problem(clip))
    assert np.abs(logits_of(prepared(clip, "ProLIP", given, strength=1e9), given) - expected).max() < 1e-6
    assert np.abs(logits_of(prepared(clip, "ProLIP", rows_problem(clip, (0,) * 5)), given) - expected).max() < 1e-12
    assert np.abs(logits_of(prepared(clip, "ProLIP", given), given) - expected).max() > 0.1


def test_order_does_not_matter_and_weights_are_numbers(clip):
    """Another order of labels changes nothing, and labels of weight 2 count as labels given twice."""
    given = rows_problem(clip)
    found, shuffled, heavy, double = (logits_of(prepared(clip, "ProLIP", own), given) for own in (
        given, permuted(given, np.arange(10)[::-1].copy()), weighted(given, 2.0), twice(given)))
    assert np.abs(found - shuffled).max() < 1e-8 and np.abs(heavy - double).max() < 1e-8 < np.abs(heavy - found).max()


def test_the_state_is_the_shift_alone(clip, colors):
    """CLIP's projection is not stored: the file names the weights that it belongs to."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "ProLIP"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    assert list(model.learner.state_dict()) == ["shift"] and not model.losses and not list(model.learner.parameters())


def test_a_fit_helps_and_samplers_read_its_features(clip, colors):
    """Zero-shot CLIP of the same trainer has the unit-norm features of the cache."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "ProLIP"))
    labels = trainer.inputs.dataset.labels("train")
    before, after = (trainer.predict(model, "train") for model in (trainer.zero_shot(), trainer.fit(ROWS, labels[ROWS], 0)))
    assert torch.equal(before.features, trainer.inputs.features["train"])
    assert not torch.allclose(after.features, before.features, atol=1e-3)
    assert torch.allclose(after.features.norm(dim=1), torch.ones(36), atol=1e-5)
    assert F.cross_entropy(after.logits[ROWS], labels[ROWS]) < F.cross_entropy(before.logits[ROWS], labels[ROWS])


@pytest.mark.parametrize("transforms", [AUGMENTED, ("INPUT.TRANSFORMS", "[]")], ids=["augmented", "fixed"])
def test_a_learner_that_takes_steps_reads_them_too(clip, colors, monkeypatch, transforms):
    """Its rows of each step, of fixed and of augmented views, and those of `prepare` are what the tower makes before P0."""
    LEARNERS.fill()
    monkeypatch.setattr(LEARNERS, "_components", dict(LEARNERS._components))
    seen = []

    @LEARNERS.register("Projected")
    class Projected(Learner):
        reads = "pre_projection"

        def __init__(self, clip, texts, rng):
            super().__init__()
            self.rows = template_rows(clip.tokenizer, texts.classnames, "a photo of a {}.")
            self.projection = nn.Parameter(clip.image_projection.clone())

        def prepare(self, labels, texts, scale):
            seen.append((labels.features, labels.pool))

        def features(self, features):
            return F.normalize(features @ self.projection, dim=1)

    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "Projected"), transforms)
    labels = trainer.inputs.dataset.labels("train")
    bank = trainer.inputs.banks["pre_projection"]["train"]
    untrained = trainer.predict(trainer._fresh(0), "test")
    assert torch.allclose(untrained.features, trainer.inputs.features["test"], atol=1e-6)
    model = trainer.fit(ROWS, labels[ROWS], 0)
    assert torch.equal(seen[0][0], bank[ROWS]) and torch.equal(seen[0][1], bank)
    assert model.losses[-1] < model.losses[0]


def config(*words):
    files = [str(PROJECT / "configs" / file) for file in ("quickstart.yaml", "trainers/ProLIP/tiny_clip.yaml")]
    return job.build_config(*job.parser().parse(["--config-file", *files, *map(str, words)]))


def test_the_bank_is_made_once_beside_that_of_features(root, tmp_path, monkeypatch):
    """Times P0 and at length 1, it is the cached features. A second run reads both banks; CoOp makes and reads only one."""
    words = "--root", root, "CACHE_DIR", tmp_path / "cache"
    _, inputs = job.prepared(config(*words, "TRAINER.NAME", "CoOp"), Held())
    kept = set((tmp_path / "cache").glob("*.safetensors"))
    assert list(inputs.banks) == ["features"] and len(kept) == 2
    _, inputs = job.prepared(config(*words), Held())
    assert len(set((tmp_path / "cache").glob("*.safetensors")) - kept) == 2
    for split, features in inputs.features.items():
        rows = inputs.banks["pre_projection"][split]
        assert rows.shape == (len(features), 128) and rows.dtype == torch.float32
        assert torch.allclose(F.normalize(rows @ inputs.clip.image_projection, dim=1), features, rtol=0, atol=1e-5)
    monkeypatch.setattr(feature_bank, "_extracted", None)
    _, again = job.prepared(config(*words), Held())
    assert again.banks.keys() == inputs.banks.keys() == {"features", "pre_projection"}
    for kind, bank in inputs.banks.items():
        assert all(torch.equal(again.banks[kind][split], rows) for split, rows in bank.items())


def test_the_runs_of_a_process_have_the_banks_of_their_own_learners(root):
    """What is held of a run of CoOp lacks rows that ProLIP reads."""
    held = Held()
    inputs = [job.prepared(config("--root", root, "TRAINER.NAME", name), held)[1] for name in ("CoOp", "ProLIP", "ProLIP")]
    assert ["pre_projection" in own.banks for own in inputs] == [False, True, True]
    assert inputs[1].banks is inputs[2].banks


def test_a_selector_reads_them_too():
    """Either of the two learners may need them. Tokens are not a bank."""
    assert kinds_read(config("TRAINER.NAME", "VPT")) == ("features",)
    assert kinds_read(config("TRAINER.NAME", "VPT", "ACTIVE.SELECTOR_TRAINER", "ProLIP")) == ("features", "pre_projection")


@pytest.mark.parametrize("backbone", ["RN50", "RN101", "MobileCLIP-B"])
@pytest.mark.parametrize("role", ["TRAINER.NAME", "ACTIVE.SELECTOR_TRAINER"])
def test_a_backbone_without_a_linear_projection_is_refused_before_anything_loads(backbone, role):
    """ResNets and timm's towers are refused by their names alone."""
    tag = {"MobileCLIP-B": "datacompdr"}.get(backbone, "openai")
    cfg = config("MODEL.BACKBONE.NAME", backbone, "MODEL.BACKBONE.PRETRAINED", tag, "TRAINER.NAME", "CoOp", role, "ProLIP")
    with pytest.raises(ConfigError, match=f"ProLIP reads .* which the image tower of {backbone} does not have"):
        job.check_parts(cfg)
    job.check_parts(config("MODEL.BACKBONE.NAME", "ViT-B/16", "MODEL.BACKBONE.PRETRAINED", "openai"))


def test_inputs_that_have_features_alone_say_what_is_missing(clip, colors):
    """A study on stored features has such inputs."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "ProLIP"))
    del trainer.inputs.banks["pre_projection"]
    with pytest.raises(UserError, match="reads pre_projection of Colors, which are not at hand"):
        trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
