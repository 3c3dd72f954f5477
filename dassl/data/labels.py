"""What people write by hand: lists of class names and tables of labels. A file is checked whole before any of it counts."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import yaml

from dassl.data.annotations import read_lines
from dassl.utils.errors import DataError, did_you_mean
from dassl.utils.text import printable

N_SHOWN = 20  # faults that one message lists

LabelRow = tuple[str, str, str]  # place in the file, path of the image, class name or ""


def read_classnames(file: Path) -> dict[str, str]:
    """Return class names by the names of their folders, in the order of the labels.

    The file is text with one name a line, a YAML list of names, or a YAML mapping of folders to names. Raises DataError
    if it is something else, or names a class twice: two folders of one class would be two classes of one name.
    """
    if file.suffix.lower() not in (".yaml", ".yml"):
        names = read_lines(file)
    else:
        try:
            names = yaml.safe_load(file.read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    pairs = list(names.items()) if isinstance(names, dict) else [(name, name) for name in names or ()]
    odd = [item for pair in pairs for item in pair if not isinstance(item, str)]
    if isinstance(names, str) or not pairs or odd:
        raise DataError(f"{file}: expected class names, one a line or as a YAML list"
                        + (f"; {odd[0]!r} is not text, put it in quotes" if odd else ""))
    counts = Counter(name for _, name in pairs)
    if doubled := sorted(name for name, count in counts.items() if count > 1):
        raise DataError(f"{file}: these classes stand twice: {', '.join(doubled)}")
    return dict(pairs)


def read_labels(file: Path, paths: Collection[str], classnames: Sequence[str]) -> dict[str, int]:
    """Return labels by path from a CSV file with the columns `path` and `label` (a class name); an empty label is none.

    Commas, semicolons and tabs, a byte-order mark and any line ends are accepted. Raises one DataError that lists every
    unknown path, unknown class and conflict.
    """
    return checked_labels(file, label_rows(file), paths, classnames, stranger="no such image")


def checked_labels(
    source: object, rows: Iterable[LabelRow], paths: Collection[str], classnames: Sequence[str], *, stranger: str
) -> dict[str, int]:
    """Return labels by path of rows (place, path, class name), where an empty name is no label.

    Raises one DataError that names the source and lists, by place, each path that is none of `paths` (called `stranger`),
    each unknown class and each path of two labels.
    """
    known, label_of = set(paths), {name: label for label, name in enumerate(classnames)}
    labels: dict[str, int] = {}
    faults = []
    for place, path, name in rows:
        if path not in known:
            faults.append(f"{place}: {stranger}: {printable(path)}")
        elif name and name not in label_of:
            faults.append(f"{place}: unknown class {name!r}; {did_you_mean(name, classnames)}")
        elif name and labels.setdefault(path, label_of[name]) != label_of[name]:
            faults.append(f"{place}: {printable(path)} is both {classnames[labels[path]]!r} and {name!r}")
    if faults:
        shown = "\n  ".join(faults[:N_SHOWN]) + ("\n  ..." if len(faults) > N_SHOWN else "")
        raise DataError(f"{source}: {len(faults)} labels are wrong, so that none counts:\n  {shown}")
    return labels


def label_rows(file: Path) -> list[LabelRow]:
    """Return the rows of a CSV file with the columns path and label; raises DataError if it is none."""
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
    if not {"path", "label"} <= set(reader.fieldnames or ()):
        raise DataError(f"{file}: the first line must name the columns path and label, not {header.strip()!r}")
    try:
        return [(f"line {reader.line_num}", row["path"], row["label"].strip()) for row in reader]
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num} is no CSV: {error}") from error
