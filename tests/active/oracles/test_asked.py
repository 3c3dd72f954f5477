"""The query that people wait over: kept as it was, bound to its config and labels."""

import json
from pathlib import Path

import pytest
import torch

from active.context import Query
from active.oracles.asked import read_query, stands_on, write_query
from active.pool import LabelPool
from dassl.config.setup import as_dict
from dassl.utils.errors import DataError
from tests.active.toy import N_TRAIN, toy_config, toy_task

DATASET = toy_task()[0]
BEFORE = Path(__file__).parents[2] / "files" / "before"  # written by commit 2dbb33f
CONFIG_BEFORE = json.loads((BEFORE / "gcnal" / "results.json").read_text())["config"]
CONFIG_BEFORE["ACTIVE"] |= {"SAMPLER": "random"}
QUERY = Query(torch.tensor([5, 2]), torch.tensor([7, 3]), torch.tensor([1, 0]), mined_rows=torch.tensor([9]),
              mined_labels=torch.tensor([4]))


def pool(*rows: int) -> LabelPool:
    pool = LabelPool(N_TRAIN)
    pool.acquire(torch.tensor(rows, dtype=torch.int64), torch.zeros(len(rows), dtype=torch.int64), 0)
    return pool


def basis(tmp_path: Path, *labeled: int, **values: object) -> tuple[str, str]:
    return stands_on(as_dict(toy_config(tmp_path, **values)), pool(*labeled))


@pytest.fixture
def file(tmp_path):
    """The file of a query of round 1, with row 0 labeled before."""
    path = tmp_path / "queries" / "round_001_query.json"
    write_query(path, basis(tmp_path, 0), QUERY, DATASET)
    return path


def test_a_query_survives_the_round_trip_with_its_guesses(file, tmp_path):
    """Rows, their order, pseudo-labels and mined images, by the paths of the images."""
    found = read_query(file, basis(tmp_path, 0), DATASET)
    for name in ("rows", "pseudo_rows", "pseudo_labels", "mined_rows", "mined_labels"):
        assert getattr(found, name).dtype == torch.int64 and torch.equal(getattr(found, name), getattr(QUERY, name)), name
    assert json.loads(file.read_text())["queried"] == ["train/005.png", "train/002.png"]
    assert read_query(file.with_name("round_002_query.json"), basis(tmp_path, 0), DATASET) is None


def test_where_and_how_fast_a_run_happens_does_not_matter(file, tmp_path):
    """A query is the same on another machine, with another data root and other workers."""
    elsewhere = basis(tmp_path, 0, DATASET__ROOT="b", DATALOADER__NUM_WORKERS=9)
    assert read_query(file, elsewhere, DATASET) is not None


def test_more_rounds_ask_the_same(file, tmp_path):
    """A run may be given more rounds while people label."""
    assert read_query(file, basis(tmp_path, 0, ACTIVE__ROUNDS=9), DATASET) is not None


def test_a_query_of_before_rounds_could_grow_is_read(tmp_path):
    """Its hash includes the number of rounds, as in commit 2dbb33f."""
    found = read_query(BEFORE / "round_001_query.json", stands_on(CONFIG_BEFORE, pool(0)), DATASET)
    assert torch.equal(found.rows, QUERY.rows) and torch.equal(found.mined_rows, QUERY.mined_rows)


@pytest.mark.parametrize(("values", "labeled"), [({"OPTIM__LR": 0.5}, [0]), ({}, []), ({}, [0, 1])])
def test_a_query_of_another_config_or_after_other_labels_is_refused(file, tmp_path, values, labeled):
    """This run would not ask that query."""
    with pytest.raises(DataError, match=f"{file} was asked under another config or after other labels"):
        read_query(file, basis(tmp_path, *labeled, **values), DATASET)


@pytest.mark.parametrize("change", [lambda text: text.replace("005", "006"), lambda text: "[]", lambda text: "{}",
                                    lambda text: text[:-9]])
def test_a_changed_query_is_found(file, tmp_path, change):
    """Another image, another form, half a file."""
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError, match=str(file)):
        read_query(file, basis(tmp_path, 0), DATASET)


def test_an_image_that_is_gone_is_named(file, tmp_path):
    """The train split may not shrink while people label."""
    smaller = toy_task(n_train=5)[0]
    with pytest.raises(DataError, match=r"not in the train split, first 'train/005\.png'"):
        read_query(file, basis(tmp_path, 0), smaller)
