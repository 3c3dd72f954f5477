"""What a run is made of, and what one round hands to the next."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from active.audit import Reserved
from active.devices import CPU
from active.oracles.oracle import Oracle
from active.pool import LabelPool
from active.record.folder import prompts_path, selector_path
from active.record.recorders import Recorder
from active.registry import ChosenSampler
from active.relations import Known
from dassl.data.dataset import Dataset
from dassl.evaluation.evaluate import Metric

ASKS_A_LABEL = 2  # images that may be asked per label of the budget where skipped ones are replaced


class Predicted(Protocol):
    """What the loop reads of a prediction: float32 on the CPU, features perhaps float16, rows in the order of the split.

    A model with negative prompts also has `negative_text_features` [C, D], a linear one with a bias has `bias` [C], and
    one whose classes lie elsewhere among features has `class_directions` [C, D]. Texts are those of the logits, see
    `active.context`.
    """

    features: Tensor  # [N, D], unit norm
    logits: Tensor  # [N, C]
    text_features: Tensor  # [C, D]


class Trainer(Protocol):
    """What the loop asks of a trainer; the model itself is opaque to it.

    If people were unsure of a label and `ACTIVE.UNSURE` is half, `fit` also takes `weights` [M] of the labels.

    A trainer whose models have negative prompts sets `has_negative_texts = True`, and its `fit` also takes `mined`: rows and
    labels to train on beside the labeled ones. One whose logits are not a product of features and class features sets
    `is_linear = False`. One that learns from unlabeled images has `leave_out`, and never reads the rows given there. A model
    may have `losses`: the mean loss of each epoch, perhaps with `rates`. One whose models are not on the CPU has `device`.
    """

    def zero_shot(self) -> Any: ...
    def fit(self, rows: Tensor, labels: Tensor, round: int) -> Any: ...
    def predict(self, model: Any, split: str) -> Predicted: ...
    def save(self, model: Any, path: Path) -> None: ...
    def load(self, path: Path) -> Any: ...


@dataclass(frozen=True)
class Run:
    """All that a run is made of. With a `selector`, its models select and the trainer's are reported.

    `samplers` are the one of round 0 and the one of all other rounds; `n_query` labels are asked for in each of `n_rounds`
    rounds; models are stored in the folder `output`. `reserved` images are for the audit alone. With `watches`, predictions
    of the pool are compared from round to round; the run ends once their kappa reaches `stop`, unless that is 0. `known` are
    answers, by path, known before it begins. If it `refills`, a round asks other images in place of skipped ones. A class
    that people were unsure of is a label with `unsure_weight`, or none. `scores` is `LOG.SCORES`; `relations` is the
    folder of `active.relations`; `device` is `ACTIVE.DEVICE`.
    """

    dataset: Dataset
    trainer: Trainer
    selector: Trainer | None
    samplers: tuple[ChosenSampler, ChosenSampler]
    oracle: Oracle
    metrics: Mapping[str, Metric]
    n_query: int
    n_rounds: int
    seed: int
    recorders: Sequence[Recorder]
    output: Path
    reserved: Reserved
    watches: bool = False
    stop: float = 0.0
    known: Mapping[str, int] = field(default_factory=dict)
    refills: bool = False
    unsure_weight: float = 0.0
    scores: str = "none"
    relations: Path | None = None
    device: str = "cpu"

    @property
    def chooser(self) -> Trainer:
        """The trainer whose models select."""
        return self.selector or self.trainer

    def sampler(self, round: int, pool: LabelPool) -> ChosenSampler:
        """Return the sampler that selects in a round: that of round 0 as long as nothing is labeled."""
        n_labeled = len(pool.labeled)
        return self.samplers[1 if round and n_labeled else 0].at(round, n_labeled, len(self.dataset.classnames))

    def audit_rows(self, round: int, part: int = 0) -> Tensor:
        """Return the rows that are labeled for the audit in a round, along with the first part of its query."""
        return torch.from_numpy(self.reserved.asked(round).astype("int64"))[: 0 if part else None]

    def model_path(self, round: int) -> Path:
        """Return the file of the model that selects after a round."""
        return (selector_path if self.selector else prompts_path)(self.output, round)


@dataclass
class State:
    """What one round hands to the next."""

    config: dict[str, Any]  # of the record
    zero_shot: Predicted  # of the train split
    pool: LabelPool
    sampler: ChosenSampler  # of the round, in all of its parts
    model: Any = None  # of the learner that selects; None means zero-shot CLIP
    predicted: tuple[Any, Predicted] | None = None  # the last model that predicted the train split
    guesses: dict[int, Tensor] = field(default_factory=dict)  # labels [N] that the reported model of each round predicts
    n_labeled: dict[int, int] = field(default_factory=dict)  # by round
    seconds: dict[str, float] = field(default_factory=dict)
    losses: dict[str, Sequence[float]] = field(default_factory=dict)
    device: torch.device = CPU  # where samplers compute; only they see tensors that lie there
    related: Known = field(default_factory=dict)  # what is known of the features that a sampler last asked about

    def timed(self, step: str, function: Callable, *arguments: Any, **named: Any) -> Any:
        """Return the function's result and add its seconds to those of the step in this round."""
        start = time.perf_counter()
        answer = function(*arguments, **named)
        self.seconds[step] = round(self.seconds.get(step, 0.0) + time.perf_counter() - start, 3)
        return answer

    def predict(self, trainer: Trainer, model: Any) -> Predicted:
        """Return a model's predictions of the train split, made once per model."""
        if self.predicted is None or self.predicted[0] is not model:
            self.predicted = None  # so that two are never in memory
            self.predicted = model, trainer.predict(model, "train")
        return self.predicted[1]

    def fitted(self, step: str, trainer: Trainer, round: int, **mined: Any) -> Any:
        """Return a model fitted to all labels so far, and note its seconds and losses."""
        weights = {} if (own := self.pool.weights) is None else {"weights": own}
        model = self.timed(step, trainer.fit, self.pool.labeled, self.pool.labels, round, **weights, **mined)
        if losses := getattr(model, "losses", ()):
            self.losses[step] = losses
        return model
