"""Where predictions go: a table, folders of classes, tasks of Label Studio. Each is complete at the end, or absent."""

import contextlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from active.oracles.label_studio import tasks
from dassl.data.images import read_bytes
from dassl.data.places import Part, Place
from dassl.data.sheets import sheet
from dassl.utils.errors import UserError
from dassl.utils.files import atomic_path, new_folder
from dassl.utils.paths import resolved
from dassl.utils.text import printable
from scripts.predicting.rows import HEADER, Row

Add = Callable[[Row], None]

UNFIT = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')  # not allowed in folder names, on some system
OF_WINDOWS = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(1, 10))}
N_BYTES = 200  # of a folder's name; most systems take 255


@contextlib.contextmanager
def table(file: Path, classnames: Sequence[str]) -> Iterator[Add]:
    """Give a function that adds an image to a CSV file."""
    with atomic_path(file) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        yield table_writer(stream.write, classnames)


def table_writer(write: Callable[[str], object], classnames: Sequence[str]) -> Add:
    """Return a function that writes an image as a line of CSV, after the header."""
    write(sheet([HEADER]))
    return lambda row: write(sheet([row.cells(classnames)]))


@contextlib.contextmanager
def label_studio(file: Path, classnames: Sequence[str], version: str, folders: Sequence[Path]) -> Iterator[Add]:
    """Give a function that adds an image to a file of tasks, with a prediction; paths are relative to `folders`."""
    with atomic_path(file) as temporary, open(temporary, "w", encoding="ascii") as stream:
        stream.write("[")
        before = ["\n"]

        def add(row: Row) -> None:
            if ranking := row.ranking():
                guesses = [(classnames[label], share) for label, share in ranking]
                stream.write(before[0] + json.dumps(tasks([_below(folders, row.name)], [guesses], version)[0]))
                before[0] = ",\n"

        yield add
        stream.write("\n]\n")


@contextlib.contextmanager
def sorted_into(folder: Path, classnames: Sequence[str], folders: Sequence[Path], *, copy: bool) -> Iterator[Add]:
    """Give a function that links or copies an image into the folder of its class; those of none of the classes are left out.

    Raises UserError if the folder holds anything, or lies in one of the predicted `folders`, where these would be further
    images.
    """
    if above := [own for own in folders if resolved(folder).is_relative_to(resolved(own))]:
        raise UserError(f"--sort-into {printable(folder)} lies in {printable(above[0])}, whose images are predicted; name a "
                        "folder elsewhere")
    with new_folder(folder) as temporary:
        names = folder_names(classnames)
        for name in names:
            (temporary / name).mkdir()
        yield _Sorter(temporary, names, copy=copy).add


def folder_names(classnames: Sequence[str]) -> list[str]:
    """Return a folder name for each class: its name as far as every system allows it, and no two equal, whatever their case."""
    found, taken = [], set()
    for classname in classnames:
        name = UNFIT.sub("_", classname).encode("utf-8", "replace")[:N_BYTES].decode("utf-8", "ignore").strip().rstrip(".")
        name = f"_{name}" if name.startswith(".") or not name or name.casefold().split(".")[0] in OF_WINDOWS else name
        numbered = (name, *(f"{name} ({number})" for number in range(2, len(classnames) + 2)))
        found.append(next(own for own in numbered if own.casefold() not in taken))
        taken.add(found[-1].casefold())
    return found


class _Sorter:
    def __init__(self, folder: Path, names: Sequence[str], *, copy: bool):
        self._folder, self._names, self._copy = folder, names, copy
        self._n_alike: Counter[tuple[int, str]] = Counter()

    def add(self, row: Row) -> None:
        """Put an image into its class's folder under its own name, or with a number if another image has that name."""
        if (label := row.label) is None or row.is_of_no_class:
            return
        name = os.path.basename(row.place)
        stem, end = os.path.splitext(name)
        while not self._put(row.place, self._folder / self._names[label] / name):
            self._n_alike[label, stem + end] += 1
            name = f"{stem} ({self._n_alike[label, stem + end] + 1}){end}"

    def _put(self, file: Place, target: Path) -> bool:
        """Link or copy a file, or write an image that is part of one; False if the target exists."""
        try:
            if isinstance(file, Part):
                with target.open("xb") as stream:
                    stream.write(read_bytes(file))
            elif self._copy:
                target.open("xb").close()
                shutil.copy2(file, target)
            else:
                target.symlink_to(os.path.abspath(file))
        except FileExistsError:
            return False
        return True


def _below(folders: Sequence[Path], name: str) -> str:
    """Return a path relative to the one of these folders that holds it, if any."""
    return next((os.path.relpath(name, folder) for folder in folders if name.startswith(os.path.join(folder, ""))), name)
