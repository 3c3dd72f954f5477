"""Views that are encoded once: which, by whom, and what a kill or damage does to them."""

import shutil

import pytest
import torch

from dassl.data.view_bank import AT_ONCE, BATCH, ViewBank
from dassl.utils.errors import UserError

KEY = {"dataset": "Birds", "weights": "w"}
DIGESTS = torch.arange(5 * 32, dtype=torch.uint8).view(5, 32)


class Tower:
    """Stands in for decoding and encoding: a view's features are its row and its seed."""

    def __init__(self):
        self.rows, self.sizes, self.dies_after = [], [], None

    def __call__(self, rows, seeds, sizes):
        if self.dies_after is not None and len(self.rows) >= self.dies_after:
            raise KeyboardInterrupt
        assert sum(sizes) == len(rows) == len(seeds)
        self.rows += rows
        self.sizes += sizes
        return torch.tensor([[row, seed % 1000] for row, seed in zip(rows, seeds, strict=True)], dtype=torch.float32)


@pytest.fixture
def tower():
    return Tower()


@pytest.fixture
def bank(tmp_path, tower):
    """A function that opens the bank, as a new process does."""
    return lambda n_views=3, key=KEY, digests=DIGESTS: ViewBank(tmp_path, key, n_views, digests, tower)


def test_each_image_is_encoded_once_for_all_runs(bank, tower):
    """The order of requests is kept. Images are known by their bytes, whatever row they have elsewhere."""
    first = bank().of([2, 0])
    assert first.shape == (2, 3, 2) and first[:, :, 0].tolist() == [[2] * 3, [0] * 3]
    assert len(first[0, :, 1].unique()) == 3 and not torch.equal(first[0, :, 1], first[1, :, 1])
    opened = bank()
    assert torch.equal(opened.of([0, 2, 0]), first[[1, 0, 1]]) and len(tower.rows) == 6
    assert opened.of([0, 4]).shape == (2, 3, 2) and tower.rows[6:] == [4] * 3
    assert torch.equal(bank(digests=DIGESTS.flip(0)).of([2, 4]), first) and len(tower.rows) == 9


def test_views_are_the_same_whatever_was_encoded_before_them(bank, tower, tmp_path):
    """A batch holds only views of one image, up to a fixed number."""
    n_views = BATCH + 5
    together = bank(n_views).of([0, 1])
    assert tower.sizes == [BATCH, 5] * 2
    alone = ViewBank(tmp_path / "other", KEY, n_views, DIGESTS, tower).of([1])
    assert torch.equal(alone[0], together[1])


def test_other_views_are_another_bank(bank, tower):
    """It depends on everything that views depend on, and on their number, since that decides what a batch holds."""
    bank().of([1])
    bank(key=KEY | {"weights": "v"}).of([1])
    bank(n_views=4).of([1])
    assert tower.rows == [1] * 10


def test_what_was_encoded_before_a_kill_is_kept(bank, tower):
    n_views = AT_ONCE // 2
    tower.dies_after = 2 * n_views
    with pytest.raises(KeyboardInterrupt):
        bank(n_views).of([0, 1, 2, 3])
    tower.dies_after = None
    assert bank(n_views).of([0, 1, 2, 3])[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert tower.rows[2 * n_views:] == [2] * n_views + [3] * n_views


def test_a_damaged_file_is_made_anew(bank, tower, tmp_path, caplog):
    before = bank().of([3])
    file, = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert torch.equal(bank().of([3]), before) and len(tower.rows) == 6 and "is damaged" in caplog.text


def test_two_images_of_the_same_bytes_are_one(bank, tower):
    same = DIGESTS[[0, 0, 1]]
    found = bank(digests=same).of([1, 0, 2])
    assert tower.rows == [0] * 3 + [2] * 3 or tower.rows == [1] * 3 + [2] * 3
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_folder_that_cannot_be_made_is_named(bank, tmp_path):
    """Something else has its name."""
    bank().of([0])
    folder, = tmp_path.glob("*_views_*")
    shutil.rmtree(folder)
    folder.touch()
    with pytest.raises(UserError, match=f"^cannot write {folder}"):
        bank().of([0])
