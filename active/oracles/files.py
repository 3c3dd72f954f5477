"""People as the oracle: a query is written as files, and the run goes on once they are filled in.

A round's files are in `queries/` of the output folder:

- `round_NNN.csv`, whose column `label` people fill with class names, or with `!skip`, `!none` or `!unsure`;
- `round_NNN.html`, the images with the model's guesses, in one self-contained file (`active.oracles.contact_sheet`);
- `round_NNN_tasks.json` and `label_config.xml`, to be imported into Label Studio (`active.oracles.label_studio`);
- `round_NNN_query.json`, the query, for the run itself (`active.oracles.asked`);
- `round_NNN_export.json`, put there by people: Label Studio's JSON export, instead of or in addition to the CSV file.
"""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from active.context import Query
from active.oracles.asked import ANOTHER_FOLDER, read_query, write_query
from active.oracles.contact_sheet import Guesses, contact_sheet
from active.oracles.label_studio import export_rows, label_config, tasks
from active.oracles.oracle import ORACLES, Oracle, Question, Setting, largest
from active.record.folder import query_path, table_path
from dassl.data.answers import MARK, WORDS, words
from dassl.data.dataset import Dataset
from dassl.data.known import Known
from dassl.data.labels import checked_labels
from dassl.data.sheets import LabelRow, label_rows, sheet
from dassl.utils.errors import WaitingForLabels
from dassl.utils.files import write_json, write_text
from dassl.utils.paths import exists
from dassl.utils.text import printable

logger = logging.getLogger(__name__)

N_GUESSES = 3
SKIPPED = MARK + "skip"
HINT = f"label: a class name, or {', '.join(MARK + word for word in WORDS)}"


class FileOracle(Oracle):
    """Asks people for the labels that the data set does not have, through files in the output folder."""

    def __init__(self, setting: Setting, conflicts: str = "error"):
        super().__init__(setting.labels, setting.budget)
        self._conflicts = conflicts
        self._dataset, self._output = setting.dataset, setting.output
        self._words = words(setting.dataset.classnames)

    def asked(self, round: int, part: int, basis: tuple[str, str]) -> Query | None:
        table, before = (table_path(self._output, round, own).name for own in (part, max(part - 1, 0)))
        remedy = f"undo what was changed in {before} since: a row in {table} corrects it; or {ANOTHER_FOLDER}"
        return read_query(query_path(self._output, round, part), basis, self._dataset, remedy if part else ANOTHER_FOLDER)

    def ask(self, question: Question, rows: Tensor) -> dict[int, int]:
        """Return what people wrote into the files of a round, by row.

        If the round has no CSV file yet, it and the other files are written. An export also holds the tasks of earlier
        rounds: its answers for settled rows do not count. The CSV file's answers for rows that were answered before, in a
        round or before the run, correct those. Raises WaitingForLabels until every row [n] has an answer, and DataError,
        listing all faults, if the files name an unknown class, an image that was not asked, or two answers to one image:
        then none of them counts. With `conflicts` majority several answers are opinions, each paid for, and the majority
        decides.
        """
        write_query(query_path(self._output, question.round, question.part), question.basis, question.query, self._dataset)
        table, train = table_path(self._output, question.round, question.part), self._dataset.train
        paths, settled, before = ([train[row].path for row in own.tolist()] for own in (
            rows, question.settled, self.answered_before.nonzero().flatten()))
        settled += before
        if not exists(table):
            _write(table, self._dataset, question, rows)
        known = Known([*paths, *before], self._dataset.classnames, self._words)
        said, n_further, undecided = answers_in(table, known, settled), 0, []
        if self._conflicts == "majority":
            paid = set(paths) - {train[row].path for row in question.audit.tolist()}
            said, n_further, undecided = majority(said, known, paid)
        answers = checked_labels(table.with_suffix(""), said, known, stranger="was not asked")
        if missing := [*(path for path in paths if path not in answers), *(path for path in undecided if path not in paths)]:
            first, shown = printable(missing[0]), table.with_suffix(".html")
            raise WaitingForLabels(
                f"round {question.round}: {len(missing)} of {len(paths)} images wait for a label, first {first}; fill the "
                f"column 'label' of {table} (the images: {shown}) and give the same command again, without --overwrite")
        logger.info("round %d: %d labels read from %s", question.round, len(paths), table.parent)
        self.n_further += n_further
        return {self._dataset.train_rows[path]: code for path, code in answers.items()}


