"""The records of many runs as two tables; runs that must not be mixed are refused or reported."""

import contextlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from active.record.folder import REPLACED, environments
from active.record.results import RoundRecord, RunResult
from dassl.config.defaults import SHARED
from dassl.config.setup import ABSENT, Difference, differences
from dassl.utils.errors import ConfigError, DataError, UserError, did_you_mean
from dassl.utils.files import read_json
from dassl.utils.paths import exists, files_below, is_file, resolved
from dassl.utils.run_folder import FAILED, RESULTS

CELLS = "cells.json"  # beside a sweep's runs: the folder and the keys of every cell that was asked for
GROUP = ["dataset", "learner", "backbone", "query_size", "method"]  # what repetitions have in common
KEYS = [*GROUP, "seed"]
RUN = [*KEYS, "status", "folder", "error", "zero_shot", "n_train", "n_classes", "n_rounds"]
ROUND = [*KEYS, *(field.name for field in fields(RoundRecord) if field.name != "metrics"), "share"]
STATUSES = ("done", "unfinished", "failed", "missing")


@dataclass(frozen=True)
class Records:
    """Runs and their rounds; fractions in [0, 1].

    `runs` has a row for each cell: `KEYS`, status (one of `STATUSES`), folder, error ("" for none), zero_shot, n_train,
    n_classes, n_rounds (asked for); NaN where there is no record. `rounds` has a row for each round of a run: `KEYS`, the
    fields of `RoundRecord`, `share`, paid labels of the train split, and a column for each metric. `notes` are sentences
    that a reader of a table must know: on runs of other code, or with other settings.
    """

    runs: pd.DataFrame
    rounds: pd.DataFrame
    notes: list[str]

    def of(self, **values: Any) -> "Records":
        """Return the records whose columns have these values."""
        return Records(*(frame[(frame[list(values)] == pd.Series(values)).all(axis=1)] for frame in (self.runs, self.rounds)),
                       self.notes)

    def repeated(self, *keys: str) -> "Iterator[tuple[tuple, Records]]":
        """Yield the values of these keys and the records that have them, in the order of the values."""
        for values, _ in self.runs.groupby(list(keys), sort=True):
            yield values, self.of(**dict(zip(keys, values, strict=True)))


def load_records(paths: Iterable[str | Path]) -> Records:
    """Return the records of all runs below some folders.

    The cells that a sweep was asked for are listed in its `cells.json`; for runs that are in no such list, all combinations of
    the data sets, methods and seeds that occur for a learner, backbone and query size are expected. A damaged record counts as
    a failed cell; folders that --overwrite has moved aside are left out. Raises DataError if there is no run, and UserError if
    one cell was run twice or the runs of a method on a data set differ in other keys than the seed, or in images or weights.
    """
    paths = [Path(path) for path in paths]
    if absent := [path for path in paths if not exists(path)]:
        raise DataError(f"{absent[0]}: no such file or folder")
    given, folders = ([path for path in paths if is_file(path) == wanted] for wanted in (True, False))
    files = _files(folders)
    results, damaged, keys = _read([*given, *files.named(RESULTS)])
    failures, odd = _whole(failure_of, files.named(FAILED))
    failed = {resolved(file.parent): kept["error"] for file, kept in failures.items()} | damaged
    lists, odd_lists = _whole(_cells, files.named(CELLS))
    asked = {folder: keys for cells in (*lists.values(), *map(_asked_above, paths)) for folder, keys in cells.items()}
    rows = _rows(results, asked | keys, failed)
    if not rows:
        reasons = "".join(f"\n  {line}" for line in (*(f"{folder}: {error}" for folder, error in failed.items()), *files.notes))
        raise DataError(f"there is no {RESULTS} below {', '.join(map(str, paths))}{reasons}")
    _check_repetitions(results)
    cells = [*rows.values(), *(_holes(rows.values()) if rows.keys() - asked.keys() else [])]
    runs = pd.DataFrame(cells, columns=RUN).sort_values(KEYS, ignore_index=True)
    rounds = [row for folder, result in results.items() for row in _round_rows(rows[folder], result)]
    notes = [*odd, *odd_lists, *_notes(list(results.values())), *_notes_on_folders(files, rows, failed)]
    known = SHARED["TEST.METRICS"].default
    metrics = dict.fromkeys([*known, *(name for row in rounds for name in row if name not in ROUND)])
    return Records(runs, pd.DataFrame(rounds, columns=[*ROUND, *metrics]), notes)


def check_metric(records: Records, metric: str) -> None:
    """Raise ConfigError unless a metric is a known one, or one that some of the runs have measured."""
    known = [name for name in records.rounds if name not in ROUND]
    if metric not in known:
        raise ConfigError(f"--metric: no run has measured {metric!r}; {did_you_mean(metric, known)}")


