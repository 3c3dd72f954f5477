"""WebDataset shards: tar files in which the files of one sample follow each other and share a name.

`dog/17.jpg`, `dog/17.cls` (a number or a class name) and `dog/17.json` (an object) are one sample; its key is `dog/17`. Images
are read where they lie in the shard. Source: the format's description at github.com/webdataset/webdataset.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from dassl.data.formats import known_suffixes
from dassl.data.places import Part, Span
from dassl.data.tables import Table
from dassl.utils.errors import DataError
from dassl.utils.paths import open_file, reason
from dassl.utils.text import printable

SHARD = ".tar"
IMAGE, CLASS = "image", "cls"  # the columns of a shard, beside the entries of its JSON files
MAX_BYTES = 2**20  # of a file that is not an image


@dataclass
class Sample:
    """The image of a sample, None if it has none, and the values from its other files."""

    image: Span | None = None
    cells: dict[str, object] = field(default_factory=dict)


class Shard(Table):
    """The samples of a shard as the rows of a table. Raises DataError if it is not a tar file, or damaged."""

    def __init__(self, file: Path):
        self._samples = [sample for sample in _samples(file) if sample.image]
        names = dict.fromkeys(name for sample in self._samples for name in sample.cells)
        super().__init__(file, [IMAGE, *names], [IMAGE], {})

    def cells(self, column: str) -> list[object]:
        return [sample.cells.get(column) for sample in self._samples]

    def places(self, column: str) -> list[str | Part]:
        return [sample.image for sample in self._samples] if column == IMAGE else super().places(column)


def _samples(file: Path) -> Iterator[Sample]:
    try:
        with open_file(file) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for _, members in groupby(_members(tar), key=lambda member: _key(member.name)[0]):
                yield _sample(file, tar, list(members))
    except (OSError, tarfile.TarError, EOFError) as error:
        raise DataError(f"cannot read {file}: {reason(error)}; a shard is a tar file that is not compressed") from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        tar.members.clear()  # else it would keep them all
        if member.isreg() and not member.name.rpartition("/")[2].startswith("."):
            yield member


def _sample(file: Path, tar: tarfile.TarFile, members: list[tarfile.TarInfo]) -> Sample:
    sample = Sample()
    for member in members:
        kind = _key(member.name)[1].rpartition(".")[2]
        if f".{kind}" in known_suffixes():
            if sample.image:
                raise DataError(f"{file}: the sample {printable(_key(member.name)[0])} holds two images, {sample.image.name} "
                                f"and {member.name}")
            sample.image = Span(str(file), member.name, member.offset_data, member.size)
        elif kind in (CLASS, "json"):
            sample.cells |= _cells(file, member, tar.extractfile(member).read(MAX_BYTES), kind)
    return sample


def _cells(file: Path, member: tarfile.TarInfo, content: bytes, kind: str) -> dict[str, object]:
    try:
        text = content.decode("utf-8-sig")
        cells = {CLASS: text} if kind == CLASS else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot read {printable(member.name)}: {reason(error)}") from error
    if not isinstance(cells, dict):
        raise DataError(f"{file}: {printable(member.name)} is not a JSON object")
    return cells


def _key(name: str) -> tuple[str, str]:
    """Return the key of a sample and the kind of its file: "dog/17" and "jpg" for "dog/17.jpg"."""
    folder, slash, own = name.rpartition("/")
    stem, _, kind = own.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()
