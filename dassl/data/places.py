"""Where the bytes of an image are: a separate file, or a part of a file that holds many, such as an archive."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from dassl.utils.paths import open_file


@dataclass(frozen=True, slots=True)
class Part(os.PathLike, ABC):
    """One image in a file that holds many; the object is small and can be sent to other processes.

    As a path it leads into the file, `shard.tar/dog.jpg`, so that code that does not know parts finds no such file.
    """

    holder: str
    name: str

    @abstractmethod
    def read(self) -> bytes:
        """Return the bytes of the image; raises OSError or DataError if they cannot be read."""

    def __fspath__(self) -> str:
        return os.path.join(self.holder, self.name)

    def __str__(self) -> str:
        return self.__fspath__()


@dataclass(frozen=True, slots=True)
class Span(Part):
    """Bytes that are stored in their file unchanged, as in archives without compression."""

    start: int
    n_bytes: int

    def read(self) -> bytes:
        with open_file(self.holder) as file:
            file.seek(self.start)
            content = file.read(self.n_bytes)
        if len(content) < self.n_bytes:
            raise OSError(f"cut off: {self.holder} ends within this image")
        return content


Place = str | Path | Part


def holder(place: Place) -> str | Path:
    """Return the file that holds an image, alone or with others."""
    return place.holder if isinstance(place, Part) else place


def stamp_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells a file from a changed one: its size, times of change (mtime and ctime, ns) and inode."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)


def content_of(place: Place) -> bytes:
    """Return the bytes of an image; raises OSError, MemoryError or DataError if they cannot be read."""
    if isinstance(place, Part):
        return place.read()
    with open_file(place) as file:
        return file.read()