def keys_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `KEYS` in a whole config. A sampler that starts with known labels counts as another method."""
    label, active = config.get("LABEL", {}), config["ACTIVE"]
    method = f"{active['SAMPLER']} + known labels" if active.get("KNOWN_LABELS") else active["SAMPLER"]
    return {"dataset": label.get("DATASET") or config["DATASET"]["NAME"],
            "learner": label.get("LEARNER") or config["TRAINER"]["NAME"], "backbone": config["MODEL"]["BACKBONE"]["NAME"],
            "query_size": str(active["QUERY_SIZE"]), "method": label.get("METHOD") or method, "seed": config["SEED"]}


@dataclass(frozen=True)
class _Files:
    """The files of records and sweeps at any depth below some folders.

    `aside` are the records that --overwrite has moved aside; `notes` has a sentence for each folder that cannot be read.
    """

    kept: list[Path]
    aside: list[Path]
    notes: list[str]

    def named(self, name: str) -> list[Path]:
        return [file for file in self.kept if file.name == name]


def _files(folders: Iterable[Path]) -> _Files:
    files = _Files([], [], [])
    for path in folders:
        found, faults = files_below(path, (RESULTS, FAILED, CELLS))
        files.notes.extend(f"A folder is left out: {fault}." for fault in faults)
        for file in found:
            is_aside = any(map(REPLACED.fullmatch, file.relative_to(path).parts))
            (files.aside if is_aside else files.kept).append(file)
    return files


def _read(files: Iterable[Path]) -> tuple[dict[Path, RunResult], dict[Path, str], dict[Path, dict[str, Any]]]:
    """Return the records of files by folder, what is wrong with the damaged ones, and the keys of these, if readable."""
    results, damaged, keys = {}, {}, {}
    for file in files:
        folder = resolved(file.parent)
        try:
            results[folder] = RunResult.read(file)
        except DataError as error:
            damaged[folder] = str(error)
            with contextlib.suppress(AttributeError, DataError, KeyError, TypeError):  # such a file may hold anything
                found = keys_of(read_json(file)["config"])
                if _are_keys(found):
                    keys[folder] = found
    return results, damaged, keys


def _whole(read: Callable[[Path], Any], files: Iterable[Path]) -> tuple[dict[Path, Any], list[str]]:
    """Return what files hold, and a note for each that cannot be read so: one bad file hides no run."""
    found, notes = {}, []
    for file in files:
        try:
            found[file] = read(file)
        except DataError as error:
            notes.append(f"A file is left out: {error}.")
    return found, notes


def failure_of(file: Path) -> dict[str, Any]:
    """Return a sweep's note of a failed cell (`kind`, `error`, hashes); raises DataError if the file is not one."""
    kept = read_json(file)
    if not isinstance(kept, dict) or not isinstance(kept.get("error"), str) or not kept["error"]:
        raise DataError(f"{file} is not a sweep's note of a failed cell")
    return kept


def _asked_above(path: Path) -> dict[Path, dict[str, Any]]:
    """Return the cells below a path from lists in folders above it, where a file of that name may not be a sweep's."""
    here = resolved(path)
    found, _ = _whole(_cells, [folder / CELLS for folder in here.parents])
    return {folder: keys for cells in found.values() for folder, keys in cells.items() if folder.is_relative_to(here)}


