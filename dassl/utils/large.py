"""Tensors that may be too large for memory: from `LARGE` bytes on they are mapped files, of which memory holds what fits.

The files have no name, so nothing is left of them, however a process ends. They lie in the output folder of a run, and
outside runs where the system keeps temporary files (`TMPDIR`).
"""

import contextlib
import mmap
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dassl.utils.errors import UserError
from dassl.utils.files import reserve
from dassl.utils.paths import reason

LARGE = 2**28  # bytes
BLOCK = 2**22  # numbers that are copied or converted at once

_folders: list[Path] = []


@contextlib.contextmanager
def large_files_in(folder: Path) -> Iterator[None]:
    """Keep the files of large tensors in a folder, which must exist when the first one is made."""
    _folders.append(folder)
    try:
        yield
    finally:
        _folders.remove(folder)


def room(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None) -> Tensor:
    """Return a tensor to be filled; on a card it is never a file. UserError, with the bytes, if its file finds no space."""
    n_bytes = torch.Size(shape).numel() * dtype.itemsize
    if n_bytes < max(1, LARGE) or (device is not None and device.type != "cpu"):
        return torch.empty(shape, dtype=dtype, device=device)
    folder = _folders[-1] if _folders else Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file.fileno(), n_bytes)
            return torch.frombuffer(mmap.mmap(file.fileno(), n_bytes), dtype=dtype).view(shape)
    except OSError as error:
        raise UserError(f"cannot write {n_bytes:,} bytes of temporary data in {folder}: {reason(error)}; they are as many as a "
                        "pool of this size takes") from error


def unit_rows(rows: Tensor) -> Tensor:
    """Return unit rows [N, D] in float32; those of float16, in which lengths are off by 1e-5, are made unit again."""
    found = single(rows)
    if rows.dtype == torch.float16:
        for part in _parts(found):
            part /= part.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return found


def single(rows: Tensor) -> Tensor:
    """Return rows in float32; they are returned as they are if they are float32 already."""
    if rows.is_cuda or rows.dtype == torch.float32 or rows.numel() * 4 < LARGE:
        return rows.float()
    found = room(*rows.shape)
    for part, own in zip(_parts(found), _parts(rows), strict=True):
        part.copy_(own)
    return found


def taken(rows: Tensor, places: Tensor) -> Tensor:
    """Return rows[places]; large rows are returned themselves, not to be changed, if all are asked for in order."""
    if rows.is_cuda or rows[:1].nbytes * len(places) < LARGE:
        return rows[places]
    if len(places) == len(rows) and bool((places == torch.arange(len(rows))).all()):
        return rows
    found = room(len(places), *rows.shape[1:], dtype=rows.dtype)
    for part, own in zip(_parts(found), places.split(_n_rows(found)), strict=True):
        torch.index_select(rows, 0, own, out=part)
    return found


def stacked(rows: Tensor, others: Tensor) -> Tensor:
    """Return rows [N, D] and others [M, D] below each other, in the type of the first."""
    found = room(len(rows) + len(others), rows.shape[1], dtype=rows.dtype, device=rows.device)
    found[: len(rows)], found[len(rows) :] = rows, others
    return found


def _parts(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(_n_rows(rows))


def _n_rows(rows: Tensor) -> int:
    return max(1, BLOCK // max(1, rows[:1].numel()))
