"""CLIPAdapter against a slow reference in float64."""

import numpy as np
import pytest
import torch

from dassl.utils.errors import UserError
from tests.trainers.heads import SCALE, errors, logits_of, prepared, problem, trained, unit, zero_shot
from trainers.testing import fitted, learner_by_name, make_inputs, make_trainer


def adapted(v, down, up, ratio=0.2):
    """Return v' of (1) before its length is 1, and both inner layers."""
    inner = np.maximum(down @ v, 0)
    outer = np.maximum(up @ inner, 0)
    return ratio * outer + (1 - ratio) * v, inner, outer


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", [(3, 0, 1, 4, 2), (2, 2, 2, 2, 2), (9, 8, 7, 6, 5)])
def test_descent_follows_the_gradient_of_the_formula(clip, counts, masked):
    """It takes 20 steps, one image at a time, through both layers. Then the logits are compared."""
    given = problem(counts, masked=masked)
    features, targets, texts = given.parts
    start = prepared(clip, "CLIPAdapter", given)
    down, up = (own.detach().numpy().copy() for own in (start.down, start.up))
    for _ in range(20):
        by_down, by_up = np.zeros_like(down), np.zeros_like(up)
        for v, y in zip(features, targets, strict=True):
            mixed, inner, outer = adapted(v, down, up)
            length = np.linalg.norm(mixed)
            by_unit = SCALE * errors((SCALE * texts @ mixed / length)[None], np.array([y]), given.counted)[0] @ texts
            by_outer = 0.2 * (by_unit - mixed * (mixed @ by_unit) / length**2) / length / len(features) * (outer > 0)
            by_up += np.outer(by_outer, inner)
            by_down += np.outer((up.T @ by_outer) * (inner > 0), v)
        down, up = down - 0.02 * by_down, up - 0.02 * by_up
    learner = trained(clip, "CLIPAdapter", given, {"SGD": {"lr": 0.02}})
    assert np.abs(learner.down.detach().numpy() - down).max() < 1e-10 and np.abs(learner.up.detach().numpy() - up).max() < 1e-10
    assert np.abs(up - start.up.detach().numpy()).max() > 1e-4
    expected = np.array([SCALE * texts @ unit(adapted(v, down, up)[0]) for v in given.images.numpy()])
    assert np.abs(logits_of(learner, given) - expected).max() < 1e-10


def test_ratio_0_is_zero_shot(clip):
    given = problem()
    assert np.abs(logits_of(prepared(clip, "CLIPAdapter", given, ratio=0.0), given) - zero_shot(given)).max() < 1e-12


def test_the_first_network_is_within_its_bounds(clip):
    """It is U(-1, 1) over the square root of a layer's inputs, 16 and 4, drawn only from the given generator."""
    one, other = (prepared(clip, "CLIPAdapter", problem()) for _ in range(2))
    assert one.down.shape == (4, 16) and one.up.shape == (16, 4) and torch.equal(one.up, other.up)
    assert 0.2 < one.down.abs().max().item() <= 0.25 and 0.4 < one.up.abs().max().item() <= 0.5


def test_a_file_of_another_ratio_is_refused(tmp_path):
    trainers = [make_trainer(learner_by_name("CLIPAdapter", ratio=ratio), make_inputs()) for ratio in (0.2, 0.5)]
    trainers[0].save(fitted(trainers[0], [0, 1]), tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match=r"another constants: .*0\.2.*0\.5"):
        trainers[1].load(tmp_path / "adapter.safetensors")
