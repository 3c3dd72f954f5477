"""What folders of images hold: other folders, images, and entries that only look like one of these.

Left out, whatever layout the images have: hidden entries; entries that operating systems add (`__MACOSX`, `@eaDir`, ...);
the output folders of this project's runs, whose curves are not images of a class; links that lead nowhere or back to a
folder that they lie in.
"""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dassl.data.formats import image_suffixes
from dassl.utils.errors import DataError
from dassl.utils.run_folder import CURVE, LOCK, LOG, PROMPTS, QUERIES, RECORDERS, RESULTS, TENSORBOARD

FOLDER, IMAGE, FILE, SYSTEM, RUN, LOOP, DANGLING = "folder", "image", "file", "system", "run", "loop", "dangling"

OF_SYSTEMS = {name.casefold() for name in (
    "__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "@Recycle",
    "@Recently-Snapshot", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r")}
OF_RUNS = {PROMPTS, QUERIES, TENSORBOARD, RECORDERS, CURVE}  # in a folder that is one of a run
OF_CACHES = ".digests"  # of a CACHE_DIR below the root that is not hidden
HEADS = {RESULTS: re.compile(rb'\{\s*"schema": '), LOG: re.compile(rb"[\d-]{10} [\d:]{8},\d{3} [A-Z]+ ")}


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted; raises DataError if it is missing."""
    return [name for name, kind in kinds(folder).items() if kind == FOLDER]


def image_files(folder: Path) -> list[str]:
    """Return the names of the image files in a folder, sorted, known by their suffix; raises DataError if it is missing."""
    return [name for name, kind in kinds(folder).items() if kind == IMAGE]


class Tree:
    """All folders below a root, listed once; paths are relative to it, and folders end with a slash, the root is ""."""

    def __init__(self, root: Path):
        self.root, self.kinds = root, dict(_walk(root))

    def folders(self, folder: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        return self._names(folder, FOLDER)

    def images(self, folder: str = "") -> list[str]:
        """Return the names of the images directly in a folder, sorted."""
        return self._names(folder, IMAGE)

    def paths(self, kind: str) -> list[str]:
        """Return the paths of all entries of a kind, sorted."""
        return sorted(folder + name for folder in self.kinds for name in self._names(folder, kind))

    def _names(self, folder: str, wanted: str) -> list[str]:
        return [name for name, kind in self.kinds[folder].items() if kind == wanted]


def kinds(folder: Path) -> dict[str, str]:
    """Return the kind of each entry of a folder, by name, sorted, without hidden ones; DataError if the folder is missing."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
        is_run = _is_run(folder)
        return {entry.name: _kind(entry, is_run) for entry in found}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the folder {folder}: {getattr(error, 'strerror', None) or error}") from error


def _walk(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each folder below a root with the kinds of its entries; no folder is entered again below itself."""
    pending = [("", (_identity(root),))]
    while pending:
        folder, above = pending.pop()
        own = kinds(root / folder)
        for name in [name for name, kind in own.items() if kind == FOLDER]:
            if (identity := _identity(root / folder / name)) in above:
                own[name] = LOOP
            else:
                pending.append((f"{folder}{name}/", (*above, identity)))
        yield folder, own


def _kind(entry: os.DirEntry, in_run: bool) -> str:
    name = entry.name.casefold()
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return LOOP
        raise
    if name in OF_SYSTEMS:
        return SYSTEM
    if (in_run and name in OF_RUNS) or (is_folder and _holds_runs_alone(entry.path)):
        return RUN
    if is_folder:
        return LOOP if entry.is_symlink() and _leads_back(entry.path) else FOLDER
    if is_file:
        return IMAGE if _has_image_suffix(name) else FILE
    return DANGLING if entry.is_symlink() else FILE


def _is_run(folder: str | Path) -> bool:
    """Tell whether a folder is the output of a run: it holds a lock, or a record or log that begins like this project's."""
    return os.path.lexists(os.path.join(folder, LOCK)) or any(
        _begins_with(os.path.join(folder, name), head) for name, head in HEADS.items())


def _begins_with(path: str, head: re.Pattern[bytes]) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return bool(head.match(file.read(64)))


def _holds_runs_alone(folder: str) -> bool:
    """Tell whether a folder belongs to a run or a cache, or holds only such folders, at any depth, and no other image."""
    pending, found = [folder], False
    while pending:
        current = pending.pop()
        is_run = _is_run(current)
        with os.scandir(current) as entries:
            own = [entry for entry in entries if not entry.name.startswith(".")]
        if is_run:
            found, own = True, [entry for entry in own if entry.name.casefold() not in OF_RUNS]
        if any(_has_image_suffix(entry.name) for entry in own):
            return False
        found = found or any(entry.name.endswith(OF_CACHES) for entry in own)
        pending += [entry.path for entry in own if entry.is_dir(follow_symlinks=False)]
    return found


def _has_image_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in image_suffixes()


def _leads_back(link: str) -> bool:
    """Tell whether a link leads to a folder that it lies in."""
    folder = os.path.realpath(os.path.dirname(link))
    return os.path.join(folder, "").startswith(os.path.join(os.path.realpath(link), ""))


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the folder {folder}: {getattr(error, 'strerror', None) or error}") from error
    return status.st_dev, status.st_ino
