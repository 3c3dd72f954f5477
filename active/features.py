"""The cache of frozen features: extracted once, in one file, bound to all that they depend on."""

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from yacs.config import CfgNode

from dassl.data.dataset import Dataset
from dassl.data.transforms import Preprocessing
from dassl.utils.errors import UserError
from dassl.utils.files import atomic_path, lock, remove_leftovers

logger = logging.getLogger(__name__)

Key = dict[str, Any]


@dataclass(frozen=True)
class FeatureBank:
    """Unit-norm features of the frozen image tower, float32 [N, D] in the order of a split, and what they are of."""

    features: Tensor
    key: Key


def cache_folder(cfg: CfgNode) -> Path:
    """Return where features and hashes of the images are kept, made if absent; UserError unless it can be written."""
    folder = Path(cfg.CACHE_DIR or Path(cfg.DATASET.ROOT) / ".cache").expanduser()
    hint = "CACHE_DIR names another folder for features and hashes of the images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; {hint}") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {folder}; {hint}")
    return folder


def bank_key(weights: str, preprocessing: Preprocessing, dataset: Dataset, split: str, precision: str, device: str) -> Key:
    """Return all that the features of a split depend on: weights, preprocessing, file list, precision and device of the tower.

    `device` is its type, "cpu" or "cuda": they round differently.

    A file counts by its relative path, size and time of change, so a moved data root keeps its cache and a changed image
    does not.
    """
    return {"weights": weights, "size": list(preprocessing.size), "mean": list(preprocessing.mean),
            "std": list(preprocessing.std), "interpolation": preprocessing.interpolation,
            "decoding": asdict(preprocessing.decoding),
            "dataset": dataset.name, "split": split, "files": list_digest(dataset, split), "precision": precision,
            "device": device}


def list_digest(dataset: Dataset, split: str) -> str:
    """Return a SHA-256 of the relative path, size and time of change of each file of a split, in its order."""
    digest = hashlib.sha256()
    for datum, path in zip(dataset.split(split), dataset.files(split), strict=True):
        status = path.stat()
        digest.update(repr((datum.path, status.st_size, status.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def load_bank(folder: Path, key: Key, extract: Callable[[], Tensor]) -> FeatureBank:
    """Return the bank of a key from its file in `folder`, or of `extract()`, [N, D], which is then stored there.

    A file that is damaged or holds another key is said so and made anew. Of two processes that want the same bank one
    extracts and the other waits. Raises UserError if the folder cannot be written.
    """
    path = bank_path(folder, key)
    with lock(folder / f".{path.stem}.lock", wait=True):
        remove_leftovers(folder, path.name)
        features = _read(path, key)
        if features is None:
            features = extract().contiguous()
            with atomic_path(path) as temporary:
                save_file({"features": features}, temporary, metadata={"bank": _stated(key, features)})
    return FeatureBank(features, key)


def bank_path(folder: Path, key: Key) -> Path:
    """Return the file of a key: readable in front, a digest of the whole key behind."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{key['dataset']}_{key['split']}_{digest}.safetensors"


def _read(path: Path, key: Key) -> Tensor | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata, features = file.metadata() or {}, file.get_tensor("features")
    except (OSError, SafetensorError) as error:
        logger.warning("the feature cache %s is damaged (%s) and is made anew", path, error)
        return None
    if features.dtype != torch.float32 or metadata.get("bank") != _stated(key, features):
        logger.warning("the feature cache %s does not hold what its name says and is made anew", path)
        return None
    return features


def _stated(key: Key, features: Tensor) -> str:
    """Return what a file says of itself: its key and the CRC-32 of the features. One text, so that files repeat exactly."""
    return json.dumps({"key": key, "crc32": zlib.crc32(features.numpy().data)}, sort_keys=True)
