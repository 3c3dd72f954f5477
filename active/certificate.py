"""The certificate of a run: a hash of each thing that its numbers follow from, and nothing of where or when it ran."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm
from yacs.config import CfgNode

from active.features import list_digest
from dassl.config.defaults import NOT_PART_OF_A_RUN
from dassl.config.merge import dotted_keys, lookup
from dassl.config.setup import plugin_hash
from dassl.data.dataset import SPLITS, Dataset
from dassl.utils.environment import PROJECT
from dassl.utils.errors import DataError
from dassl.utils.files import json_hash, lock, read_json, remove_leftovers, sha256_of, write_json

logger = logging.getLogger(__name__)

FOLDERS = ("active", "dassl", "datasets", "trainers")
FILES = [PROJECT / "train.py", *(path for name in FOLDERS for path in sorted((PROJECT / name).rglob("*.py")))]
CODE = {path.relative_to(PROJECT).as_posix(): sha256_of(path) for path in FILES}  # as imported, whatever becomes of the files


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all keys of a recorded config that change what a run computes, and their values."""
    tree = CfgNode(dict(config))
    return json_hash({key: lookup(tree, key) for key in dotted_keys(tree) if key not in NOT_PART_OF_A_RUN})


def code_hash(plugins: Sequence[str] = ()) -> str:
    """Return the SHA-256 of the code of this process: the project's `.py` files, by relative path, and loaded plug-ins.

    All of it is as it was when it was imported, so that a process that lives for hours names what it runs.
    """
    return json_hash([CODE, [digest for digest in map(plugin_hash, plugins) if digest]])


def data_hash(dataset: Dataset, folder: Path, files: Iterable[Path] = (), *, n_threads: int = 1) -> str:
    """Return the SHA-256 of class names, template, and of path, label and bytes of every image, by split.

    `files`, such as descriptions, count by their bytes. Those of the images are read once: their hashes are kept in `folder`,
    bound to paths, sizes and times of change.
    """
    labels = [[datum.label for datum in dataset.split(split)] for split in SPLITS]
    content = [_content(dataset, split, folder, n_threads) for split in SPLITS if dataset.split(split)]
    return json_hash([dataset.name, dataset.classnames, dataset.template, labels, content, *map(sha256_of, files)])


def _content(dataset: Dataset, split: str, folder: Path, n_threads: int) -> str:
    """Return the SHA-256 of paths and bytes of the images of a split, read from `folder` or computed and kept there."""
    key = list_digest(dataset, split)
    path = folder / f"{dataset.name}_{split}_{key[:16]}.json"
    with lock(folder / f".{path.stem}.lock", wait=True):
        remove_leftovers(folder, path.name)
        kept = _kept(path)
        if kept.get("files") != key or kept.get("checksum") != json_hash([key, kept.get("sha256")]):
            digest = _bytes_hash(dataset, split, n_threads)
            kept = {"files": key, "sha256": digest, "checksum": json_hash([key, digest])}
            write_json(path, kept)
    return kept["sha256"]


def _kept(path: Path) -> dict[str, Any]:
    try:
        kept = read_json(path) if path.exists() else {}
    except DataError as error:
        logger.warning("%s; it is made anew", error)
        return {}
    return kept if isinstance(kept, dict) else {}


def _bytes_hash(dataset: Dataset, split: str, n_threads: int) -> str:
    files = dataset.files(split)
    with ThreadPoolExecutor(max(1, n_threads)) as threads:
        hashes = list(tqdm(threads.map(sha256_of, files), f"hashing {split}", len(files), unit="img", leave=False,
                           disable=None))
    return json_hash([[datum.path, digest] for datum, digest in zip(dataset.split(split), hashes, strict=True)])
