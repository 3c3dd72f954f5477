"""The tables in a folder, and their splits: a person's own tables, and those that Hugging Face writes.

Recognized are `push_to_hub`'s Parquet files (`data/train-00000-of-00001-0123.parquet`), `save_to_disk`'s folders
(`dataset_dict.json`, `state.json`), and `metadata.csv` (or .jsonl, .parquet) beside its images; and WebDataset's shards.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from dassl.data.columnar import ARROW, PARQUET, Columnar
from dassl.data.folders import FILE, Tree
from dassl.data.shards import SHARD, Shard
from dassl.data.tables import LINES, SHEETS, Table, read_lines, read_sheet
from dassl.utils.errors import DataError, listed
from dassl.utils.files import read_json
from dassl.utils.paths import exists, is_file, is_folder, reason

SUFFIXES = (*SHEETS, *LINES, PARQUET, SHARD)  # of tables that are recognized
WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
         "test": "test", "testing": "test"}  # of splits, in names of files, folders and columns
WORD = re.compile(rf"(?<![a-z])({'|'.join(WORDS)})(?![a-z])")
METADATA = "metadata"  # the name of Hugging Face's tables beside images
STATE, DICTIONARY = "state.json", "dataset_dict.json"

Files = Mapping[str, list[Path]]  # by split; "" if no name says which


def read_table(file: Path) -> Table:
    """Return the table in a file, recognized by its suffix; raises DataError if it is not a table."""
    suffix = file.suffix.lower()
    if suffix in (PARQUET, ARROW):
        return Columnar(file)
    if suffix == SHARD:
        return Shard(file)
    if suffix in (*SHEETS, *LINES):
        return (read_sheet if suffix in SHEETS else read_lines)(file)
    raise DataError(f"{file} is not a table that can be read, going by its suffix ({', '.join((*SUFFIXES, ARROW))})")


def split_word(text: str) -> str:
    """Return the split that a path or text names: train, val or test; "" if none. The last word counts."""
    found = WORD.findall(text.lower())
    return WORDS[found[-1]] if found else ""


def table_files(root: Path, pattern: str = "") -> Files:
    """Return the tables in a folder by split. `pattern` names one, or several with `*`, if they are not recognized.

    Raises DataError if there is none, or if it is not clear which ones belong together.
    """
    if pattern:
        return _by_split(root, _matching(root, pattern))
    if exists(root / DICTIONARY) or exists(root / STATE):
        return _saved(root)
    paths = _tables(root)
    paths = [path for path in paths if PurePosixPath(path).stem.lower() == METADATA] or paths
    if not paths:
        raise DataError(f"{root} holds no table ({', '.join(SUFFIXES)}, or what Hugging Face's save_to_disk writes)")
    _check_one_set(root, paths)
    return _by_split(root, paths)


def holds_tables(root: Path) -> bool:
    """Tell whether a folder holds a table that is recognized."""
    return exists(root / DICTIONARY) or exists(root / STATE) or bool(_tables(root))


def _tables(root: Path) -> list[str]:
    return [path for path in Tree(root).paths(FILE) if path.lower().endswith(SUFFIXES)]


def _matching(root: Path, pattern: str) -> list[str]:
    try:
        paths = [path.relative_to(root).as_posix() for path in sorted(root.glob(pattern)) if is_file(path)]
    except (ValueError, NotImplementedError) as error:  # an absolute path, or not a pattern
        raise DataError(f"{pattern!r} names no file below {root}: {reason(error)}") from error
    if not paths:
        raise DataError(f"{root} holds no file {pattern}")
    return paths


def _saved(root: Path) -> Files:
    """Return the data files of a folder written by `save_to_disk`, which may also hold other files."""
    if exists(root / STATE):
        state = read_json(root / STATE)
        return {split_word(str(state.get("_split") or "")): _saved_files(root)}
    content = read_json(root / DICTIONARY)
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, list) or not splits or not all(is_folder(root / str(name)) for name in splits):
        raise DataError(f"{root / DICTIONARY} must name the splits, each a folder beside it")
    return _united((_split_of(root, str(name)), _saved_files(root / str(name))) for name in splits)


def _saved_files(folder: Path) -> list[Path]:
    state = read_json(folder / STATE)
    try:
        files = [folder / own["filename"] for own in state["_data_files"]]
    except (TypeError, KeyError) as error:
        raise DataError(f"{folder / STATE} does not name the files of a data set") from error
    if missing := [file for file in files if not is_file(file)]:
        raise DataError(f"{folder / STATE} names {missing[0].name}, which is not there")
    return files


def _by_split(root: Path, paths: Iterable[str]) -> Files:
    return _united((split_word(path), [root / path]) for path in paths)


def _split_of(root: Path, name: str) -> str:
    if not (split := split_word(name)):
        raise DataError(f"{root} has the split {name!r}, which is none of train, validation and test")
    return split


def _united(pairs: Iterable[tuple[str, list[Path]]]) -> Files:
    found: dict[str, list[Path]] = {}
    for split, files in pairs:
        found.setdefault(split, []).extend(files)
    return found


def _check_one_set(root: Path, paths: list[str]) -> None:
    """Raise DataError if tables do not look like the splits and parts of one data set."""
    unnamed = [path for path in paths if not split_word(path)]
    folders = {WORD.sub("", str(PurePosixPath(path).parent).lower()) for path in paths}
    kinds = {PurePosixPath(path).suffix.lower() for path in paths}
    if len(paths) > 1 and (len(folders) > 1 or len(kinds) > 1 or (unnamed and not _are_parts(unnamed, paths))):
        raise DataError(listed(f"{root} holds several tables; name one, or several with *, in DATASET.TABLE.FILE", paths))


def _are_parts(unnamed: list[str], paths: list[str]) -> bool:
    """Tell whether files are the numbered parts of one table, such as part-0.parquet."""
    return unnamed == paths and len({re.sub(r"\d+", "", path) for path in paths}) == 1
