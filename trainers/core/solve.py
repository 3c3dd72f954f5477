"""Learners that solve themselves: the minimum of a smooth function, and the few directions in which labeled features lie."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

MAX_STEPS = 200  # of L-BFGS
NEAR, DONE = 1e-4, 1e-10  # largest entries of the gradient

Function = Callable[[Tensor], Tensor]
InPrecision = Callable[[torch.dtype], Function]
Array = TypeVar("Array", Tensor, np.ndarray)
Map = Callable[[Array], Array]


@torch.enable_grad()
def minimize(loss_in: InPrecision, start: Tensor) -> Tensor:
    """Return where a smooth function of one tensor is least near `start`, in float64; the same each time.

    `loss_in` returns the function in a precision. L-BFGS with a strong Wolfe line search comes near in float32, which is twice
    as fast. Values of the function are then too alike to compare, so Newton's method ends it in float64, by gradients alone
    (Nocedal and Wright, "Numerical Optimization", Algorithms 7.5, 3.5 and 7.1).
    """
    found, loss_of = start.detach().float().clone(memory_format=torch.contiguous_format), loss_in(torch.float32)
    found.requires_grad_()
    optimizer = torch.optim.LBFGS([found], max_iter=MAX_STEPS, max_eval=2 * MAX_STEPS, history_size=20, tolerance_grad=NEAR,
                                  tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(found)
        loss.backward()
        return loss

    optimizer.step(closure)
    return _newton(loss_in, found.detach().double())


def minimize_convex(
    loss_of: Callable[[np.ndarray], float], derivatives_of: Callable[[np.ndarray], tuple[np.ndarray, Map]], start: np.ndarray
) -> np.ndarray:
    """Return where a strictly convex function of one float64 array is least, whatever the start.

    `derivatives_of` returns the gradient at a place and the product of the second derivatives there with an array. Newton's
    method with steps that are as exact as they need be, and made shorter until the function falls (Nocedal and Wright,
    "Numerical Optimization", Algorithms 7.1 and 3.1). It takes many products of small arrays, which NumPy is quickest at.
    """
    found, loss = start, loss_of(start)
    for _ in range(MAX_STEPS):
        gradient, product = derivatives_of(found)
        largest = float(np.abs(gradient).max())
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


def _newton(loss_in: InPrecision, found: Tensor, max_steps: int = 10) -> Tensor:
    """Return `found` after steps of Newton's method, as long as each makes the gradient smaller.

    Gradients are float64, and so is the end; second derivatives, which only lead there, are float32.
    """
    best, smallest = found, torch.inf
    for _ in range(max_steps + 1):
        gradient, _ = _gradient(loss_in(torch.float64), found)
        if not (largest := float(gradient.abs().max())) < smallest:
            break
        best, smallest = found, largest
        if largest < DONE:
            break
        rough, at = _gradient(loss_in(torch.float32), found.float(), create_graph=True)
        step = _conjugate_gradients(lambda v, g=rough, x=at: torch.autograd.grad(g, x, v, retain_graph=True)[0],
                                    (gradient / largest).float(), tolerance=1e-3)
        found = found - largest * step.double()
    return best


def _gradient(loss_of: Function, found: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Return the gradient of a function at `found`, and the place as it is known to torch."""
    at = found.detach().requires_grad_()
    return torch.autograd.grad(loss_of(at), at, create_graph=create_graph)[0], at


def _conjugate_gradients(product: Map, target: Array, max_steps: int = 100, tolerance: float = 1e-6) -> Array:
    """Return x with product(x) = target, to a share of the target, for a positive definite product; else what is there."""
    x, residual, direction = 0 * target, target, target
    size = _dot(residual, residual)
    end = tolerance**2 * size
    for _ in range(max_steps):
        image = product(direction)
        if size <= end or (curvature := _dot(direction, image)) <= 0:
            break
        share = size / curvature
        x, residual = x + share * direction, residual - share * image
        size, before = _dot(residual, residual), size
        direction = residual + size / before * direction
    return x


def _dot(x: Array, y: Array) -> Any:
    """Return the sum of products of all entries; of small arrays, NumPy's own is three times as fast as a product and a sum."""
    return np.vdot(x, y) if isinstance(x, np.ndarray) else (x * y).sum()
