"""Linear maps and products of pairs in fp32 on the CPU, by torch's own product (MKL on x86) or by oneDNN's.

Which of them is faster depends on the processor, and their last digits differ. So one of them is chosen for a whole run.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dassl.utils.errors import ConfigError

TORCH, ONEDNN = "torch", "onednn"
MARGIN = 1.3  # by which oneDNN must be faster, so that noise does not choose another one in the next start
FP32_ERROR = 1e-5  # of a product's largest value; fp32 has 1e-6, TF32 and bf16 above 3e-4
SHAPE = (256, 512, 1024)  # rows, inputs and outputs of the product that is timed
TURNS = 5
LEAST_WIDTH = 256  # of towers whose products are worth a choice

_of_pairs: ContextVar[str] = ContextVar("_of_pairs", default=TORCH)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight.T + bias over oneDNN, for x [..., in] and weight [out, in] in fp32 on the CPU.

    What is learned has its gradient from torch's own product, as has anything that is not fp32 on the CPU.
    """
    learned = weight.requires_grad or (bias is not None and bias.requires_grad)
    if learned or not _is_fp32_on_cpu(x, weight):
        return F.linear(x, weight, bias)
    return _OneDNN.apply(x, weight, bias)


def _is_fp32_on_cpu(x: Tensor, other: Tensor) -> bool:
    return {x.dtype, other.dtype} == {torch.float32} and x.device.type == "cpu"


class _OneDNN(torch.autograd.Function):
    """The map by a constant matrix, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weight, = ctx.saved_tensors
        return _product(gradient, weight.T), None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x weight.T + bias by the operator that torch's own compiler emits for it."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@contextlib.contextmanager
def pairs_by(product: str) -> Iterator[None]:
    """Let `pair_products` be torch's or oneDNN's until the end of this context."""
    before = _of_pairs.set(product)
    try:
        yield
    finally:
        _of_pairs.reset(before)


def product_of_pairs() -> str:
    """Return whose product `pair_products` is now, torch's own unless `pairs_by` says otherwise."""
    return _of_pairs.get()


def pair_products(rows: Tensor, others: Tensor, out: Tensor | None = None) -> Tensor:
    """Return rows [M, D] @ others [N, D].T without a gradient; torch's own product puts it into `out` [M, N], if given.

    What is not fp32 on the CPU is torch's own.
    """
    if product_of_pairs() == TORCH or not _is_fp32_on_cpu(rows, others):
        return torch.mm(rows, others.T, out=out)
    return _product(rows, others)


def linear_product(asked: str, width: int) -> str:
    """Return whose product `MODEL.LINEAR` is for towers of a width; small ones are not worth the time to choose it.

    That is the one that is asked for, or for "auto" the faster one here. Raises ConfigError if oneDNN is asked for and this
    torch has none, or none that is true fp32 on this processor.
    """
    if asked == "auto":
        return faster() if width >= LEAST_WIDTH else TORCH
    if asked == ONEDNN and not is_exact():
        raise ConfigError(f"MODEL.LINEAR is {ONEDNN}, but torch {torch.__version__} has no fp32 product of it on this "
                          f"processor; set it to {TORCH} or auto")
    return asked


@functools.cache
def is_exact() -> bool:
    """Return whether oneDNN's product is there and rounds as fp32 does: some processors may be let use less."""
    x, weight = _example()
    try:
        found = _product(x, weight)
    except (AttributeError, RuntimeError, NotImplementedError):  # torch without oneDNN
        return False
    exact = x.double() @ weight.double().T
    return bool((found - exact).abs().max() <= FP32_ERROR * exact.abs().max())


@functools.cache
def faster() -> str:
    """Return the faster product here by a few turns of either, some hundredths of a second, taken once a process."""
    if not is_exact():
        return TORCH
    x, weight = _example()
    own, other = shortest(lambda: F.linear(x, weight), lambda: _product(x, weight))
    return ONEDNN if own >= MARGIN * other else TORCH


def shortest(*functions: Callable[[], object]) -> list[float]:
    """Return the shortest seconds of each function, which take turns."""
    found = [float("inf")] * len(functions)
    for _ in range(TURNS):
        for place, function in enumerate(functions):
            start = time.perf_counter()
            function()
            found[place] = min(found[place], time.perf_counter() - start)
    return found


@torch.no_grad()
def _example() -> tuple[Tensor, Tensor]:
    n_rows, n_inputs, n_outputs = SHAPE
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_rows, n_inputs, generator=generator), torch.randn(n_outputs, n_inputs, generator=generator)
