"""The output folder of a run: the names of its files, and whether the record in it may be continued."""

import logging
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from active.record.certificate import config_hash
from active.record.results import RoundRecord, RunResult
from dassl.config.merge import leaves
from dassl.config.setup import ABSENT, Difference, differences
from dassl.data.dataset import Dataset
from dassl.utils.environment import environment
from dassl.utils.errors import ConfigError, UserError
from dassl.utils.files import lock, remove_leftovers, sha256_of
from dassl.utils.paths import exists, expanded, is_file, is_folder, reason
from dassl.utils.run_folder import CURVE, FAILED, LOCK, LOG, PROMPTS, QUERIES, RECORDERS, RESULTS, TENSORBOARD
from dassl.utils.text import printable

logger = logging.getLogger(__name__)

FILES = (RESULTS, LOG, CURVE)
LEFT_BY_RUNS = (*FILES, LOCK, f"{LOCK}.held", FAILED, PROMPTS, QUERIES, TENSORBOARD, RECORDERS)
REPLACED = re.compile(r".+\.\d{8}-\d{6}-\d{6}")  # the names that `move_aside` gives
SELECTION = "selection"  # what an environment calls the device of the picks, if that is not the CPU alone
AND = " and "  # joins the versions in a record that was continued by another version


def prompts_path(output: Path, round: int) -> Path:
    """Return the file with the prompts at the end of a round."""
    return output / PROMPTS / f"round_{round:03d}.safetensors"


def selector_path(output: Path, round: int) -> Path:
    """Return the file with the prompts of `ACTIVE.SELECTOR_TRAINER` at the end of a round."""
    return output / PROMPTS / f"round_{round:03d}_selector.safetensors"


def query_path(output: Path, round: int, part: int = 0) -> Path:
    """Return the file with the query that people are asked in a part of a round, see `ACTIVE.REFILL`."""
    return _question_path(output, round, part, "_query.json")


def journal_path(output: Path, round: int, part: int = 0) -> Path:
    """Return the file with the answers given in the labeling page in a part of a round, one per line."""
    return _question_path(output, round, part, "_answers.jsonl")


def scores_path(output: Path, round: int, part: int = 0) -> Path:
    """Return the CSV file of the sampler's scores in a part of a round, written if `LOG.SCORES` asks for it."""
    return _question_path(output, round, part, "_scores.csv")


def table_path(output: Path, round: int, part: int = 0) -> Path:
    """Return the CSV file that people fill in a part of a round."""
    return _question_path(output, round, part, ".csv")


def _question_path(output: Path, round: int, part: int, ending: str) -> Path:
    return output / QUERIES / f"round_{round:03d}{f'_part_{part + 1}' if part else ''}{ending}"


def clean(output: Path) -> None:
    """Remove half-written files of killed processes; the caller must hold the folder's lock.

    Raises UserError if something that is not a file, such as a pipe, has the name of a file that a run writes or reads.
    """
    for name in FILES:
        if exists(output / name) and not is_file(output / name):
            raise UserError(f"{output / name} is not a file, as a run needs it; move it away, or choose another --output-dir")
    for folder in (output, output / PROMPTS, output / QUERIES, output / TENSORBOARD, output / RECORDERS):
        remove_leftovers(folder)


def check_output(folder: str) -> None:
    """Raise ConfigError for an OUTPUT_DIR that cannot be a folder: an empty one, or a ~ that no shell has replaced."""
    if not folder.strip() or folder.startswith("~"):
        meant = f", such as {expanded(folder)}" if folder.startswith("~/") else ""
        raise ConfigError(f"OUTPUT_DIR is {folder!r}, but must be the path of a folder{meant}")


def move_aside(output: Path) -> None:
    """Rename an output folder to one that says when it was replaced.

    Raises UserError if a process is working in it, or if it holds anything that a run does not write, such as somebody's
    images or the data root.
    """
    if not exists(output):
        return
    if not is_folder(output):
        raise UserError(f"{output} is not a folder, so --overwrite does not move it aside; choose another --output-dir")
    foreign = [name for name in _listed(output) if name not in LEFT_BY_RUNS and not name.endswith(".tmp")]
    if foreign:
        raise UserError(f"{output} holds {printable(foreign[0])}, which no run has written, so --overwrite does not move it "
                        "aside; choose another --output-dir")
    with lock(output / LOCK, wait=False):
        try:
            output.rename(output.absolute().with_name(f"{output.name}.{datetime.now():%Y%m%d-%H%M%S-%f}"))
        except (OSError, ValueError) as error:  # ValueError: the root folder has no name
            raise UserError(f"cannot move {output} aside: {reason(error)}") from error


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {reason(error)}") from error


def open_result(
    output: Path, config: dict[str, Any], dataset: Dataset, certificate: Mapping[str, str]
) -> RunResult:
    """Return the record in an output folder, or a new one of a config as `as_dict` gives it.

    Raises UserError with the differences if the folder holds a run with another config, data or weights. A record
    made by other code or in another environment is continued: the log says so, and the record then names both.
    """
    linear = {"linear": certificate["linear"]} if "linear" in certificate else {}
    new = RunResult(config, environment() | linear, {
        "name": dataset.name, "n_train": len(dataset.train), "n_test": len(dataset.test),
        "n_classes": len(dataset.classnames), "classnames": list(dataset.classnames)}, certificate=dict(certificate))
    path = output / RESULTS
    if not exists(path):
        return new
    old = RunResult.read(path)
    check_same_config(old, new.config, path)
    _take_rounds(old, new.config)
    if old.dataset != new.dataset:
        raise UserError(f"{path} holds a run on another data set: {_of(old)}, not {_of(new)}; undo what has changed there, or "
                        f"give another --output-dir, with ACTIVE.KNOWN_LABELS {path} if its labels should count there")
    if not old.finished:
        _continue_certificate(old, new, path)
        _continue_environment(old.environment, new.environment, path)
    return old


