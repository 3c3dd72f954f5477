"""Stores the query that people are asked until they answer.

Selecting again elsewhere, with other versions or on a GPU, may ask for other images than those that people have already
labeled, since a last bit may differ; so the query is stored.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from active.context import Query
from active.pool import LabelPool
from active.record.certificate import config_hash
from dassl.data.dataset import Dataset
from dassl.utils.errors import DataError
from dassl.utils.files import json_hash, read_json, write_json
from dassl.utils.paths import exists

ANOTHER_FOLDER = "choose another --output-dir, or --overwrite to move it aside"


def stands_on(config: Mapping[str, Any], pool: LabelPool) -> tuple[str, str]:
    """Return hashes of what a query is selected with: the config of the record and the labels so far.

    The first leaves out the number of rounds, which may grow; the second, found in older files, does not.
    """
    rows = pool.settled
    labels = rows.tolist(), pool.labels_of(rows).tolist()
    active = {key: value for key, value in config["ACTIVE"].items() if key != "ROUNDS"}
    fewer, whole = (json_hash([config_hash(tree), *labels]) for tree in ({**config, "ACTIVE": active}, config))
    return fewer, whole


def write_query(path: Path, basis: tuple[str, str], query: Query, dataset: Dataset) -> None:
    """Write a query, in rows of the train split, to a file; `basis` is the value of `stands_on`."""
    paths = [datum.path for datum in dataset.train]
    content: dict[str, Any] = {"stands_on": basis[0], "queried": [paths[row] for row in query.rows.tolist()]}
    for kind in ("pseudo", "mined"):
        rows, labels = getattr(query, f"{kind}_rows").tolist(), getattr(query, f"{kind}_labels").tolist()
        content[kind] = {paths[row]: label for row, label in zip(rows, labels, strict=True)}
    if query.scores is not None:
        content["scores"] = [score if math.isfinite(score) else None for score in query.scores.tolist()]
    if query.approximation:
        content["approximation"] = query.approximation
    write_json(path, content | {"checksum": json_hash(content)})


def read_query(path: Path, basis: tuple[str, str], dataset: Dataset, remedy: str = ANOTHER_FOLDER) -> Query | None:
    """Return the query that `write_query` wrote, in rows of the train split; None if there is none.

    `remedy` says what to do if the basis has changed.
    Raises DataError if the file is damaged, was written under another config or after other labels, or names other images.
    """
    if not exists(path):
        return None
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("checksum", "") != json_hash(content):
        raise DataError(f"{path} does not match its checksum; the file was changed")
    if content["stands_on"] not in basis:
        raise DataError(f"{path} was asked under another config or after other labels than this run has now; {remedy}")
    rows = {kind: _rows(content[kind], dataset, path) for kind in ("queried", "pseudo", "mined")}
    labels = {kind: torch.tensor(list(content[kind].values()), dtype=torch.int64) for kind in ("pseudo", "mined")}
    scores = torch.tensor([math.nan if own is None else own for own in content["scores"]]) if "scores" in content else None
    return Query(rows["queried"], rows["pseudo"], labels["pseudo"], mined_rows=rows["mined"], mined_labels=labels["mined"],
                 scores=scores, approximation=content.get("approximation", {}))


def _rows(paths: Iterable[str], dataset: Dataset, path: Path) -> Tensor:
    if unknown := [name for name in paths if name not in dataset.train_rows]:
        raise DataError(f"{path} names images that are not in the train split, first {unknown[0]!r}")
    return torch.tensor([dataset.train_rows[name] for name in paths], dtype=torch.int64)
