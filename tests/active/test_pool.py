"""The pool of what is asked and the oracle that charges for it."""

import pytest
import torch

from active.pool import LabelPool, Oracle, PoolExhausted

LABELS = torch.tensor([3, 1, 4, 1, 5])


def test_the_oracle_hands_out_the_true_labels_in_the_order_asked():
    """Rows and answers correspond, and each row is charged."""
    oracle = Oracle(LABELS, budget=5)
    assert oracle.label(torch.tensor([4, 0])).tolist() == [5, 3]
    assert oracle.n_paid == 2


def test_a_label_is_never_paid_twice():
    """Asking again, or twice at once, is refused and charges nothing."""
    oracle = Oracle(LABELS, budget=5)
    oracle.label(torch.tensor([1]))
    for rows in ([2, 1], [2, 2]):
        with pytest.raises(ValueError, match="asked twice"):
            oracle.label(torch.tensor(rows))
    assert oracle.n_paid == 1


def test_the_budget_is_enforced_where_labels_are_handed_out():
    """A query that goes beyond the budget gets no label at all; one that fits still does."""
    oracle = Oracle(LABELS, budget=3)
    oracle.label(torch.tensor([0, 1]))
    with pytest.raises(PoolExhausted, match="2 labels asked, but 1 of 3 are left"):
        oracle.label(torch.tensor([2, 3]))
    assert oracle.n_paid == 2
    assert oracle.label(torch.tensor([3])).tolist() == [1]


def test_asking_for_nothing_costs_nothing():
    """An empty query is answered with no label, also without a budget."""
    oracle = Oracle(LABELS, budget=0)
    assert len(oracle.label(torch.tensor([], dtype=torch.int64))) == 0
    assert oracle.n_paid == 0


def test_the_precision_of_guesses_is_free():
    """Three of four guesses are right; nothing is charged, and without guesses there is no share."""
    oracle = Oracle(LABELS, budget=0)
    assert oracle.precision(torch.tensor([4, 0, 1, 2]), torch.tensor([5, 3, 1, 0])) == 0.75
    assert oracle.precision(torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64)) is None
    assert oracle.n_paid == 0


def test_a_pool_keeps_rounds_labels_and_order():
    """`labeled` and `unlabeled` are ascending and complementary; `labels` follows `labeled`."""
    pool = LabelPool(5)
    pool.acquire(torch.tensor([4, 1]), torch.tensor([5, 1]), 0)
    pool.acquire(torch.tensor([0]), torch.tensor([3]), 1)
    assert pool.unlabeled.tolist() == [2, 3]
    assert pool.labeled.tolist() == [0, 1, 4]
    assert pool.labels.tolist() == [3, 1, 5]
    assert pool.round_of.tolist() == [1, 0, -1, -1, 0]


def test_pseudo_labels_are_counted_apart():
    """A row labeled by the model's guess is labeled, but not paid for."""
    pool = LabelPool(5)
    pool.acquire(torch.tensor([0]), torch.tensor([3]), 0)
    pool.acquire(torch.tensor([1, 2]), torch.tensor([0, 0]), 0, pseudo=True)
    assert pool.labeled.tolist() == [0, 1, 2] and pool.pseudo_labeled.tolist() == [1, 2]
    assert pool.labels.tolist() == [3, 0, 0]
    assert pool.labels_of(torch.tensor([2, 4, 0])).tolist() == [0, -1, 3]


def test_a_row_leaves_the_pool_once():
    """A labeled row cannot be labeled again, and nothing of the refused call is kept."""
    pool = LabelPool(5)
    pool.acquire(torch.tensor([1]), torch.tensor([1]), 0)
    with pytest.raises(ValueError, match=r"rows \[1\] are labeled already"):
        pool.acquire(torch.tensor([0, 1]), torch.tensor([9, 9]), 1)
    assert pool.labeled.tolist() == [1] and pool.labels.tolist() == [1]
