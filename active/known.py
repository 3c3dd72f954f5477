"""Labels known before a run begins: from a table, a Label Studio export, a journal of the page, or the record of another run.

A record counts with what people have answered to its open question, which lies beside it.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from active.oracles.files import answers_in
from active.oracles.label_studio import export_rows
from active.record.folder import journal_path, table_path
from active.record.results import RunResult
from dassl.data.answers import MARK, SKIP, code_of, words, written
from dassl.data.dataset import UNLABELED, Dataset
from dassl.data.known import Known, Names, class_key
from dassl.data.labels import checked_labels
from dassl.data.sheets import LabelRow, label_rows, pairs
from dassl.utils.errors import DataError
from dassl.utils.files import read_json
from dassl.utils.journal import Journal
from dassl.utils.paths import exists, expanded
from dassl.utils.text import printable

N_SHOWN = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """Rows (place, path, class name or word) of a file, and the classes that they refer to, if the file names them."""

    rows: list[LabelRow]
    classnames: tuple[str, ...] = ()


def read_known(file: str, renamed: str, dataset: Dataset) -> dict[str, int]:
    """Return the labels, or other answers, of a file by path, of those images that are in the train split.

    `renamed` is a CSV file with the columns `old` and `new`, class names; an empty new one drops the label. Labels of unknown
    classes are named in the log. "Of no class" and "unsure" do not count where classes were added. Raises DataError for a
    file of another kind, and, listing all, for images with two labels.
    """
    path, words_of = expanded(file), words(dataset.classnames)
    known = Known([datum.path for datum in dataset.train], dataset.classnames, words_of)
    said = _said(path, known, dataset)
    new_names = _renamed(renamed, dataset.classnames)
    rows = [(place, image, _now(name, new_names)) for place, image, name in said.rows if name]
    rows = [row for row in rows if row[2] and known.paths.meant(row[1])]
    _say_gone(path, (name for _, _, name in rows if not known.classes.meant(name)))
    rows = [row for row in rows if known.classes.meant(row[2])]
    answers = checked_labels(path, rows, known, stranger="no such image")
    before = {class_key(new_names.get(class_key(name), name)) for name in said.classnames}
    if said.classnames and not {class_key(name) for name in dataset.classnames} <= before:
        answers = {image: code for image, code in answers.items() if code >= 0 or code == SKIP}
    logger.info("%s: %d of its %d labels are of train images of %s", path, len(answers), len(said.rows), dataset.name)
    return answers


def _said(path: Path, known: Known, dataset: Dataset) -> Said:
    if path.suffix.lower() == ".jsonl":
        return Said(_journaled(path))
    if path.suffix.lower() != ".json":
        return Said(label_rows(path, known))
    if isinstance(read_json(path), list):
        return Said(export_rows(path))
    record = RunResult.read(path)
    names = record.dataset["classnames"]
    answers = {image: written(code_of(answer), names) for image, answer in record.known.items()}
    for round in record.rounds:
        own = (dataset.train_rows.get(image) for image in (*round.queried, *round.audited))  # nobody gave the others
        answers |= {dataset.train[row].path: dataset.classnames[dataset.train[row].label] for row in own
                    if row is not None and dataset.train[row].label != UNLABELED}
        answers |= {image: written(code_of(answer), names) for image, answer in (round.answers | round.corrections).items()}
    now = _waiting(path.parent, len(record.rounds), known, answers)
    corrected = {image for _, name, _ in now for image in known.paths.meant(name)}
    rows = [("the record", image, answer) for image, answer in answers.items() if image not in corrected]
    return Said([*rows, *now], tuple(names))


def _waiting(output: Path, round: int, known: Known, settled: Collection[str]) -> list[LabelRow]:
    """Return what people have answered so far to the question of a round that is in no record yet, in all its parts."""
    rows: list[LabelRow] = []
    part = 0
    while any(map(exists, files := (table_path(output, round, part), journal_path(output, round, part)))):
        table, journal = files
        rows += [row for row in answers_in(table, known, settled) if row[2]] if exists(table) else []
        rows += _journaled(journal)
        part += 1
    return rows


def _journaled(file: Path) -> list[LabelRow]:
    """Return the last answers in a journal of the page, which may be growing."""
    answers = {}
    for number, line in enumerate(Journal(file).read(mends=False), start=1):
        try:
            answers[str(line["path"])] = f"{file.name} line {number}", str(line["path"]), str(line["answer"])
        except (TypeError, KeyError) as error:
            raise DataError(f"{printable(file)} line {number} is no answer of the labeling page") from error
    return [row for row in answers.values() if row[2]]


def _now(name: str, new_names: Mapping[str, str]) -> str:
    """Return what people wrote with the class's new name, even after a word: "!unsure heron"."""
    word, _, behind = name.partition(" ")
    if word.casefold() == MARK + "unsure" and class_key(behind) in new_names:
        return f"{word} {new_names[class_key(behind)]}".strip()
    return new_names.get(class_key(name), name)


def _renamed(file: str, classnames: Sequence[str]) -> Mapping[str, str]:
    """Return new class names by old ones, ignoring case; raises DataError if a new one is not a class."""
    if not file:
        return {}
    path, names = expanded(file), Names(classnames, class_key)
    found = {}
    for place, old, new in pairs(path, ("old", "new")):
        if new and not names.meant(new):
            raise DataError(f"{path} {place}: {printable(new)!r} is not a class of this data set")
        found[class_key(old)] = new
    return found


def _say_gone(path: Path, names: Iterable[str]) -> None:
    if gone := Counter(names):
        shown = ", ".join(f"{printable(name)} ({number})" for name, number in gone.most_common(N_SHOWN))
        logger.warning("%s: %d labels are of classes that are not there and do not count: %s%s; ACTIVE.RENAMED_CLASSES says "
                       "what classes are called now", path, gone.total(), shown, ", ..." if len(gone) > N_SHOWN else "")
