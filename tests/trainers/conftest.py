"""Fixtures of this folder."""

import pytest

from dassl.data.dataset import Dataset
from tests.trainers.colors import trainer_of, write_colors


@pytest.fixture(scope="session")
def colors(tmp_path_factory) -> Dataset:
    return write_colors(tmp_path_factory.mktemp("colors"))


@pytest.fixture
def trainer(clip, colors):
    """A trainer of CoOp."""
    return trainer_of(clip, colors)
