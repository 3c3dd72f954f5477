"""A task that can be drawn: 240 points of the plane in four classes of unequal size, and a nearest-mean learner.

A point (x, y) is the unit feature (x, y, 1) / |(x, y, 1)|, so that points near each other in the plane are near for a
sampler. Texts lie beside the centers of their classes, as CLIP's do. The loop is the project's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from active.build import carry_out
from active.record.results import RunResult
from active.registry import SAMPLERS
from dassl.config.setup import setup_config
from dassl.data.dataset import Dataset, Datum

MIDDLES = np.array([[-0.55, 0.35], [0.5, 0.45], [-0.25, -0.5], [0.6, -0.45]])
COUNTS, SPREADS = (110, 70, 40, 20), (0.24, 0.2, 0.17, 0.12)
TEXTS = MIDDLES + np.array([[0.2, 0.1], [-0.2, 0.15], [0.15, 0.2], [-0.1, -0.2]])
SCALE = 40.0  # of logits
N_ROUNDS, N_QUERY = 4, 6


@dataclass(frozen=True)
class Prediction:
    """What the loop reads; see `active.plan.Predicted`. Negative texts lie opposite the others' center."""

    features: Tensor
    logits: Tensor
    text_features: Tensor
    negative_text_features: Tensor


class NearestMean:
    """A trainer, see `active.plan.Trainer`: its model is the mean feature of each class; one without a label keeps its text."""

    has_negative_texts = True

    def __init__(self, features: Tensor, texts: Tensor):
        self.features, self.texts = features, texts

    def zero_shot(self) -> Tensor:
        return self.texts

    def fit(self, rows: Tensor, labels: Tensor, round: int, mined: tuple[Tensor, Tensor] | None = None) -> Tensor:
        rows, labels = (rows, labels) if mined is None else (torch.cat([rows, mined[0]]), torch.cat([labels, mined[1]]))
        means = self.texts.clone()
        for label in labels.unique().tolist():
            means[label] = self.features[rows[labels == label]].mean(0)
        return F.normalize(means, dim=1)

    def predict(self, model: Tensor, split: str) -> Prediction:
        others = F.normalize(model.sum(0) - model, dim=1)
        features = self.features if split == "train" else self.features[:0]
        return Prediction(features, SCALE * features @ model.T, model, others)

    def save(self, model: Tensor, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"model": model}, path)

    def load(self, path: Path) -> Tensor:
        return load_file(path)["model"]


def points() -> tuple[np.ndarray, np.ndarray]:
    """Return the places [240, 2] and the labels [240] of all points, always the same."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(len(COUNTS)), COUNTS)
    places = MIDDLES[labels] + np.array(SPREADS)[labels, None] * rng.normal(size=(len(labels), 2))
    order = rng.permutation(len(labels))
    return places[order], labels[order]


def run_on_plane(sampler: str, output: Path) -> RunResult:
    """Return the record of a run of four rounds of six labels, which is written to a folder."""
    places, labels = points()
    items = tuple(Datum(f"{row:03d}", int(label)) for row, label in enumerate(labels))
    dataset = Dataset("Plane", output, items, (), (), tuple(f"class {label}" for label in range(len(COUNTS))))
    pairs = {"OUTPUT_DIR": output, "ACTIVE.ROUNDS": N_ROUNDS, "ACTIVE.QUERY_SIZE": N_QUERY, "ACTIVE.SAMPLER": sampler}
    cfg = setup_config([], [(key, str(value)) for key, value in pairs.items()], [SAMPLERS])
    cfg.freeze()
    return carry_out(cfg, dataset, NearestMean(lifted(places), lifted(TEXTS)))


def lifted(places: np.ndarray) -> Tensor:
    """Return places [n, 2] of the plane as unit features [n, 3]."""
    rows = torch.from_numpy(places).float()
    return F.normalize(torch.cat([rows, torch.ones(len(rows), 1)], dim=1), dim=1)
