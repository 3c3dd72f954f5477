"""Large tensors are files: the same numbers, nothing left behind, and one line if there is no room."""

import gc
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dassl.utils import large
from dassl.utils.errors import UserError
from dassl.utils.files import reserve
from dassl.utils.large import large_files_in, room, single, stacked, taken, unit_rows
from tests.utils.test_files import full_disk


@pytest.fixture
def mapped(monkeypatch, tmp_path):
    """Return a folder in which tensors of 64 bytes or more are files."""
    monkeypatch.setattr(large, "LARGE", 64)
    monkeypatch.setattr(large, "BLOCK", 8)
    with large_files_in(tmp_path):
        yield tmp_path


def files_mapped(folder: Path) -> int:
    """The number of files in a folder, named or not, that this process maps."""
    return sum(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not say what is mapped")
def test_large_tensors_are_files_without_a_name(mapped):
    """They disappear with the tensor. A small tensor is in memory."""
    rows = room(5, 4)
    rows[:] = torch.arange(20).view(5, 4)
    assert files_mapped(mapped) == 1 and not list(mapped.iterdir())
    assert rows[2:].sum() == sum(range(8, 20)) and rows.dtype == torch.float32
    assert room(3, 5).shape == (3, 5) and room(0, 4).shape == (0, 4) and files_mapped(mapped) == 1
    del rows
    gc.collect()
    assert files_mapped(mapped) == 0


def test_copies_in_float32_and_of_some_rows_are_those_in_memory(mapped):
    """Blocks may have any size, and the last one may be smaller."""
    rows = torch.randn(11, 3).half()
    assert torch.equal(single(rows), rows.float())
    assert single(own := rows.float()) is own and unit_rows(own) is own
    assert torch.equal(unit_rows(torch.zeros(2, 4).half()), torch.zeros(2, 4))
    assert torch.allclose(unit_rows(rows), F.normalize(rows.double(), dim=1).float(), atol=2e-7)
    for places in (torch.tensor([10, 0, 3, 3, 7, 1, 2, 8, 9, 5, 6, 4]), torch.arange(11).flip(0), torch.arange(11)):
        assert torch.equal(taken(own, places), own[places])
    assert taken(own, torch.arange(11)) is own and taken(own, torch.arange(4)) is not own
    assert taken(own, torch.empty(0, dtype=torch.int64)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rows_below_each_other_keep_the_type_of_the_first(mapped, dtype):
    """A pool and skipped images, which are float32 by themselves."""
    rows, others = torch.randn(11, 3).to(dtype), torch.randn(2, 3).to(dtype)
    found = stacked(rows, others.float())
    assert found.dtype == dtype and torch.equal(found, torch.cat([rows, others]))


def test_small_rows_are_copies(monkeypatch):
    """So changing them changes no cache."""
    rows = torch.zeros(4, 2)
    assert taken(rows, torch.arange(4)).data_ptr() != rows.data_ptr()


def test_a_disk_without_room_is_one_line(mapped):
    """Row 51: it comes before anything is written. A write through the map would end the process without a message."""
    with full_disk(1000), pytest.raises(UserError, match=rf"cannot write 4,000 bytes of temporary data in {mapped}: .*large"):
        room(100, 10)
    assert not list(mapped.iterdir())


@pytest.mark.parametrize("error", [None, 95])
def test_a_system_that_cannot_reserve_gives_files_their_size(tmp_path, monkeypatch, error):
    """macOS has no such call, and some file systems refuse it."""
    if error is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        def refused(*_):
            raise OSError(error, "not supported")
        monkeypatch.setattr(os, "posix_fallocate", refused, raising=False)
    with open(tmp_path / "file", "wb") as file:
        reserve(file.fileno(), 4096)
    assert (tmp_path / "file").stat().st_size == 4096


def test_files_lie_in_the_innermost_folder(mapped, tmp_path, monkeypatch):
    """And in the outer one again after it."""
    folders, own, inner = [], large.tempfile.TemporaryFile, tmp_path / "inner"
    inner.mkdir()
    monkeypatch.setattr(large.tempfile, "TemporaryFile", lambda dir: folders.append(dir) or own(dir=dir))
    with large_files_in(tmp_path):
        with large_files_in(inner):
            room(1000)
        room(1000)
    assert folders == [inner, tmp_path]
