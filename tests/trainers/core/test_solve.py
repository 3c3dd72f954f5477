"""Minima of smooth functions, against closed forms and each other."""

import pytest
import torch
import torch.nn.functional as F

from trainers.core.solve import minimize, minimize_convex, row_basis

RNG = torch.Generator().manual_seed(0)
FEATURES = torch.randn(30, 6, generator=RNG, dtype=torch.float64)
LABELS = torch.randint(4, (30,), generator=RNG)


def loss_of(weights):
    return F.cross_entropy(5 * FEATURES @ weights.T, LABELS, reduction="sum") + weights.square().sum()


def derivatives_of(weights):
    at = weights.detach().requires_grad_()
    gradient, = torch.autograd.grad(loss_of(at), at, create_graph=True)
    return gradient.detach(), lambda change: torch.autograd.grad(gradient, at, change, retain_graph=True)[0]


def test_both_ways_end_at_the_same_place_from_anywhere():
    """Softmax regression: the gradient is 0 there."""
    starts = [torch.zeros(4, 6, dtype=torch.float64), 3 * torch.randn(4, 6, generator=RNG, dtype=torch.float64)]
    found = [minimize_convex(lambda own: float(loss_of(own)), derivatives_of, start) for start in starts]
    found.append(minimize(loss_of, starts[0]))
    assert all(torch.allclose(own, found[0], rtol=0, atol=1e-9) for own in found)
    assert derivatives_of(found[0])[0].abs().max() < 1e-9


def test_a_quadratic_is_solved_exactly():
    """Also a badly scaled one."""
    scales = torch.logspace(-3, 3, 8, dtype=torch.float64)
    target = torch.linspace(-1, 1, 8, dtype=torch.float64)
    found = minimize_convex(lambda x: float((scales * (x - target).square()).sum() / 2),
                            lambda x: (scales * (x - target), lambda change: scales * change), torch.zeros_like(target))
    assert torch.allclose(found, target, atol=1e-6)


def test_steps_that_would_go_too_far_are_made_shorter():
    """From far away a whole step of Newton's leads the logistic loss up."""
    x = torch.tensor([40.0], dtype=torch.float64)

    def logistic(own):
        return float(F.softplus(own).sum() + F.softplus(-own).sum() + 1e-6 * own.square().sum())

    def derivatives(own):
        p = own.sigmoid()
        return 2 * p - 1 + 2e-6 * own, lambda change: (2 * p * (1 - p) + 2e-6) * change

    assert minimize_convex(logistic, derivatives, x).abs() < 1e-8


@pytest.mark.parametrize("n", [1, 4, 9])
def test_a_basis_holds_all_rows(n):
    rows = torch.randn(n, 6, generator=RNG, dtype=torch.float64)
    basis = row_basis(rows)
    assert basis.shape == (6, min(n, 6)) and torch.allclose(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    assert torch.allclose(rows @ basis @ basis.T, rows)
