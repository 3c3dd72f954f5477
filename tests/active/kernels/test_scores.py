"""Scores and rankings against their definitions."""

import math

import pytest
import torch

import active.kernels.scores as scores
from active.kernels.scores import (
    entropy,
    least_confidence,
    residuals,
    smallness_of_margin,
    top_columns,
    top_columns_of,
    top_rows,
    without,
)
from active.testing import small_pools
from tests.active.samplers.plain import softmax


def test_scores_equal_their_definitions():
    """On 200 pools, against probabilities computed with Python's floats."""
    for ctx in small_pools():
        probs = [sorted(softmax(row), reverse=True) for row in ctx.logits.double().tolist()]
        assert least_confidence(ctx.logits).tolist() == pytest.approx([1 - p[0] for p in probs], abs=1e-6)
        assert smallness_of_margin(ctx.logits).tolist() == pytest.approx([1 - p[0] + p[1] for p in probs], abs=1e-6)
        assert entropy(ctx.logits).tolist() == pytest.approx([-sum(q * math.log(q) for q in p if q) for p in probs], abs=1e-5)


def test_saturated_rows_are_still_ordered():
    """p(first) is 1 in float32 in all three rows, and the runner-up is what tells them apart."""
    logits = torch.tensor([[0.0, 30.0, 0.0], [0.0, 40.0, 0.0], [0.0, 20.0, 0.0]])
    assert logits.softmax(1).amax(1).tolist()[:2] == [1.0, 1.0]
    assert top_rows(least_confidence(logits), 3).tolist() == [2, 0, 1]
    assert top_rows(smallness_of_margin(logits), 3).tolist() == [2, 0, 1]
    assert least_confidence(logits)[1].item() == pytest.approx(2 * math.exp(-40), rel=1e-5)


def test_residuals_are_probabilities_minus_the_predicted_class():
    """Rows sum to 0; among equal logits the lowest class counts as predicted."""
    assert residuals(torch.tensor([[1.0, 1.0]])).tolist() == [[-0.5, 0.5]]
    assert residuals(torch.zeros(1, 1)).tolist() == [[0.0]]
    assert residuals(torch.tensor([[40.0, 0.0]]))[0].tolist() == pytest.approx([-math.exp(-40), math.exp(-40)], rel=1e-6, abs=0)
    assert residuals(torch.randn(9, 4, generator=torch.Generator().manual_seed(0))).sum(1).abs().max() < 1e-6


def test_scores_do_not_depend_on_the_block(monkeypatch):
    """One row a block, and float16 input, give what one block of float32 gives."""
    logits = torch.randn(37, 6, generator=torch.Generator().manual_seed(0)).half()
    for score in (entropy, least_confidence, smallness_of_margin):
        whole = score(logits.float())
        with monkeypatch.context() as patch:
            patch.setattr(scores, "BLOCK", 6)
            assert torch.equal(score(logits), whole)


def test_entropy_ignores_a_constant_added_to_a_row():
    """Softmax does."""
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(entropy(logits), entropy(logits + 7), atol=1e-5)


@pytest.mark.parametrize("n_columns", [1, 7, 64, 4999])
def test_top_columns_are_those_of_a_stable_sort(n_columns):
    """With many ties and in narrow and wide matrices, including chunks that do not fill the width."""
    values = torch.randint(0, 9 + n_columns // 4, (50, n_columns), generator=torch.Generator().manual_seed(n_columns)).float()
    for k in {min(k, n_columns) for k in (0, 1, 3, 10, 4999)}:
        columns, top = top_columns(values, k)
        expected = values.argsort(dim=1, descending=True, stable=True)[:, :k]
        assert torch.equal(columns, expected)
        assert torch.equal(top, values.gather(1, expected))


@pytest.mark.parametrize("n_rows", [0, 1, 9])
def test_top_columns_of_blocks_are_those_of_the_whole(n_rows):
    """The last block is narrower than k, and there may be no rows."""
    values = torch.randn(n_rows, 23, generator=torch.Generator().manual_seed(0))
    columns, top = top_columns_of(values.split(10, dim=1), 4)
    expected = top_columns(values, 4)
    assert columns.shape == (n_rows, 4) and torch.equal(columns, expected[0]) and torch.equal(top, expected[1])


def test_top_rows_refuses_nan():
    """The position of NaN must not depend on the sort."""
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        top_rows(torch.tensor([0.0, float("nan")]), 1)


def test_without_is_the_complement():
    """Rows are ascending. If none is left out, all remain."""
    assert without(torch.tensor([3, 0]), 5).tolist() == [1, 2, 4]
    assert without(torch.empty(0, dtype=torch.int64), 2).tolist() == [0, 1]
