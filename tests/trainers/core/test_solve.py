"""Minima of smooth functions, against closed forms and each other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainers.core.solve import minimize, minimize_convex, row_basis

RNG = torch.Generator().manual_seed(0)
FEATURES = torch.randn(30, 6, generator=RNG, dtype=torch.float64)
LABELS = torch.randint(4, (30,), generator=RNG)


def loss_of(weights, dtype=torch.float64):
    return F.cross_entropy(5 * FEATURES.to(dtype) @ weights.T, LABELS, reduction="sum") + weights.square().sum()


def derivatives_of(weights):
    at = torch.from_numpy(weights).requires_grad_()
    gradient, = torch.autograd.grad(loss_of(at), at, create_graph=True)

    def product(change):
        return torch.autograd.grad(gradient, at, torch.from_numpy(change), retain_graph=True)[0].numpy()

    return gradient.detach().numpy(), product


def test_both_ways_end_at_the_same_place_from_anywhere():
    """For softmax regression, the gradient is 0 there."""
    starts = [np.zeros((4, 6)), 3 * np.random.default_rng(0).normal(size=(4, 6))]
    found = [minimize_convex(lambda own: float(loss_of(torch.from_numpy(own))), derivatives_of, start) for start in starts]
    found.append(minimize(lambda dtype: lambda own: loss_of(own, dtype), torch.zeros(4, 6)).numpy())
    assert all(np.allclose(own, found[0], rtol=0, atol=1e-9) for own in found)
    assert np.abs(derivatives_of(found[0])[0]).max() < 1e-9


def test_a_quadratic_is_solved_exactly():
    """This includes a badly scaled one."""
    scales, target = np.logspace(-3, 3, 8), np.linspace(-1, 1, 8)
    found = minimize_convex(lambda x: float((scales * (x - target)**2).sum() / 2),
                            lambda x: (scales * (x - target), lambda change: scales * change), np.zeros(8))
    assert np.allclose(found, target, atol=1e-6)


def test_steps_that_would_go_too_far_are_made_shorter():
    """From far away, a full Newton step would raise the logistic loss."""

    def logistic(own):
        return float(np.logaddexp(0, own).sum() + np.logaddexp(0, -own).sum() + 1e-6 * (own * own).sum())

    def derivatives(own):
        p = 1 / (1 + np.exp(-own))
        return 2 * p - 1 + 2e-6 * own, lambda change: (2 * p * (1 - p) + 2e-6) * change

    assert abs(minimize_convex(logistic, derivatives, np.array([40.0]))[0]) < 1e-8


def test_an_entry_that_is_at_its_place_does_not_end_the_search():
    """Rows of classes that the loss leaves out are in place from the start."""
    target = np.array([0.0, 2.0, 0.0, -1.0])
    found = minimize_convex(lambda x: float(((x - target)**2).sum()), lambda x: (2 * (x - target), lambda change: 2 * change),
                            np.zeros(4))
    assert np.allclose(found, target, rtol=0, atol=1e-9)
    found = minimize(lambda dtype: lambda x: (x - torch.tensor(target, dtype=dtype)).square().sum(), torch.zeros(4))
    assert np.allclose(found.numpy(), target, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_basis_holds_all_rows(n):
    rows = torch.randn(n, 6, generator=RNG, dtype=torch.float64)
    basis = row_basis(rows)
    assert basis.shape == (6, min(n, 6)) and torch.allclose(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    assert torch.allclose(rows @ basis @ basis.T, rows)
