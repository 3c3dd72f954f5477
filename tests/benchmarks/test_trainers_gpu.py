"""The GPU benchmark, as far as it can run on a machine without a GPU."""

import pytest
import torch

from benchmarks.trainers_gpu import CASES, HEADS, bound_by, flop, main


def test_a_small_run_prints_a_row_of_each_learner_in_both_tables(capsys):
    """Writing images and weights, whole runs of train.py and single steps all work; two rounds of two epochs are four steps."""
    main(["--small", "--precision", "fp32", "--workers", "0"])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line]
    runs, steps = ([row for row in rows if row[0] in {*CASES, *HEADS} and len(row) == n_columns] for n_columns in (7, 9))
    assert [row[0] for row in runs] == [*CASES, *HEADS] and [row[0] for row in steps] == list(CASES)
    assert all(float(row[1]) > 0 and row[-1] == ("" if row[0] in HEADS else "4") for row in runs)
    assert all(float(row[1]) > 0 and row[-1] == "" for row in steps)


def test_matrix_products_are_counted_forward_and_backward():
    """[5, 7] times [7, 3] are 2 x 5 x 7 x 3 operations, and as many again for the one gradient asked for."""
    left, right = torch.ones(5, 7), torch.ones(7, 3, requires_grad=True)

    def step():
        loss = (left @ right).sum()
        loss.backward()
        return loss

    assert flop(step) == 2 * 2 * 5 * 7 * 3


@pytest.mark.parametrize(("issued", "done", "floor", "expected"), [
    (4.0, 4.0, 0.1, "launches"), (0.5, 4.0, 3.0, "arithmetic"), (4.0, 4.0, 3.0, "arithmetic")])
def test_launches_bound_a_step_that_is_issued_as_slowly_as_it_is_done(issued, done, floor, expected):
    """This does not hold if the card is near its floor anyway."""
    assert bound_by(issued, done, floor, "arithmetic") == expected
