"""Linear maps over oneDNN: as exact as torch's own, and taken only where they are much faster and true fp32."""

import pytest
import torch
import torch.nn.functional as F

import dassl.utils.linear as module
from dassl.utils.errors import ConfigError
from dassl.utils.linear import (
    FP32_ERROR,
    LEAST_WIDTH,
    MARGIN,
    ONEDNN,
    TORCH,
    is_exact,
    linear,
    linear_product,
    pair_products,
    pairs_by,
    product_of_pairs,
)

needs_onednn = pytest.mark.skipif(not is_exact(), reason="torch without oneDNN")


@pytest.fixture(autouse=True)
def asked_anew(monkeypatch):
    """Forget what other tests have asked, and afterwards what this one has asked."""
    for name in ("is_exact", "faster"):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)


@needs_onednn
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_map_and_its_gradient_are_those_of_float64_to_rounding(has_bias):
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, sent = (torch.randn(*shape, generator=generator) for shape in ((3, 5, 64), (48, 64), (48,), (3, 5, 48)))
    bias = bias if has_bias else None
    results = []
    for function, kind in ((linear, torch.float32), (F.linear, torch.float64)):
        own = x.to(kind).requires_grad_()
        found = function(own, weight.to(kind), None if bias is None else bias.to(kind))
        results.append((found.detach(), *torch.autograd.grad((found * sent).sum(), own)))
    for own, exact in zip(*results, strict=True):
        assert own.dtype == torch.float32 and (own - exact).abs().max() < FP32_ERROR * exact.abs().max()


@needs_onednn
def test_what_is_learned_has_its_gradient():
    """A matrix or a bias that is no constant goes through torch's own product, bit for bit."""
    x, weight, bias = torch.randn(4, 8), torch.randn(6, 8, requires_grad=True), torch.randn(6, requires_grad=True)
    for own in ((weight, None), (weight.detach(), bias), (weight, bias)):
        assert torch.equal(linear(x, *own), F.linear(x, *own)) and linear(x, *own).requires_grad


def test_what_is_not_fp32_is_torchs_own():
    for kind in (torch.float64, torch.bfloat16):
        x, weight = torch.randn(4, 8).to(kind), torch.randn(6, 8).to(kind)
        assert torch.equal(linear(x, weight), F.linear(x, weight))


@pytest.mark.parametrize(("own", "expected"), [(MARGIN, "onednn"), (MARGIN - 0.01, "torch"), (0.5, "torch")])
def test_auto_takes_onednn_where_it_is_faster_by_more_than_noise(monkeypatch, own, expected):
    monkeypatch.setattr(module, "is_exact", lambda: True)
    monkeypatch.setattr(module, "shortest", lambda *_: [own, 1.0])
    assert linear_product("auto", LEAST_WIDTH) == expected
    assert linear_product("auto", LEAST_WIDTH - 1) == "torch"  # a start of the quickstart does not wait for it
    assert linear_product("torch", LEAST_WIDTH) == "torch" and linear_product("onednn", LEAST_WIDTH) == "onednn"


@pytest.mark.parametrize("how", ["rounds to bf16", "is not there"])
def test_a_product_that_is_not_fp32_is_not_taken(monkeypatch, how):
    """It is not used if the processor may use less precision, or torch lacks oneDNN. If it was asked for, an error says so."""

    def product(x, weight):
        if how == "is not there":
            raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")
        return (x.bfloat16() @ weight.bfloat16().T).float()

    monkeypatch.setattr(module, "_product", product)
    monkeypatch.setattr(module, "shortest", lambda *_: [9.0, 1.0])
    assert linear_product("auto", LEAST_WIDTH) == "torch"
    with pytest.raises(ConfigError, match=r"MODEL\.LINEAR is onednn, but torch .* set it to torch or auto"):
        linear_product("onednn", LEAST_WIDTH)


def test_each_function_is_timed():
    """The result is the shortest of a few turns for each function, in their order."""
    slow, fast = module.shortest(lambda: sum(range(10**5)), lambda: None)
    assert slow > fast > 0


@needs_onednn
def test_products_of_pairs_are_onednns_inside_the_context_alone(monkeypatch):
    """They are those of float64 to rounding; the context ends with an error too."""
    rows, others = torch.randn(5, 64), torch.randn(7, 64)
    exact, own, calls = rows.double() @ others.double().T, module._product, []
    monkeypatch.setattr(module, "_product", lambda *given: calls.append(given) or own(*given))
    with pytest.raises(ValueError, match="within"), pairs_by(ONEDNN):
        assert product_of_pairs() == ONEDNN
        assert (pair_products(rows, others) - exact).abs().max() < FP32_ERROR * exact.abs().max() and len(calls) == 1
        with pairs_by(TORCH):
            assert torch.equal(pair_products(rows, others), rows @ others.T)
        raise ValueError("within")
    assert product_of_pairs() == TORCH and torch.equal(pair_products(rows, others), rows @ others.T)
    assert len(calls) == 1


def test_pairs_of_other_types_are_torchs_own_and_a_buffer_is_used():
    buffer = torch.empty(5, 7)
    assert pair_products(torch.ones(5, 3), torch.ones(7, 3), buffer) is buffer and (buffer == 3).all()
    with pairs_by(ONEDNN):
        for kind in (torch.float64, torch.bfloat16):
            rows, others = torch.randn(5, 64).to(kind), torch.randn(7, 64).to(kind)
            assert torch.equal(pair_products(rows, others), rows @ others.T)
