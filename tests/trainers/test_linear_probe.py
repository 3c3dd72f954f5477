"""LinearProbe: its four forms against slow references in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dassl.utils.errors import UserError
from tests.trainers.heads import (
    SCALE,
    errors,
    logits_of,
    loss_of,
    permuted,
    prepared,
    problem,
    rows_of,
    softmax,
    trained,
    twice,
    unit,
    zero_shot,
)
from trainers.core.solve import minimize, row_basis
from trainers.testing import CHECKS, fitted, learner_by_name, make_inputs, make_trainer

RHO = 10.0
COUNTS = [(3, 0, 1, 4, 2), (2, 2, 2, 2, 2), (1, 0, 0, 0, 0), (9, 8, 7, 6, 5)]  # the last: more labels than dimensions


def cosine_gradient(rows, features, targets, counted):
    """Return the gradient of mean CE of s v.n(w) by rows w [C, D], one class after the other."""
    units, norms = unit(rows), np.linalg.norm(rows, axis=1)
    wrong = errors(SCALE * features @ units.T, targets, counted)
    gradient = np.zeros_like(rows)
    for k in range(len(rows)):
        by_unit = SCALE * sum(wrong[i, k] * features[i] for i in range(len(features))) / len(features)
        gradient[k] = (by_unit - units[k] * (units[k] @ by_unit)) / norms[k]
    return gradient


def strengths(given) -> np.ndarray:
    """Return lambda: the mean probability of each class on its own images, the mean of the others where it has none."""
    features, targets, texts = given.parts
    probs = softmax(SCALE * features @ texts.T, np.ones(len(texts), bool))
    own = [[probs[i, k] for i in range(len(targets)) if targets[i] == k] for k in range(len(texts))]
    known = [sum(values) / len(values) for values in own if values]
    return np.array([sum(values) / len(values) if values else sum(known) / len(known) for values in own])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("form", ["zs_lp", "clap"])
def test_sgd_takes_the_path_of_rows_of_length_ten(clip, form, counts, masked):
    """Rows rho t under a cosine classifier, learning rate 0.1 and momentum, as the authors have them, on 20 steps."""
    given = problem(counts, masked=masked)
    features, targets, texts = given.parts
    rows, velocity, pull = RHO * texts, np.zeros_like(texts), strengths(given) if form == "clap" else np.zeros(len(texts))
    for _ in range(20):
        gradient = cosine_gradient(rows, features, targets, given.counted)
        gradient += 2 * pull[:, None] * (rows - RHO * texts) / len(texts)
        velocity = 0.9 * velocity + gradient
        rows = rows - 0.1 * velocity
    found = rows_of(trained(clip, "LinearProbe", given, form=form), given)
    assert np.abs(found - unit(rows)).max() < 1e-10
    assert np.abs(found - texts).max() > 1e-6 or given.counted.sum() == 1  # one class that counts is always right


@pytest.mark.parametrize("masked", [True, False])
def test_adam_takes_the_path_of_taskres(clip, masked):
    """w = rho t + 0.5 x under Adam with the decay of x in its gradient, on 20 steps."""
    given = problem(masked=masked)
    features, targets, texts = given.parts
    x, first, second = np.zeros_like(texts), np.zeros_like(texts), np.zeros_like(texts)
    for step in range(1, 21):
        gradient = 0.5 * cosine_gradient(RHO * texts + 0.5 * x, features, targets, given.counted) + 5e-4 * x
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        x = x - 2e-3 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    learner = trained(clip, "LinearProbe", given, {"Adam": {"lr": 2e-3, "weight_decay": 5e-4}}, form="taskres")
    assert np.abs(rows_of(learner, given) - unit(RHO * texts + 0.5 * x)).max() < 1e-10


def newton(given, kappa: float, start: np.ndarray) -> np.ndarray:
    """Return the minimum of the MAP head by Newton's method on all C * D weights, one label after the other."""
    features, targets, texts = given.parts
    n_classes, width = texts.shape
    shift = start
    for _ in range(50):
        logits = SCALE * features @ (texts + shift).T
        probs, wrong = softmax(logits, given.counted), errors(logits, targets, given.counted)
        gradient = (SCALE * wrong.T @ features + kappa * shift).ravel()
        hessian = kappa * np.eye(n_classes * width)
        for p, v in zip(probs, features, strict=True):
            hessian += SCALE**2 * np.kron(np.diag(p) - np.outer(p, p), np.outer(v, v))
        shift = shift - np.linalg.solve(hessian, gradient).reshape(shift.shape)
    return texts + shift


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("counts", COUNTS)
def test_the_map_head_is_the_minimum_that_newton_s_method_finds(clip, counts, masked):
    """In all C * D weights, from a start elsewhere: there is one minimum, and it lies in the span of the labels."""
    given = problem(counts, masked=masked)
    start = 0.01 * np.random.default_rng(3).normal(size=given.texts.shape)
    learner = prepared(clip, "LinearProbe", given)
    assert np.abs(rows_of(learner, given) - newton(given, 100.0, start)).max() < 1e-10
    assert not [own for own in learner.parameters() if own.requires_grad]  # no step follows