def is_done(result: RunResult, config: dict[str, Any]) -> bool:
    """Tell whether a run is finished, given its config, which may ask for more rounds than it has."""
    return result.finished and not _more_rounds(result, config)


def check_same_config(old: RunResult, config: dict[str, Any], path: Path) -> None:
    """Raise UserError, showing each key, if a record was made with another config than this one.

    A different number of rounds is not another config if it is larger, or if the record is finished and holds them all.
    """
    now = config
    if old.finished or _more_rounds(old, config):
        now = config | {"ACTIVE": config["ACTIVE"] | {"ROUNDS": old.config["ACTIVE"]["ROUNDS"]}}
    if changed := [_with_remedy(difference, old) for difference in differences(old.config, now)]:
        raise UserError(f"{path} holds a run of another config; choose another --output-dir, or --overwrite to move it "
                        "aside:\n  " + "\n  ".join(changed))


def _with_remedy(difference: Difference, old: RunResult) -> str:
    """Return a line `KEY: old -> new`; for a key that the record lacks and whose default differs, with the value to give."""
    if difference.key in leaves(old.config) or difference.old == ABSENT:
        return str(difference)
    return f"{difference} (the record is older than this key; {difference.key} {difference.old} goes on with it)"


def file_hashes(output: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files below an output folder, by their path in it."""
    return {file.relative_to(output).as_posix(): sha256_of(file) for file in files}


def check_files(records: Iterable[RoundRecord], output: Path) -> None:
    """Raise UserError if files that rounds wrote beside the record are missing or have changed since."""
    wrong = [output / name for record in records for name, digest in record.files.items()
             if not is_file(output / name) or sha256_of(output / name) != digest]
    if wrong:
        raise UserError(f"{output / RESULTS} names {len(wrong)} files that are missing or not as they were written, "
                        f"first {wrong[0]}; running it again with --overwrite moves the folder aside")


def environments(environment: Mapping[str, str], what: str) -> list[str]:
    """Return the versions, devices or numbers of threads that made a record; several if it was continued elsewhere."""
    absent = {"linear": "torch", SELECTION: "cpu"}.get(what, "none")
    return [absent if found == "none" else found for found in environment.get(what, absent).split(AND)]


def linear_used(environment: Mapping[str, str]) -> str:
    """Return whose product of linear layers and pairs the last part of a run had, as `MODEL.LINEAR` calls it."""
    return environments(environment, "linear")[-1]


def selected_on(environment: Mapping[str, str]) -> str:
    """Return where the picks of the last part of a run were computed, "cpu" or "cuda"."""
    return environments(environment, SELECTION)[-1]


def note_selection(result: RunResult, device: str) -> None:
    """Name where picks are computed from now on in a record, unless that is the CPU alone."""
    before = environments(result.environment, SELECTION) if result.rounds else []
    if before[-1:] != [device]:
        if before:
            logger.warning("picks were computed on %s so far, and are on %s from now on", before[-1], device)
        before.append(device)
    result.environment.pop(SELECTION, None)  # of a run that had no round yet, perhaps another device
    if before != ["cpu"]:
        result.environment[SELECTION] = AND.join(before)


def made_by(result: RunResult, code: str) -> bool:
    """Return whether the code with this hash made the last part of a run; True for records without a certificate."""
    return not result.certificate or result.certificate.get("code", "").endswith(code)


def _more_rounds(result: RunResult, config: dict[str, Any]) -> bool:
    return config["ACTIVE"]["ROUNDS"] > result.config["ACTIVE"]["ROUNDS"]


def _take_rounds(old: RunResult, config: dict[str, Any]) -> None:
    """Let a run continue to the number of rounds that a config asks for: no round depends on how many follow."""
    if _more_rounds(old, config):
        old.config["ACTIVE"]["ROUNDS"] = config["ACTIVE"]["ROUNDS"]
        if "config" in old.certificate:
            old.certificate["config"] = config_hash(old.config)
        old.status = "running"


def _continue_certificate(old: RunResult, new: RunResult, path: Path) -> None:
    if not old.certificate:
        return
    for what, name in (("data", "images, labels or descriptions"), ("weights", "backbone weights")):
        if old.certificate.get(what) != new.certificate.get(what):
            raise UserError(f"{path} holds a run on other {name} (see its certificate); choose another --output-dir, or "
                            "--overwrite to move it aside")
    before, now = old.certificate.get("code", ""), new.certificate.get("code", "")
    if not made_by(old, now):
        logger.warning("the code has changed since %s was begun; its certificate names both versions", path)
        old.certificate["code"] = f"{before}+{now}"
    if linear_used(old.environment) != linear_used(new.environment):
        old.certificate["linear"] = "+".join(own.certificate.get("linear", "torch") for own in (old, new))


def _continue_environment(old: dict[str, str], new: dict[str, str], path: Path) -> None:
    """Add the current versions, devices and numbers of threads to a record that was begun with others."""
    changed = [what for what in (old | new) if what != SELECTION and environments(old, what)[-1] != environments(new, what)[-1]]
    if changed:
        logger.warning("%s goes on in another environment and names both: %s", path, ", ".join(
            f"{what} {environments(old, what)[-1]} -> {environments(new, what)[-1]}" for what in changed))
    old |= {what: AND.join([*environments(old, what), *environments(new, what)]) for what in changed}


def _of(result: RunResult) -> str:
    return ", ".join(f"{key} {value}" for key, value in result.dataset.items() if key != "classnames")
