"""The temperature of a model comes from labeled images that it had not seen."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dassl.config.setup import setup_config
from dassl.evaluation.metrics import expected_calibration_error
from dassl.utils.errors import ConfigError
from tests.trainers.colors import trainer_of
from trainers.core.build import build_selector, build_trainer, check_learners
from trainers.core.calibration import MAX_FITS, fit_temperature, held_out_temperature
from trainers.registry import LEARNERS

CALIBRATED = ("TRAINER.CALIBRATION", "leave_one_out")
ROWS = torch.tensor([0, 1, 2, 3, 5, 7, 10, 14, 18, 22, 26])


def overconfident(factor: float, n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits [n, 5] that are `factor` times too large, and labels that are drawn by the right ones."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 5)) * 2
    drawn = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return torch.from_numpy(factor * logits), torch.from_numpy(drawn)


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_the_temperature_is_found_again_and_mends_the_calibration(factor):
    """Labels drawn by softmax(z) and logits of f z: the temperature is f, and no other on a grid has a smaller loss."""
    logits, labels = overconfident(factor)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(factor, rel=0.05)
    best = float(F.cross_entropy(logits / found, labels))
    assert all(float(F.cross_entropy(logits / other, labels)) >= best - 1e-9 for other in np.geomspace(0.1, 10, 200))
    error = [expected_calibration_error((logits / own).softmax(1).numpy(), labels.numpy()) for own in (1.0, found)]
    assert error[1] < 0.03 and (factor == 1 or error[1] < error[0] / 3)


def test_it_stays_within_its_bounds():
    """Labels that are all right or all wrong would give 0 or infinity."""
    logits = torch.eye(4).repeat(3, 1)
    right = torch.arange(4).repeat(3)
    assert fit_temperature(logits, right) == pytest.approx(0.1, rel=1e-3)
    assert fit_temperature(logits, (right + 1) % 4) == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize(("n_labels", "n_fits"), [(10, 10), (17, 17), (MAX_FITS, MAX_FITS), (3 * MAX_FITS + 1, MAX_FITS)])
def test_each_label_is_predicted_once_by_a_model_without_it(n_labels, n_fits):
    """Labels are left out alone, or in groups of nearly equal size. Pairs stay together."""
    rows = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:n_labels]
    labels, asked, sizes = rows % 3, [], []

    def logits_of(kept, own):
        assert not set(kept[0].tolist()) & set(own.tolist()) and len(kept[0]) + len(own) == n_labels
        assert torch.equal(kept[0] % 3, kept[1])
        asked.extend(own.tolist())
        sizes.append(len(own))
        return F.one_hot((own + (own == rows[0])) % 3, 3).double()  # the first one is wrong

    assert 0.1 <= held_out_temperature(logits_of, (rows, labels), np.random.default_rng(0)) < 1
    assert sorted(asked) == sorted(rows.tolist()) and len(sizes) == n_fits and max(sizes) - min(sizes) <= 1


def test_half_a_label_is_half_of_one_that_is_left_out():
    """The prediction of a model without a label counts as much as that label does in training."""
    logits, labels = overconfident(3.0, 60)
    labels[::2] = torch.from_numpy(np.random.default_rng(1).integers(0, 5, 30))  # of which these are wrong most often
    rows, weights = torch.arange(60), torch.ones(60)
    weights[::2] = 0.5
    found, whole = (held_out_temperature(lambda _, own: logits[own], (rows, labels, *more), np.random.default_rng(0))
                    for more in ((weights,), ()))
    sure_twice = torch.cat([rows, rows[1::2]])
    assert found == pytest.approx(fit_temperature(logits[sure_twice], labels[sure_twice]), rel=1e-4) != whole


@pytest.mark.parametrize("n", [0, 1, 9])
def test_with_few_labels_it_is_one(n):
    """Nothing is fitted then."""
    few = torch.arange(n)
    assert held_out_temperature(lambda *_: 1 / 0, (few, few % 3), np.random.default_rng(0)) == 1


def test_where_all_are_right_it_is_one():
    """The smallest temperature would fit best, and say that no image is ever wrong."""
    rows = torch.arange(12)
    assert held_out_temperature(lambda _, own: F.one_hot(own % 3, 3).double(), (rows, rows % 3), np.random.default_rng(0)) == 1


@pytest.mark.parametrize("name", ["LinearProbe", "GDA", "TipAdapter"])
def test_a_calibrated_model_is_the_same_at_another_temperature(clip, colors, tmp_path, name):
    """Logits are divided by what leaving out each label by hand gives; the state is the same; the file keeps it."""
    plain, trainer = (trainer_of(clip, colors, ("TRAINER.NAME", name), *more) for more in ((), (CALIBRATED,)))
    labels = trainer.inputs.dataset.labels("train")[ROWS]
    model, before = trainer.fit(ROWS, labels, 0), plain.fit(ROWS, labels, 0)
    held_out = torch.stack([
        plain.predict(plain.fit(ROWS[row != ROWS], labels[row != ROWS], 0), "train").logits[row] for row in ROWS])
    assert model.temperature == pytest.approx(fit_temperature(held_out, labels), rel=1e-4) != 1
    assert all(torch.equal(value, model.learner.state_dict()[key]) for key, value in before.learner.state_dict().items())
    found = trainer.predict(model, "test").logits
    assert torch.allclose(found * model.temperature, plain.predict(before, "test").logits, rtol=1e-5)
    trainer.save(model, tmp_path / "model.safetensors")
    assert torch.equal(plain.predict(plain.load(tmp_path / "model.safetensors"), "test").logits, found)
    plain.save(before, tmp_path / "plain.safetensors")
    assert trainer.load(tmp_path / "plain.safetensors").temperature == 1


@pytest.mark.parametrize(("name", "own"), [
    ("CoOp", []), ("VPT", [("TRAINER.VPT.PROMPT_DEPTH", "3")]), ("CLIPLoRA", []),
    ("CLIPLoRA", [("TRAINER.CLIPLORA.TOWERS", "text")])])
def test_learners_that_tune_a_tower_are_refused(clip, colors, name, own):
    """They would be trained once for each label."""
    depths = [*own, ("TRAINER.NAME", name)]
    check_learners(setup_config([], depths, [LEARNERS]), clip, colors)
    with pytest.raises(ConfigError, match=f"which {name} is too slow for"):
        check_learners(setup_config([], [*depths, CALIBRATED], [LEARNERS]), clip, colors)


def test_a_selector_is_not_calibrated(clip, colors):
    """Only the reported model has a temperature."""
    selector = [("ACTIVE.SELECTOR_TRAINER", "CoOp"), ("TRAINER.NAME", "LinearProbe"), CALIBRATED]
    cfg = setup_config([], selector, [LEARNERS])
    check_learners(cfg, clip, colors)
    inputs = trainer_of(clip, colors).inputs
    assert not build_selector(cfg, inputs).recipe.calibrated and build_trainer(cfg, inputs).recipe.calibrated
