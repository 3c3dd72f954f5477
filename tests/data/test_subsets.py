"""Few shots and base/new classes."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from dassl.data.dataset import UNLABELED, Dataset, Datum
from dassl.data.subsets import few_shot, subsample_classes
from dassl.utils.errors import DataError


def dataset(n_classes: int = 5, n_train: int = 20) -> Dataset:
    def items(split: str, n: int) -> tuple[Datum, ...]:
        return tuple(Datum(f"{split}/{label}_{row}.jpg", label) for row in range(n) for label in range(n_classes))

    return Dataset("Toy", Path("."), items("train", n_train), items("val", 10), items("test", 3),
                   tuple(f"class {label}" for label in range(n_classes)))


def test_few_shots_are_that_many_of_each_class_and_at_most_4_of_val():
    few = few_shot(dataset(), 16, seed=1)
    assert Counter(datum.label for datum in few.train) == dict.fromkeys(range(5), 16)
    assert Counter(datum.label for datum in few.val) == dict.fromkeys(range(5), 4)
    assert few.test == dataset().test
    assert set(few.train) < set(dataset().train)


def test_one_shot_takes_one_of_val():
    assert len(few_shot(dataset(), 1, seed=1).val) == 5


def test_few_shots_depend_on_the_seed_alone(global_random_state):
    assert few_shot(dataset(), 2, seed=1) == few_shot(dataset(), 2, seed=1)
    assert few_shot(dataset(), 2, seed=1).train != few_shot(dataset(), 2, seed=0).train


def test_fewer_shots_are_a_part_of_more_shots():
    assert set(few_shot(dataset(), 2, seed=3).train) < set(few_shot(dataset(), 8, seed=3).train)


def test_a_class_with_fewer_images_keeps_them_all():
    assert set(few_shot(dataset(), 100, seed=1).train) == set(dataset().train)


@pytest.mark.parametrize("cut", [partial(few_shot, n_shots=1, seed=1), partial(subsample_classes, part="base")])
def test_parts_of_images_without_a_label_are_refused(cut):
    """Otherwise a pool that people are to label would be empty."""
    unlabeled = Dataset("Toy", Path("."), (Datum("a", UNLABELED), Datum("b", 0)), (), (), ("x", "y"))
    with pytest.raises(DataError, match="some have no label"):
        cut(unlabeled)


@pytest.mark.parametrize(("n_classes", "base", "new"), [(5, 3, 2), (4, 2, 2), (2, 1, 1), (101, 51, 50)])
def test_base_is_the_first_half_rounded_up_and_new_the_rest(n_classes, base, new):
    """Row 31 of the faults table: odd class counts. As in CoCoOp, with labels from 0."""
    whole = dataset(n_classes, n_train=2)
    parts = {part: subsample_classes(whole, part) for part in ("base", "new")}
    assert [len(parts[part].classnames) for part in ("base", "new")] == [base, new]
    assert parts["base"].classnames + parts["new"].classnames == whole.classnames
    for part, first in (("base", 0), ("new", base)):
        for split in ("train", "val", "test"):
            expected = {(datum.path, datum.label - first) for datum in whole.split(split)
                        if whole.classnames[datum.label] in parts[part].classnames}
            assert {(datum.path, datum.label) for datum in parts[part].split(split)} == expected


def test_one_class_has_no_new_half():
    with pytest.raises(DataError, match="cannot be cut"):
        subsample_classes(dataset(1), "new")


def test_few_shots_stand_in_the_order_of_the_labels_and_then_of_the_data_set():
    """The order in which they were drawn does not matter."""
    whole, few = dataset(), few_shot(dataset(), 8, seed=1)
    for split in ("train", "val"):
        rows = [(datum.label, whole.split(split).index(datum)) for datum in few.split(split)]
        assert rows == sorted(rows)


def test_splits_and_classes_have_draws_of_their_own():
    """Files are often numbered in one series: drawing the same numbers everywhere would draw related photographs."""
    few = few_shot(dataset(n_train=10), 4, seed=1)
    drawn = [tuple(datum.path.split("_")[1] for datum in few.split(split) if datum.label == label)
             for split in ("train", "val") for label in range(3)]
    assert len(set(drawn)) == len(drawn) == 6
