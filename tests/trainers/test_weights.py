"""Weights of labels, in every learner that solves itself or makes sums of labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainers.heads import logits_of, permuted, prepared, problem


@pytest.mark.parametrize(("name", "parameters"), [
    ("LinearProbe", {}), ("RLA", {}), ("GDA", {}), ("GDA", {"form": "labels"}), ("TipAdapter", {}),
    ("TipAdapter", {"count": "mean"}), ("LPpp", {}), ("LPpp", {"alpha": "data"}), ("LPpp", {"form": "reference"})])
def test_a_label_of_weight_two_is_that_label_given_twice(clip, name, parameters):
    """Only some labels are weighted, so that a common factor cannot hide an error."""
    given = problem()
    number = torch.tensor([2, 1, 1, 3, 1, 2, 1, 1, 1, 2])
    heavy = replace(given, labels=replace(given.labels, weights=number.double()))
    often = permuted(given, np.repeat(np.arange(10), number))
    found, expected, plain = (logits_of(prepared(clip, name, own, **parameters), given) for own in (heavy, often, given))
    assert np.abs(found - expected).max() < 1e-8 < np.abs(found - plain).max()
