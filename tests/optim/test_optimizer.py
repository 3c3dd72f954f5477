"""The optimizer of an `OPTIM` node."""

import pytest
import torch

from dassl.config.defaults import default_config
from dassl.optim.optimizer import build_optimizer


@pytest.mark.parametrize(("name", "kind", "expected"), [
    ("sgd", torch.optim.SGD, {"momentum": 0.3, "nesterov": True, "dampening": 0.0}),
    ("adam", torch.optim.Adam, {"betas": (0.4, 0.5)}),
    ("adamw", torch.optim.AdamW, {"betas": (0.4, 0.5)}),
])
def test_every_key_reaches_the_optimizer(name, kind, expected):
    """Values that differ from the defaults are passed on under torch's names."""
    cfg = default_config().OPTIM
    cfg.update(NAME=name, LR=0.1, WEIGHT_DECAY=0.2, MOMENTUM=0.3, SGD_NESTEROV=True, ADAM_BETA1=0.4, ADAM_BETA2=0.5)
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], cfg)
    assert type(optimizer) is kind
    assert optimizer.defaults.items() >= {"lr": 0.1, "weight_decay": 0.2, **expected}.items()


def test_dampening_is_the_configs():
    """The key has Dassl's spelling. It is tested on its own, as torch refuses dampening with Nesterov's momentum."""
    cfg = default_config().OPTIM
    cfg.update(SGD_DAMPNING=0.5)
    assert build_optimizer([torch.nn.Parameter(torch.zeros(1))], cfg).defaults["dampening"] == 0.5


def test_the_defaults_are_coops():
    """SGD with learning rate 0.002, momentum 0.9, weight decay 5e-4: a step by hand."""
    parameter = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = build_optimizer([parameter], default_config().OPTIM)
    for _ in range(2):
        parameter.grad = torch.full_like(parameter, 3.0)
        optimizer.step()
    first = 3 + 5e-4
    after_one = 1 - 0.002 * first
    assert parameter.item() == pytest.approx(after_one - 0.002 * (0.9 * first + 3 + 5e-4 * after_one), rel=1e-14)
