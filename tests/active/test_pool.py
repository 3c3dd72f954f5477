"""The pool of what is asked and the oracle that charges for it."""

import pytest
import torch

from active.oracles.oracle import Oracle, PoolExhausted
from active.pool import LabelPool
from active.registry import query_size
from dassl.data.answers import SKIP, UNSURE
from dassl.data.dataset import UNLABELED
from dassl.utils.errors import ConfigError

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


@pytest.mark.parametrize(("size", "expected"), [
    (7, 7), ("1%", 28), ("1 %", 28), ("0.001%", 1), ("100%", 2820), ("2.5%", 71), ("per_class", 47)])
def test_query_size_of_every_form(size, expected):
    """An integer stands for itself, a share is rounded half up and at least 1, per_class is one label a class."""
    assert query_size(size, n_train=2820, n_classes=47) == expected


@pytest.mark.parametrize("size", [0, -3, "0%", "101%", "nan%", "%", "", "many", "per class", "1.5"])
def test_a_query_size_that_makes_no_sense_is_refused(size):
    """Row 4: the error names the key, the value and what would be right."""
    with pytest.raises(ConfigError, match=r"ACTIVE\.QUERY_SIZE is .* must be"):
        query_size(size, n_train=100, n_classes=5)


def test_a_label_that_nobody_knows_is_handed_out_once_people_gave_it():
    """Row 25: until then it is an error, and afterwards nobody may give another one; the budget is charged as always."""
    labels = torch.tensor([2, UNLABELED, UNLABELED])
    oracle, rows = Oracle(labels, budget=3), torch.tensor([2, 0])
    assert oracle.unknown(rows).tolist() == [2]
    with pytest.raises(ValueError, match=r"nobody has labeled rows \[2\]"):
        oracle.label(rows)
    assert oracle.n_paid == 0
    oracle.learn(torch.tensor([2]), torch.tensor([1]))
    assert oracle.label(rows).tolist() == [1, 2] and oracle.n_paid == 2
    with pytest.raises(ValueError, match=r"the labels of rows \[2\] are known already"):
        oracle.learn(torch.tensor([1, 2]), torch.tensor([0, 0]))
    assert labels.tolist() == [2, UNLABELED, UNLABELED]


def test_precision_counts_guesses_whose_truth_is_known():
    """A guess on an image without a label is neither right nor wrong."""
    oracle = Oracle(torch.tensor([2, UNLABELED, 1]), budget=3)
    assert oracle.precision(torch.tensor([0, 1, 2]), torch.tensor([2, 0, 0])) == 0.5
    assert oracle.precision(torch.tensor([1]), torch.tensor([0])) is None


def test_what_people_were_unsure_of_is_half_a_label_or_none():
    """`!unsure heron` is a label of the weight that the pool is given; `!unsure` alone is none."""
    answers = torch.tensor([1, UNSURE - 1 - 2, UNSURE, SKIP])
    for weight, rows, labels in ((0.0, [0], [1]), (0.5, [0, 1], [1, 2])):
        pool = LabelPool(5, unsure_weight=weight)
        pool.acquire(torch.arange(4), answers, 0)
        assert pool.labeled.tolist() == rows and pool.labels.tolist() == labels and pool.settled.tolist() == [0, 1, 2, 3]
        assert (pool.weights is None) == (not weight) and pool.labels_of(torch.arange(4)).tolist() == answers.tolist()
    assert pool.weights.tolist() == [1.0, 0.5]
    pool.correct(torch.tensor([1]), torch.tensor([2]))
    assert pool.labels.tolist() == [1, 2] and pool.weights is None