def restore(output: Path, round: int, part: int, names: Mapping[str, str]) -> None:
    """Write the CSV file of a part of a round that has been labeled; `names` is what people wrote, by path."""
    write_text(table_path(output, round, part), sheet([("path", "label"), *names.items()]))


@ORACLES.register("file", asks_people=True, restore=restore)
def file(setting: Setting, *, conflicts: Literal["error", "majority"] = "error") -> FileOracle:
    """Return the oracle that asks people by files. Different answers to an image are an `error`, or the `majority` decides."""
    return FileOracle(setting, conflicts)


def majority(rows: Sequence[LabelRow], known: Known, paid: Collection[str]) -> tuple[list[LabelRow], int, list[str]]:
    """Return the rows with the majority's answer to each image, the number of further paid opinions, and undecided images.

    Without a majority, an image waits for a third opinion; after three or more, people count as unsure. Opinions on images of
    `paid` are paid for, except skips. Rows that mean nothing, or several things, stay as they are. The order of the rows does
    not matter.
    """
    opinions: dict[str, list[LabelRow]] = {}
    for row in rows:
        paths, names = known.meant(*row[1:])
        if len(paths) == len(names) == 1:
            opinions.setdefault(paths[0], []).append((row[0], paths[0], names[0]))
    found = [row for row in rows if any(len(meant) != 1 for meant in known.meant(*row[1:]))]
    n_further, undecided = 0, []
    for path, own in opinions.items():
        counts = Counter(name for _, _, name in own)
        (first, n_first), *others = counts.most_common()
        if others and others[0][1] == n_first:
            first = MARK + "unsure" if len(own) > 2 else ""
        undecided += [] if first else [path]
        found.append((own[0][0], path, first))
        n_further += max(len(own) - counts[SKIPPED] - 1, 0) if path in paid else 0
    return found, n_further, undecided


def answers_in(table: Path, known: Known, settled: Collection[str]) -> list[LabelRow]:
    """Return the rows of a CSV file, and those of the export beside it that are not of settled images."""
    rows = [(f"{table.name} {place}", path, name) for place, path, name in label_rows(table, known)]
    export = table.with_name(f"{table.stem}_export.json")
    rows += [row for row in (export_rows(export) if exists(export) else []) if row[1] not in settled]
    meant = [known.meant(*row[1:]) for row in rows]
    answered = {paths for paths, names in meant if names and names != (SKIPPED,)}
    return [row for row, (paths, names) in zip(rows, meant, strict=True)
            if names != (SKIPPED,) or paths not in answered]  # a label outweighs skips


def _write(table: Path, dataset: Dataset, question: Question, rows: Tensor) -> None:
    """Write all files of a question's rows [n]; the CSV file comes last, as a sign that the others are complete."""
    paths, scores = [dataset.train[row].path for row in rows.tolist()], question.scores
    guesses = [[(dataset.classnames[label], share) for label, share in own] for own in largest(question.guess(rows), N_GUESSES)]
    write_text(table.with_suffix(".html"), contact_sheet(
        f"{dataset.name}: round {question.round}, {len(paths)} images", [dataset.place(path) for path in paths], paths, guesses,
        [scores.get(row) for row in rows.tolist()]))
    write_json(table.with_name(f"{table.stem}_tasks.json"), tasks(paths, guesses, f"round {question.round}"))
    write_text(table.with_name("label_config.xml"), label_config(dataset.classnames))
    write_text(table, _table(paths, guesses))


def _table(paths: Sequence[str], guesses: Sequence[Guesses]) -> str:
    """Return the CSV text: number (as on the contact sheet), path (the image's id), label (empty), the guesses.

    The head of an empty last column says what may be written instead of class names.
    """
    header = ["number", "path", "label", *(f"guess {place + 1}" for place in range(len(guesses[0]))), HINT]
    return sheet([header, *([number, path, "", *(f"{name} ({share:.0%})" for name, share in own), ""]
                            for number, (path, own) in enumerate(zip(paths, guesses, strict=True), start=1))])
