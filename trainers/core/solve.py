"""Learners that solve themselves: the minimum of a smooth function, and the few directions in which labeled features lie."""

from collections.abc import Callable

import torch
from torch import Tensor

MAX_STEPS = 200  # of L-BFGS
NEAR, DONE = 1e-4, 1e-10  # largest entries of the gradient

Function = Callable[[Tensor], Tensor]
Derivatives = Callable[[Tensor], tuple[Tensor, Function]]


@torch.enable_grad()
def minimize(loss_of: Function, start: Tensor) -> Tensor:
    """Return where a smooth function of one tensor is least near `start`, in float64; the same each time.

    L-BFGS with a strong Wolfe line search comes near. Values of the function are then too alike to compare, so Newton's method
    ends it by gradients alone (Nocedal and Wright, "Numerical Optimization", Algorithms 7.5, 3.5 and 7.1).
    """
    found = start.detach().double().clone(memory_format=torch.contiguous_format).requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=MAX_STEPS, max_eval=2 * MAX_STEPS, history_size=20, tolerance_grad=NEAR,
                                  tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(found)
        loss.backward()
        return loss

    optimizer.step(closure)
    return _newton(loss_of, found.detach())


def minimize_convex(loss_of: Function, derivatives_of: Derivatives, start: Tensor) -> Tensor:
    """Return where a strictly convex function of one tensor is least, in float64, whatever the start.

    `derivatives_of` returns the gradient at a place and the product of the second derivatives there with a tensor. Newton's
    method with steps that are as exact as they need be, and made shorter until the function falls (Nocedal and Wright,
    "Numerical Optimization", Algorithms 7.1 and 3.1).
    """
    found, loss = start, loss_of(start)
    for _ in range(MAX_STEPS):
        gradient, product = derivatives_of(found)
        largest = float(gradient.abs().max())
        if largest < DONE:
            break
        step = _conjugate_gradients(product, gradient, tolerance=min(0.1, largest))
        slope, length = float((gradient * step).sum()), 1.0
        while (then := loss_of(found - length * step)) > loss - 1e-4 * length * slope + 1e-13 * abs(loss) and length > 1e-9:
            length /= 2
        found, loss = found - length * step, then
    return found


def row_basis(features: Tensor) -> Tensor:
    """Return orthonormal columns [D, min(M, D)] whose span holds all rows of features [M, D], in float64."""
    return torch.linalg.qr(features.double().T).Q


def _newton(loss_of: Function, found: Tensor, max_steps: int = 6) -> Tensor:
    """Return `found` after steps of Newton's method, as long as each makes the gradient smaller."""
    best, smallest = found, torch.inf
    for _ in range(max_steps + 1):
        found = found.detach().requires_grad_()
        gradient, = torch.autograd.grad(loss_of(found), found, create_graph=True)
        if not (largest := float(gradient.detach().abs().max())) < smallest:
            break
        best, smallest = found.detach(), largest
        if largest < DONE:
            break
        step = _conjugate_gradients(lambda v, g=gradient, x=found: torch.autograd.grad(g, x, v, retain_graph=True)[0],
                                    gradient.detach())
        found = found - step
    return best


def _conjugate_gradients(product: Function, target: Tensor, max_steps: int = 100, tolerance: float = 1e-6) -> Tensor:
    """Return x with product(x) = target, to a share of the target, for a positive definite product; else what is there."""
    x, residual = torch.zeros_like(target), target
    direction, size = residual, residual.square().sum()
    end = tolerance**2 * size
    for _ in range(max_steps):
        image = product(direction)
        if size <= end or (curvature := (direction * image).sum()) <= 0:
            break
        x, residual = x + size / curvature * direction, residual - size / curvature * image
        size, before = residual.square().sum(), size
        direction = residual + size / before * direction
    return x
