"""People as oracle: a query is written as files, and the run goes on once they are filled in.

A round's files stand in `queries/` of the output folder:

- `round_NNN.csv`, whose column `label` people fill with class names;
- `round_NNN.html`, the images with the model's guesses, in one file without outside parts (`active.oracles.contact_sheet`);
- `round_NNN_tasks.json` and `label_config.xml`, to be imported into Label Studio (`active.oracles.label_studio`);
- `round_NNN_query.json`, what is asked, for the run itself (`active.oracles.asked`);
- `round_NNN_export.json`, put there by people: Label Studio's JSON export, in place of or beside the filled CSV file.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from active.context import Query
from active.oracles.asked import read_query, write_query
from active.oracles.contact_sheet import Guesses, contact_sheet
from active.oracles.label_studio import export_rows, label_config, tasks
from active.oracles.oracle import ORACLES, Oracle, Question, Setting
from active.record.folder import query_path, table_path
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


class FileOracle(Oracle):
    """Asks people for the labels that the data set does not have, by files in the output folder."""

    def __init__(self, setting: Setting):
        super().__init__(setting.labels, setting.budget)
        self._dataset, self._output = setting.dataset, setting.output

    def asked(self, round: int, basis: tuple[str, str]) -> Query | None:
        return read_query(query_path(self._output, round), basis, self._dataset)

    def ask(self, question: Question, rows: Tensor) -> list[int]:
        """Return the labels of rows [n]; raises as `ask_people` does."""
        write_query(query_path(self._output, question.round), question.basis, question.query, self._dataset)
        return ask_people(self._output, question.round, self._dataset, rows.tolist(), lambda: question.guess(rows),
                          labeled=question.labeled.tolist())


@ORACLES.register("file", answers=("class",), asks_people=True)
def file(setting: Setting) -> FileOracle:
    """Return the oracle that asks people by files."""
    return FileOracle(setting)


def ask_people(
    output: Path, round: int, dataset: Dataset, rows: Sequence[int], guess: Callable[[], Tensor], *, labeled: Sequence[int] = ()
) -> list[int]:
    """Return the labels that people gave to rows [n] of the train split in the files of a round.

    Without a CSV file of the round, it and its companions are written; `guess()` gives the model's probabilities [n, C].
    An export also holds the tasks of earlier rounds: what it says of rows that are `labeled` already does not count.
    Raises WaitingForLabels until every image has a label, and DataError, listing all faults, if the files name an unknown
    class, an image that was not asked, or two labels of one: then no label of them counts.
    """
    table = table_path(output, round)
    paths = [dataset.train[row].path for row in rows]
    if not exists(table):
        _write(table, round, dataset, paths, guess())
    known = Known(paths, dataset.classnames)
    answers = _answers(table, known, {dataset.train[row].path for row in labeled})
    labels = checked_labels(table.with_suffix(""), answers, known, stranger="was not asked")
    missing = [path for path in paths if path not in labels]
    if missing:
        raise WaitingForLabels(
            f"round {round}: {len(missing)} of {len(paths)} images wait for a label, first {printable(missing[0])}; fill the "
            f"column 'label' of {table} (the images: {table.with_suffix('.html')}) and give the same command again, without "
            "--overwrite")
    logger.info("round %d: %d labels read from %s", round, len(paths), table.parent)
    return [labels[path] for path in paths]


def write_table(file: Path, names: Mapping[str, str]) -> None:
    """Write the CSV file of a round that has been labeled: class names by path."""
    write_text(file, sheet([("path", "label"), *names.items()]))


def _answers(table: Path, known: Known, labeled: Collection[str]) -> list[LabelRow]:
    rows = [(f"{table.name} {place}", path, name) for place, path, name in label_rows(table, known)]
    export = table.with_name(f"{table.stem}_export.json")
    exported = export_rows(export) if exists(export) else []
    return rows + [row for row in exported if row[1] not in labeled]


def _write(table: Path, round: int, dataset: Dataset, paths: Sequence[str], probs: Tensor) -> None:
    """Write all files of a query; the CSV file last, as the sign that the others are there."""
    guesses = [_guesses(row, dataset.classnames) for row in probs]
    write_text(table.with_suffix(".html"), contact_sheet(
        f"{dataset.name}: round {round}, {len(paths)} images", [dataset.root / path for path in paths], paths, guesses))
    write_json(table.with_name(f"{table.stem}_tasks.json"), tasks(paths, guesses, f"round {round}"))
    write_text(table.with_name("label_config.xml"), label_config(dataset.classnames))
    write_text(table, _table(paths, guesses))


def _guesses(probs: Tensor, classnames: Sequence[str]) -> Guesses:
    """Return the largest probabilities [C] of an image with their class names, ties in the order of the classes."""
    order = probs.argsort(descending=True, stable=True)[:N_GUESSES].tolist()
    return [(classnames[label], float(probs[label])) for label in order]


def _table(paths: Sequence[str], guesses: Sequence[Guesses]) -> str:
    """Return the CSV text: number (as on the contact sheet), path (the image's id), label (empty), the guesses."""
    header = ["number", "path", "label", *(f"guess {place + 1}" for place in range(len(guesses[0])))]
    return sheet([header, *([number, path, "", *(f"{name} ({share:.0%})" for name, share in own)]
                            for number, (path, own) in enumerate(zip(paths, guesses, strict=True), start=1))])