def test_the_map_head_is_stationary_as_its_formula_says(clip):
    """w_k = t_k + s/kappa sum_i (1[y_i = k] - p_ik) v_i."""
    given = problem()
    features, targets, texts = given.parts
    rows = rows_of(prepared(clip, "LinearProbe", given, kappa=30.0), given)
    wrong = errors(SCALE * features @ rows.T, targets, given.counted)
    assert np.abs(rows - (texts - SCALE / 30 * wrong.T @ features)).max() < 1e-9


def test_the_map_head_reads_only_the_share_of_data_and_prior(clip):
    """Each label twice with twice kappa changes nothing, nor does another order; a large kappa leaves zero-shot CLIP."""
    given = problem()
    rows = rows_of(prepared(clip, "LinearProbe", given), given)
    assert np.abs(rows_of(prepared(clip, "LinearProbe", twice(given), kappa=200.0), given) - rows).max() < 1e-9
    backwards = permuted(given, np.arange(10)[::-1].copy())
    assert np.abs(rows_of(prepared(clip, "LinearProbe", backwards), given) - rows).max() < 1e-9
    firm = logits_of(prepared(clip, "LinearProbe", given, kappa=1e9), given)
    assert np.abs(firm - zero_shot(given)).max() < 1e-4 < np.abs(logits_of(prepared(clip, "LinearProbe", given), given)
                                                                  - zero_shot(given)).max()


@pytest.mark.parametrize("form", ["map", "zs_lp", "clap", "taskres"])
def test_without_steps_or_labels_it_is_zero_shot_and_absent_rows_stay(clip, form):
    """Without a label its row stays the same bit for bit. Without labels or without steps, logits are zero-shot."""
    nothing, given = problem((0,) * 5), problem()
    for learner in (prepared(clip, "LinearProbe", nothing, form=form),
                    *([trained(clip, "LinearProbe", given, n_steps=0, form=form)] if form != "map" else [])):
        assert np.abs(logits_of(learner, given) - zero_shot(given)).max() < 1e-12
    rows, start = (rows_of(trained(clip, "LinearProbe", given, n_steps=9, form=form) if form != "map" and own is given
                           else prepared(clip, "LinearProbe", own, form=form), given) for own in (given, nothing))
    assert np.array_equal(rows[1], start[1]) and np.abs(rows[[0, 2, 3, 4]] - start[[0, 2, 3, 4]]).min(axis=1).all()


def test_strengths_of_clap(clip):
    """In (0, 1], the mean of the others for a class without a label; a class with a larger one moves less."""
    given = problem()
    learner = prepared(clip, "LinearProbe", given, form="clap")
    found = learner.strengths.numpy()
    assert np.abs(found - strengths(given)).max() < 1e-12 and bool(((found > 0) & (found <= 1)).all())
    assert found[1] == pytest.approx(found[[0, 2, 3, 4]].mean(), rel=1e-12)
    learner.strengths[3] = 100.0
    firm = torch.optim.SGD([learner.shift], lr=1e-4)
    for _ in range(50):
        firm.zero_grad()
        loss_of(learner, given).backward()
        firm.step()
    plain = trained(clip, "LinearProbe", given, {"SGD": {"lr": 1e-4}}, n_steps=50, form="clap")
    assert learner.shift[3].norm() < 0.5 * plain.shift[3].norm()


@pytest.mark.parametrize("form", ["zs_lp", "clap", "taskres"])
@pytest.mark.parametrize("check", CHECKS)
def test_every_form_keeps_the_contract(form, check):
    check(learner_by_name("LinearProbe", form=form))


def test_a_file_of_another_form_is_refused(tmp_path):
    """The rows of one form have another meaning in another."""
    trainers = {form: make_trainer(learner_by_name("LinearProbe", form=form), make_inputs()) for form in ("map", "taskres")}
    trainers["map"].save(fitted(trainers["map"], [0, 1, 2]), tmp_path / "map.safetensors")
    trainers["map"].load(tmp_path / "map.safetensors")
    with pytest.raises(UserError, match=r"another constants: .*map.*taskres"):
        trainers["taskres"].load(tmp_path / "map.safetensors")


def test_the_minimum_of_a_quadratic_and_the_basis_of_repeated_rows():
    """L-BFGS on a case solved by hand; a basis of rows of lower rank holds them all."""
    target = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    with torch.no_grad():
        found = minimize(lambda dtype: lambda x: ((x - target.to(dtype)) ** 2).sum(), torch.zeros(2, 2))
        assert torch.allclose(found, target.double(), atol=1e-9)
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[[0, 1, 0, 2, 0]]
    basis = row_basis(rows)
    assert torch.allclose(basis.T @ basis, torch.eye(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(rows @ basis @ basis.T, rows, atol=1e-12)


def test_a_weight_of_a_label_is_its_number(clip):
    """A label of weight 2 counts as the same label given twice."""
    given = problem()
    heavy = replace(given, labels=replace(given.labels, weights=2 * given.labels.weights))
    rows = [rows_of(prepared(clip, "LinearProbe", own), given) for own in (heavy, twice(given))]
    assert np.abs(rows[0] - rows[1]).max() < 1e-9
