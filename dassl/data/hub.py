"""Data sets of the Hugging Face hub, by repository name: fetched once, then read without a network."""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from dassl.data.table_files import WORDS, Files, holds_tables, table_files
from dassl.utils.errors import ConfigError, DataError, did_you_mean, first_line
from dassl.utils.files import lock
from dassl.utils.paths import exists, is_file
from dassl.utils.text import printable

CARD = "README.md"  # its head says which files belong to which split
MAIN = "main"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repository:
    """A data set on the hub: `name` is "owner/name", `revision` a branch, tag or commit, `subset` one of several in it."""

    name: str
    revision: str = MAIN
    subset: str = ""

    @property
    def folder(self) -> str:
        """The name of its folder below the data root."""
        revision = f"@{self.revision}" if self.revision != MAIN else ""
        return "--".join(filter(None, (*self.name.split("/"), self.subset))).replace("/", "--") + revision.replace("/", "--")

    @property
    def address(self) -> str:
        return f"{_endpoint()}/datasets/{self.name}/tree/{self.revision}"


def fetched(root: Path, repository: Repository) -> Path:
    """Return the folder of a repository below `root`, fetching it if it is not there; it appears only once complete.

    The hub is not contacted if the folder is there. Raises ConfigError if no repository can have this name, and DataError,
    which says what to put where, if it cannot be fetched.
    """
    try:
        huggingface_hub.utils.validate_repo_id(repository.name)
    except HFValidationError as error:
        raise ConfigError(f"DATASET.HFDATASET.REPO is {repository.name!r}, but must be the name of a data set on the hub, "
                          f"owner/name: {first_line(error)}") from error
    folder = root / repository.folder
    if exists(folder):
        return folder
    partial = root / f".{repository.folder}.partial"
    with lock(root / f".{repository.folder}.lock", wait=True):
        if not exists(folder):
            _fetch(repository, partial, folder)
            shutil.rmtree(partial / ".cache", ignore_errors=True)
            os.replace(partial, folder)
    return folder


def files_of(folder: Path, repository: Repository) -> Files | None:
    """Return the tables of a repository by split, according to its card or else to their names; None if it has none."""
    if (wanted := _of_card(folder, repository)) is None:
        place = folder / repository.subset
        return table_files(place) if holds_tables(place) else None
    found = {split: [path for pattern in patterns for path in sorted(folder.glob(pattern)) if is_file(path)]
             for split, patterns in wanted.items()}
    if missing := [split for split, files in found.items() if not files]:
        raise DataError(f"{folder} holds no file of the split {missing[0]!r} ({', '.join(wanted[missing[0]])}); remove the "
                        "folder to fetch it again")
    return found


def _fetch(repository: Repository, partial: Path, folder: Path) -> None:
    try:
        api = huggingface_hub.HfApi(endpoint=_endpoint())
        info = api.dataset_info(repository.name, revision=repository.revision, files_metadata=True)
        sizes = {own.rfilename: own.size for own in info.siblings or ()}
        if CARD in sizes:
            api.hf_hub_download(repository.name, CARD, repo_type="dataset", revision=info.sha, local_dir=partial)
        wanted = [name for name in sizes if _is_wanted(name, sizes, _of_card(partial, repository), repository.subset)]
        logger.info("fetching %d files of %s to %s", len(wanted), repository.address, folder)
        api.snapshot_download(repository.name, repo_type="dataset", revision=info.sha, local_dir=partial, allow_patterns=wanted)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DataError(f"{_endpoint()} has no data set {repository.name} of revision {repository.revision} that you may read "
                        "(DATASET.HFDATASET.REPO, REVISION); of one that is not public, log in by `hf auth login`") from error
    except OSError as error:  # network and HTTP errors are subclasses of it
        raise _not_had(repository, folder, first_line(error)) from error
    except Exception as error:  # errors of the network library that huggingface_hub uses
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise
        raise _not_had(repository, folder, first_line(error)) from error
    short = [name for name in wanted if sizes[name] is not None and not _has_size(partial / name, sizes[name])]
    if short:
        raise _not_had(repository, folder, f"{short[0]} is not whole")


def _not_had(repository: Repository, folder: Path, why: str) -> DataError:
    return DataError(f"cannot fetch {repository.name} from {_endpoint()}: {why}; give the same command again with a network, "
                     f"or download the files of {repository.address} elsewhere and put them into {folder}")


def _has_size(file: Path, n_bytes: int) -> bool:
    return is_file(file) and file.stat().st_size == n_bytes


def _is_wanted(name: str, names: Mapping[str, Any], of_card: Mapping[str, Sequence[str]] | None, subset: str) -> bool:
    """Tell whether a file is read: one that the card names, else Parquet where there is any, else all."""
    if name == CARD:
        return True
    if of_card is not None:
        return any(fnmatch(name, pattern) for patterns in of_card.values() for pattern in patterns)
    own = {other for other in names if not subset or other.startswith(f"{subset}/")}
    tables = {other for other in own if other.endswith(".parquet")}
    return name in (tables or own) and not name.startswith(".")


def _of_card(folder: Path, repository: Repository) -> dict[str, list[str]] | None:
    """Return the patterns of files by split that the card of a repository gives for a subset; None if it gives none.

    Raises ConfigError if the card has several subsets and none is chosen, or if it lacks the chosen one.
    """
    subsets = {str(own.get("config_name", "default")): own for own in _configs(folder / CARD) if own.get("data_files")}
    if not subsets:
        return None
    defaults = [name for name, own in subsets.items() if own.get("default") or name == "default" or len(subsets) == 1]
    chosen = repository.subset or next(iter(defaults), "")
    if chosen not in subsets:
        raise ConfigError(f"{repository.name} holds several data sets; name one in DATASET.HFDATASET.SUBSET: "
                          f"{did_you_mean(chosen, subsets)}")
    return _patterns(subsets[chosen]["data_files"], repository)


def _patterns(data_files: Any, repository: Repository) -> dict[str, list[str]]:
    """Return patterns by split from a card's entry: a pattern, several, or several with their splits."""
    found: dict[str, list[str]] = {}
    for own in data_files if isinstance(data_files, list) else [data_files]:
        split, paths = (own.get("split", ""), own.get("path", [])) if isinstance(own, dict) else ("", own)
        if split and str(split).lower() not in WORDS:
            logger.warning("%s: the split %s is none of train, validation and test, and is left out", repository.name, split)
            continue
        paths = list(map(str, paths if isinstance(paths, list) else [paths]))
        if odd := [path for path in paths if path.startswith("/") or ".." in path.split("/") or "://" in path]:
            raise DataError(f"{repository.address} names the file {printable(odd[0])}, which is none of its own")
        found.setdefault(WORDS.get(str(split).lower(), ""), []).extend(paths)
    return found


def _configs(card: Path) -> list[dict[str, Any]]:
    """Return the data sets in the head of a card; [] if there is no readable head."""
    if not is_file(card):
        return []
    head = card.read_text("utf-8", "replace").removeprefix("\ufeff").split("---\n")
    try:
        content = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except yaml.YAMLError:
        return []
    configs = content.get("configs") if isinstance(content, dict) else None
    return [own for own in configs if isinstance(own, dict)] if isinstance(configs, list) else []


def _endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
