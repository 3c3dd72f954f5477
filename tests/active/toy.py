"""A toy task for tests of the loop: Gaussian classes as frozen features, and a learner that is the nearest class mean."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from yacs.config import CfgNode

from active.record.recorders import RECORDERS
from active.record.results import RunResult
from active.registry import SAMPLERS
from dassl.config.setup import setup_config
from dassl.data.dataset import Dataset, Datum
from dassl.utils.files import json_hash

N_TRAIN, N_TEST, N_CLASSES, WIDTH, SCALE = 60, 40, 5, 8, 20.0


@dataclass(frozen=True)
class ToyPrediction:
    """What the loop reads of a prediction."""

    features: Tensor
    logits: Tensor
    text_features: Tensor
    negative_text_features: Tensor | None = None


class ToyTrainer:
    """Class means of the labeled features; a class without a label keeps its text.

    `stop` breaks off the n-th call of a method, (method, n). With `negative_texts` it stands for the DualPrompt learner.
    """

    def __init__(self, features: dict[str, Tensor], texts: Tensor, stop: tuple[str, int] | None = None,
                 negative_texts: Tensor | None = None):
        self.features = features
        self.texts = texts
        self.stop = stop
        self.negative_texts = negative_texts
        self.has_negative_texts = negative_texts is not None
        self.n_calls = {"zero_shot": 0, "fit": 0, "save": 0, "load": 0, "predict": 0}
        self.fitted: list[tuple] = []
        self.mined: list[tuple | None] = []

    def zero_shot(self) -> Tensor:
        self._called("zero_shot")
        return self.texts

    def fit(self, rows: Tensor, labels: Tensor, round: int, mined: tuple[Tensor, Tensor] | None = None) -> Tensor:
        self._called("fit")
        self.fitted.append((rows, labels, round))
        self.mined.append(mined)
        rows, labels = (rows, labels) if mined is None else (torch.cat([rows, mined[0]]), torch.cat([labels, mined[1]]))
        means = self.texts.clone()
        for label in labels.unique().tolist():
            means[label] = self.features["train"][rows[labels == label]].mean(0)
        return F.normalize(means, dim=1)

    def predict(self, model: Tensor, split: str) -> ToyPrediction:
        self._called("predict")
        return ToyPrediction(self.features[split], SCALE * self.features[split] @ model.T, model, self.negative_texts)

    def save(self, model: Tensor, path: Path) -> None:
        self._called("save")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"model": model}, path)

    def load(self, path: Path) -> Tensor:
        self._called("load")
        return load_file(path)["model"]

    def _called(self, method: str) -> None:
        if self.stop == (method, self.n_calls[method]):
            raise KeyboardInterrupt
        self.n_calls[method] += 1


def toy_task(n_train: int = N_TRAIN) -> tuple[Dataset, dict[str, Tensor], Tensor]:
    """Return a data set without files, its features by split, and text features near the class centers."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(N_CLASSES, WIDTH))
    labels = {"train": rng.integers(N_CLASSES, size=n_train), "test": rng.integers(N_CLASSES, size=N_TEST)}
    features = {split: _unit(centers[truth] + 0.9 * rng.normal(size=(len(truth), WIDTH))) for split, truth in labels.items()}
    items = {split: tuple(Datum(f"{split}/{i:03d}.png", int(label)) for i, label in enumerate(truth))
             for split, truth in labels.items()}
    names = tuple(f"class {label}" for label in range(N_CLASSES))
    dataset = Dataset("Toy", Path("nowhere"), items["train"], (), items["test"], names)
    return dataset, features, _unit(centers + 0.8 * rng.normal(size=centers.shape))


def toy_config(output: Path, **values: object) -> CfgNode:
    """Return a frozen config of 4 rounds of 6 random labels; `values` are its keys with "__" for a dot."""
    keys = {"OUTPUT_DIR": output, "ACTIVE__ROUNDS": 4, "ACTIVE__QUERY_SIZE": 6} | values
    cfg = setup_config([], [(key.replace("__", "."), str(value)) for key, value in keys.items()], [SAMPLERS, RECORDERS])
    cfg.freeze()
    return cfg


def record_of(result: RunResult) -> list[dict]:
    """Return the rounds as dictionaries without seconds and memory, which differ between two identical runs."""
    measured = ("seconds", "peak_memory_mb")
    return [{key: value for key, value in dataclasses.asdict(record).items() if key not in measured}
            for record in result.rounds]


def edit(path: Path, change: Callable[[dict], object], to: Path | None = None) -> None:
    """Write a record with changed content and a matching checksum, to its own path or another."""
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    (to or path).write_text(json.dumps(content | {"checksum": json_hash(content)}))


def cut_back(path: Path, n_rounds: int) -> None:
    """Cut the record of a finished run down to that of a run that stopped after some rounds."""
    result = RunResult.read(path)
    result.status, result.rounds = "running", result.rounds[:n_rounds]
    result.write(path)


def _unit(rows: np.ndarray) -> Tensor:
    return F.normalize(torch.from_numpy(rows).float(), dim=1)