def _cells(file: Path) -> dict[Path, dict[str, Any]]:
    """Return the keys of each cell that a sweep was asked for, by folder; raises DataError if the file is not such a list."""
    try:
        cells = {resolved(file.parent / cell["folder"]): {key: cell[key] for key in KEYS}
                 for cell in read_json(file)["cells"]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is not a sweep's list of cells") from error
    if not all(map(_are_keys, cells.values())):
        raise DataError(f"{file} is not a sweep's list of cells")
    return cells


def _are_keys(values: dict[str, Any]) -> bool:
    return all(type(value) is (int if key == "seed" else str) for key, value in values.items())


def _rows(
    results: dict[Path, RunResult], asked: dict[Path, dict[str, Any]], failed: dict[Path, str]
) -> dict[Path, dict[str, Any]]:
    """Return the row of each run, and of each cell that was asked for but not run, by folder."""
    rows = {folder: _run_row(folder, result) for folder, result in results.items()}
    known = {tuple(row[key] for key in KEYS) for row in rows.values()}
    for folder, keys in asked.items():
        cell = tuple(keys[key] for key in KEYS)
        if folder not in rows and cell not in known:
            known.add(cell)
            rows[folder] = keys | {"status": "missing", "folder": str(folder), "error": ""}
    for folder in failed.keys() & rows.keys():
        if rows[folder]["status"] != "done":
            rows[folder] |= {"status": "failed", "error": failed[folder]}
    return rows


def _run_row(folder: Path, result: RunResult) -> dict[str, Any]:
    return keys_of(result.config) | {
        "status": "done" if result.finished else "failed" if result.failure else "unfinished", "folder": str(folder),
        "error": result.failure or result.stopped, "zero_shot": result.zero_shot.get("accuracy"),
        "n_train": result.dataset["n_train"], "n_classes": result.dataset["n_classes"],
        "n_rounds": result.config["ACTIVE"]["ROUNDS"]}


def _round_rows(run: dict[str, Any], result: RunResult) -> Iterator[dict[str, Any]]:
    for record in result.rounds:
        own = {name: value for name, value in vars(record).items() if name != "metrics"}
        yield {key: run[key] for key in KEYS} | own | {"share": record.n_paid / run["n_train"]} | record.metrics


def _holes(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a missing cell for each combination of data set, method and seed without a run, if each of the three has one."""
    frame = pd.DataFrame(rows)
    for values, table in frame.groupby(["learner", "backbone", "query_size"]):
        there = set(zip(table.dataset, table.method, table.seed, strict=True))
        for cell in product(*(sorted(table[key].unique()) for key in ("dataset", "method", "seed"))):
            if cell not in there:
                yield dict(zip(("learner", "backbone", "query_size", "dataset", "method", "seed"), (*values, *cell),
                               strict=True)) | {"status": "missing", "folder": "", "error": ""}


def _check_repetitions(results: dict[Path, RunResult]) -> None:
    """Raise UserError if a cell was run twice, or if the runs of one group are not repetitions of one another."""
    first: dict[tuple, tuple[Path, RunResult]] = {}
    seen: dict[tuple, Path] = {}
    for folder, result in results.items():
        keys = keys_of(result.config)
        group = tuple(keys[name] for name in GROUP)
        cell = (*group, keys["seed"])
        if cell in seen:
            raise UserError(f"{folder} and {seen[cell]} hold runs of the same cell: {_said(keys)}; name one of them, or tell "
                            "them apart by LABEL.METHOD, LABEL.LEARNER or LABEL.DATASET")
        seen[cell] = folder
        other_folder, other = first.setdefault(group, (folder, result))
        changed = [str(difference) for difference in differences(other.config, result.config) if difference.key != "SEED"]
        changed += [f"certificate of the {what}" for what in _other_inputs(other, result)]
        changed += ["the labels that were known before"] if result.known != other.known else []
        if changed:
            raise UserError(f"{folder} is not a repetition of {other_folder}; tell them apart by LABEL.METHOD or LABEL.DATASET:"
                            + "".join(f"\n  {line}" for line in changed))


def _other_inputs(one: RunResult, other: RunResult) -> list[str]:
    """Return which of images and weights differ between two runs on one data set; few shots are drawn by the seed."""
    drawn = one.config["DATASET"].get("NUM_SHOTS", -1) > 0 and one.config["SEED"] != other.config["SEED"]
    compared = ("weights",) if drawn else ("data", "weights")
    return [what for what in compared if one.certificate.get(what) != other.certificate.get(what)]


def _notes(results: Sequence[RunResult]) -> list[str]:
    """Return what differs between the runs of one table, apart from what an experiment varies."""
    notes = []
    codes = {code for result in results for code in result.certificate.get("code", "unknown").split("+")}
    if len(codes) > 1:
        notes.append(f"The runs were made by {len(codes)} versions of the code.")
    for what in sorted({what for result in results for what in result.environment} - {"commit"}):
        found = sorted({version for result in results for version in environments(result.environment, what)})
        if len(found) > 1:
            notes.append(f"The runs were made with {what} {', '.join(found)}.")
    by_table: dict[tuple, RunResult] = {}
    for result in results:  # of all query sizes: the rows `full` and zero-shot are in the table of each
        keys = keys_of(result.config)
        first = by_table.setdefault((keys["dataset"], keys["learner"], keys["backbone"]), result)
        pair = _pair(keys_of(first.config), keys)
        notes += [f"{pair} on {keys['dataset']} differ in their {what}." for what in _other_inputs(first, result)]
        notes += [f"{pair} differ in {difference}." for difference in differences(first.config, result.config)
                  if not _is_varied(difference)]
    return list(dict.fromkeys(notes))


def _is_varied(difference: Difference) -> bool:
    """Tell whether an experiment varies a key: the seed, samplers, and the learners that these bring along."""
    return (difference.key == "SEED" or difference.key.startswith("ACTIVE.")
            or ABSENT in (difference.old, difference.new))


def _notes_on_folders(files: _Files, rows: Container[Path], failed: dict[Path, str]) -> list[str]:
    """Return notes on what is in no table: failures without keys, runs moved aside by --overwrite, unreadable folders."""
    notes = [f"{folder} failed and is in no table: {failed[folder]}" for folder in sorted(failed) if folder not in rows]
    aside = sorted({file.parent for file in files.aside if file.name == RESULTS})
    moved = [f"Runs that --overwrite has moved aside are left out: {len(aside)}, first {aside[0]}."] if aside else []
    return files.notes + notes + moved


def _pair(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return a name for two runs: their methods, and their query sizes where only these tell them apart."""
    names = [keys["method"] if one["method"] != other["method"] else f"{keys['method']} at {keys['query_size']}"
             for keys in (one, other)]
    return " and ".join(names)


def _said(keys: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in keys.items())
