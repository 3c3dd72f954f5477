"""Views in batches: the order, the errors, and how far ahead they are made."""

import time

import pytest
import torch

from dassl.data.views import AHEAD, readable
from dassl.utils.errors import DataError


def view(item: int) -> torch.Tensor:
    if item % 7 == 3:
        raise DataError(f"no {item}")
    time.sleep(0.001 * (item % 3))  # so that threads end in another order
    return torch.tensor(item)


@pytest.mark.parametrize("n_items", [0, 1, 4, 5, 23])
def test_each_item_has_its_place(n_items):
    """The order of threads does not matter. The last batch may be smaller, and an error replaces only its own item."""
    batches = list(readable(range(n_items), view, batch_size=4, n_threads=3))
    assert [len(batch) for batch in batches] == [4] * (n_items // 4) + [n_items % 4] * (n_items % 4 > 0)
    for item, found in enumerate(found for batch in batches for found in batch):
        assert str(found) == f"no {item}" if item % 7 == 3 else found == item


def test_no_more_than_a_few_batches_are_made_ahead():
    """An endless list of items can be read."""
    taken = []

    def endless():
        item = 4
        while True:
            taken.append(item)
            yield item

    batches = readable(endless(), view, batch_size=5, n_threads=0)
    for number in range(1, 4):
        next(batches)
        assert len(taken) == 5 * (number + AHEAD)
    batches.close()


def test_other_errors_are_not_kept():
    with pytest.raises(ZeroDivisionError):
        list(readable([0], lambda item: 1 / item, batch_size=2, n_threads=1))
