"""The query that people are asked, kept until they answer.

Selecting again gives the same query on the same machine. On another one, with other versions or on a GPU, a last bit may
differ, and then the labels that people wrote down would be those of images that nobody asks for.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from yacs.config import CfgNode

from active.certificate import config_hash
from active.context import Query
from active.output import query_path
from active.pool import LabelPool
from dassl.config.setup import as_dict
from dassl.data.dataset import Dataset
from dassl.utils.errors import DataError
from dassl.utils.files import json_hash, read_json, write_json


def write_query(cfg: CfgNode, round: int, query: Query, dataset: Dataset, pool: LabelPool) -> None:
    """Write a query, in rows of the train split, to the output folder's file of the round."""
    paths = [datum.path for datum in dataset.train]
    content = {"stands_on": _stands_on(cfg, pool), "queried": [paths[row] for row in query.rows.tolist()]}
    for kind in ("pseudo", "mined"):
        rows, labels = getattr(query, f"{kind}_rows").tolist(), getattr(query, f"{kind}_labels").tolist()
        content[kind] = {paths[row]: label for row, label in zip(rows, labels, strict=True)}
    write_json(query_path(Path(cfg.OUTPUT_DIR), round), content | {"checksum": json_hash(content)})


def read_query(cfg: CfgNode, round: int, dataset: Dataset, pool: LabelPool) -> Query | None:
    """Return the query that `write_query` wrote, in rows of the train split; None if there is none.

    Raises DataError if the file is damaged, was written under another config or after other labels, or names other images.
    """
    path = query_path(Path(cfg.OUTPUT_DIR), round)
    if not path.exists():
        return None
    content = read_json(path)
    if not isinstance(content, dict) or content.pop("checksum", "") != json_hash(content):
        raise DataError(f"{path} does not match its checksum; the file was changed")
    if content["stands_on"] != _stands_on(cfg, pool):
        raise DataError(f"{path} was asked under another config or after other labels than {cfg.OUTPUT_DIR} has now; choose "
                        "another --output-dir, or --overwrite to move it aside")
    rows = {kind: _rows(content[kind], dataset, path) for kind in ("queried", "pseudo", "mined")}
    labels = {kind: torch.tensor(list(content[kind].values()), dtype=torch.int64) for kind in ("pseudo", "mined")}
    return Query(rows["queried"], rows["pseudo"], labels["pseudo"], mined_rows=rows["mined"], mined_labels=labels["mined"])


def _stands_on(cfg: CfgNode, pool: LabelPool) -> str:
    """Return a hash of what a query is selected with: the config and the labels so far."""
    return json_hash([config_hash(as_dict(cfg)), pool.labeled.tolist(), pool.labels.tolist()])


def _rows(paths: Iterable[str], dataset: Dataset, path: Path) -> Tensor:
    if unknown := [name for name in paths if name not in dataset.train_rows]:
        raise DataError(f"{path} names images that are not in the train split, first {unknown[0]!r}")
    return torch.tensor([dataset.train_rows[name] for name in paths], dtype=torch.int64)
