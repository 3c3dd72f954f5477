"""Labels that people write down, in tables and exports. The whole file is checked before any of it counts."""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from dassl.data.known import Known
from dassl.data.sheets import N_SHOWN as N_CHARACTERS
from dassl.data.sheets import LabelRow, label_rows
from dassl.utils.errors import DataError, did_you_mean
from dassl.utils.text import printable

N_SHOWN = 20  # faults that one message lists


def read_labels(file: Path, paths: Collection[str], classnames: Sequence[str]) -> dict[str, int]:
    """Return labels by path from a CSV file with the columns `path` and `label` (a class name); an empty label is none.

    Changes that spreadsheets make to such a file are understood, see `dassl.data.sheets`. Raises one DataError that lists
    every unknown path, unknown class and conflict.
    """
    known = Known(paths, classnames)
    return checked_labels(file, label_rows(file, known), known, stranger="no such image")


def checked_labels(source: object, rows: Iterable[LabelRow], known: Known, *, stranger: str) -> dict[str, int]:
    """Return labels, or codes of other words, by path of rows (place, path, class name); an empty name is no label.

    Raises one DataError that names the source and lists, by place, each unknown path (called `stranger`), each unknown
    class, each ambiguous text, and each path with two labels.
    """
    named: dict[str, str] = {}
    faults = []
    for place, path, name in rows:
        paths, names = known.meant(path, name)
        fault = _path_fault(path, paths, stranger) or _class_fault(name, names, known.classnames)
        if not fault and name and (first := named.setdefault(paths[0], names[0])) != names[0]:
            fault = f"{printable(paths[0])} is both {first!r} and {names[0]!r}"
        if fault:
            faults.append(f"{printable(place)}: {fault}")
    if faults:
        shown = "\n  ".join(faults[:N_SHOWN]) + ("\n  ..." if len(faults) > N_SHOWN else "")
        raise DataError(f"{source}: {len(faults)} labels are wrong, so that none counts:\n  {shown}")
    return {path: known.code_of[name] for path, name in named.items()}


def _path_fault(path: str, meant: Sequence[str], stranger: str) -> str:
    if len(meant) > 1:
        return f"{_short(path, printable)} may be {' or '.join(map(printable, meant))}"
    return "" if meant else f"{stranger}: {_short(path, printable)}"


def _class_fault(name: str, meant: Sequence[str], classnames: Sequence[str]) -> str:
    if len(meant) > 1:
        return f"class {_short(name, repr)} may be {' or '.join(map(repr, meant))}"
    return "" if meant or not name else f"unknown class {_short(name, repr)}; {did_you_mean(name[:N_CHARACTERS], classnames)}"


def _short(text: str, show: Callable[[str], str]) -> str:
    return show(text) if len(text) <= N_CHARACTERS else f"{show(text[:N_CHARACTERS])}..."
