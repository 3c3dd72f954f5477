"""Unpacking archives from the internet: nothing outside the folder, no links, no devices, no bombs.

No library is used, since none ensures this: torchvision, pooch and gdown unpack bombs and take links in zip files for
files, and the first two, before Python 3.12, unpack members outside the folder.
"""

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from dassl.utils.errors import DataError
from dassl.utils.text import printable

MAX_RATIO = 20  # of unpacked to packed bytes; for archives of JPEG files it is about 1
MAX_SMALL = 2**30  # bytes that any archive may unpack to, whatever its ratio

Member = tuple[str, int, Callable[[], object]]  # name, unpacked bytes, extract it


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .zip or .tar file, compressed or not, into `folder`.

    Raises DataError if it is damaged or not an archive, at a member that is a link, a device or outside the folder, and
    when it unpacks to more than `MAX_RATIO` times its size. Files that were unpacked until then stay there.
    """
    members = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    room = max(MAX_SMALL, MAX_RATIO * archive.stat().st_size)
    try:
        for name, n_bytes, extract in tqdm(members(archive, folder), f"unpacking {archive.name}", unit="file", leave=False,
                                           disable=None):
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{archive}: the member {printable(name)} leads out of the folder; do not trust this file")
            room -= n_bytes
            if room < 0:
                raise DataError(f"{archive} unpacks to more than {MAX_RATIO} times its size; it looks like a bomb")
            extract()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"cannot unpack {archive}: {error}") from error


def _tar_members(archive: Path, folder: Path) -> Iterator[Member]:
    if not hasattr(tarfile, "data_filter"):
        raise DataError("this Python cannot unpack tar files safely; update it to its latest patch release")
    with tarfile.open(archive) as tar:
        for member in tar:
            if not (member.isfile() or member.isdir()):
                raise _unwanted(archive, member.name)
            yield member.name, member.size, lambda member=member: tar.extract(member, folder, filter="data")


def _zip_members(archive: Path, folder: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unwanted(archive, member.filename)
            yield member.filename, member.file_size, lambda member=member: file.extract(member, folder)


def _unwanted(archive: Path, name: str) -> DataError:
    return DataError(f"{archive}: the member {printable(name)} is a link or a device; a data set needs neither")
