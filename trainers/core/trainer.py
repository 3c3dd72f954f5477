"""Fit and predict for any learner."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from dassl.engine.fit import fit, rows_in_parts
from dassl.engine.predict import Stacked, behind, in_parts
from dassl.utils.errors import UserError
from dassl.utils.files import atomic_path
from dassl.utils.large import room, taken
from dassl.utils.seeding import rng_for
from trainers.core.calibration import Labeled, held_out_temperature
from trainers.core.inputs import Batch, Reads, Step, batch_rows, by_places
from trainers.core.model_file import digest, read_model
from trainers.core.prompted_clip import PromptedCLIP, ensemble
from trainers.core.prompts import Batch as LossBatch
from trainers.core.prompts import Labels, Prompts
from trainers.core.recipe import Setting
from trainers.learner import Learner
from trainers.registry import has_negative_texts, is_linear

TEMPERATURE = "calibration.temperature"  # beside the parameters of a learner, in the files of calibrated models


@dataclass(frozen=True)
class Prediction:
    """What a model predicts for one split, on the CPU in float32; only the features of a float16 bank stay as they are.

    Large tensors are mapped. Image features [N, D], logits [N, C], the class features [C, D] that logits are made of (unit norm
    for texts but under AS), those of the negative contexts and the bias [C] where the learner has them: logits are a scale
    times (features @ text_features.T + bias), for learners that are linear. `class_directions` [C, D] say where classes lie
    among features, if not along those.
    """

    features: Tensor
    logits: Tensor
    text_features: Tensor
    negative_text_features: Tensor | None = None
    bias: Tensor | None = None
    class_directions: Tensor | None = None


@final
class PromptTrainer:
    """Makes models of one data set from labels, by any learner."""

    def __init__(self, setting: Setting):
        self.clip = setting.inputs.clip
        self.texts = setting.texts
        self.inputs = setting.inputs
        self.recipe = setting.recipe
        self._kept: Tensor | None = None  # rows of the pool that may be read; None for all
        self._known_texts: dict[str, Tensor] = {}
        self._ensembles: dict[tuple[str, ...], Tensor] = {}  # the last one

    def leave_out(self, rows: Sequence[int]) -> None:
        """Never read these rows of the train split when fitting, not even their features as a part of the pool."""
        kept = torch.ones(len(self.inputs.dataset.train), dtype=torch.bool)
        kept[torch.as_tensor(rows)] = False
        self._kept = kept.nonzero().flatten().to(self.clip.device)

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return self.clip.device

    @property
    def has_negative_texts(self) -> bool:
        return has_negative_texts(self.recipe.name)

    @property
    def is_linear(self) -> bool:
        return is_linear(self.recipe.name)

    def zero_shot(self) -> PromptedCLIP:
        """Return the model that has seen no label."""
        return PromptedCLIP(self.clip, self.recipe.build_zero_shot(self.clip, self.texts, None), self._known_texts)

    def fit(
        self, rows: Tensor, labels: Tensor, round: int, mined: Labeled | None = None, weights: Tensor | None = None
    ) -> PromptedCLIP:
        """Return a fresh model, trained on rows [M] of the train split and their labels [M].

        `weights` [M], 1 without them, say how much each label counts in the loss. `mined` are further rows and their
        pseudo-labels: each step then takes a batch of either, and an epoch is one pass over the one of more batches; passes
        over the other follow each other, each in an order and with augmented views of its own. Raises TrainingError if the
        loss is not finite.
        """
        labeled = (rows, labels) if weights is None else (rows, labels, weights)
        model = self._trained(labeled, round, mined)
        if self.recipe.calibrated:
            model.temperature = self._temperature(labeled, round, mined)
        return model

    def _trained(self, labeled: Labeled, round: int, mined: Labeled | None) -> PromptedCLIP:
        model = self._fresh(round)
        if mined is not None and len(labeled) > 2:
            mined = (*mined, torch.ones(len(mined[0])))
        given = {"labeled": labeled, "mined": mined}
        sources = {name: source for name, source in given.items() if source is not None and len(source[0])}
        everything = self._labels(sources, model.learner)
        self._prepare(model, everything)
        counted = everything.counted
        del everything  # so that a card has the pool's room for steps
        if sources and any(parameter.requires_grad for parameter in model.learner.parameters()):
            self._train(model, sources, round, None if counted.all() else counted)
        return model

    def _train(self, model: PromptedCLIP, sources: Mapping[str, Labeled], round: int, counted: Tensor | None) -> None:
        """Take all steps of a fit."""
        rng, learner = rng_for(self.recipe.seed, "loss", round), model.learner.train()
        optimizer, scheduler = self.recipe.build_optimization([own for own in learner.parameters() if own.requires_grad])

        def loss_of(batch: Batch) -> Tensor:
            inputs, targets, *weights = batch
            prompts = learner()
            features, classifier = model.image_features(inputs, prompts), model.classifier(prompts)
            frozen = model.frozen_features(inputs) if learner.reads_frozen else None
            return learner.loss(classifier, LossBatch(features, targets, self.clip.logit_scale, counted, rng, frozen, *weights))

        @torch.no_grad()
        def after_epoch(epoch: int) -> None:
            learner.after_epoch(epoch, self.recipe.n_epochs)

        def remember() -> Callable[[], None]:
            state, of_learner = rng.bit_generator.state, learner.remember()

            def draw_again() -> None:
                rng.bit_generator.state = state
                of_learner()

            return draw_again

        in_parts = {"parts_of": rows_in_parts, "remember": remember} if learner.tunes_images else {}
        model.losses = fit(
            self._epochs(sources, round, learner.reads), loss_of, optimizer, scheduler, n_epochs=self.recipe.n_epochs,
            print_freq=self.recipe.print_freq, description=f"round {round}: training", after_epoch=after_epoch, **in_parts)
        learner.eval()

    def _temperature(self, labeled: Labeled, round: int, mined: Labeled | None) -> float:
        """Return the temperature of a fit, see `held_out_temperature`."""
        quiet = PromptTrainer(Setting(self.inputs, self.texts, replace(self.recipe, calibrated=False, print_freq=0)))
        quiet._kept = self._kept

        def logits_of(kept: Labeled, rows: Tensor) -> Tensor:
            model = quiet._trained(kept, round, mined)
            with torch.no_grad():
                prompts = model.learner()
                features = model.image_features(self.inputs.bank(model.learner.reads)["train"][rows].float(), prompts)
                return model.logits(features, model.classifier(prompts)).cpu().float()

        return held_out_temperature(logits_of, labeled, rng_for(self.recipe.seed, "calibration", round))

    @torch.no_grad()
    def predict(self, model: PromptedCLIP, split: str) -> Prediction:
        """Return the model's features and logits of a whole split, with the text features computed once."""
        prompts, learner = model.learner(), model.learner
        classifier, n_rows = model.classifier(prompts), len(self.inputs.dataset.split(split))
        kept = self.inputs.features[split] if learner.reads == "features" and learner.keeps_features else None
        features, logits = (Stacked(n_rows, room) for _ in range(2))

        def of_batch(inputs: Tensor) -> tuple[Tensor, Tensor]:
            encoded = model.image_features(inputs, prompts)
            return encoded, model.logits(encoded, classifier)

        batches = self.inputs.of_split(split, reads=learner.reads)
        shown = tqdm(batches, f"predicting {split}", unit="batch", leave=False, disable=None, delay=1)
        for encoded, scores in behind(in_parts(shown, of_batch)):
            logits.add(scores.cpu().float())
            if kept is None:
                features.add(encoded.cpu().float())
        texts, negative = (
            None if found is None
            else (nn.functional.normalize(found, dim=1) if model.has_unit_texts else found).detach().cpu().float()
            for found in (classifier.texts, classifier.negative))
        bias, directions = (None if found is None else found.detach().cpu().float()
                            for found in (classifier.bias, classifier.directions))
        return Prediction(features.whole() if kept is None else kept, logits.whole(), texts, negative, bias, directions)

    def save(self, model: PromptedCLIP, path: Path) -> None:
        """Write the learner's parameters, kilobytes, with what they belong to."""
        state = {name: value.detach().cpu().contiguous() for name, value in model.learner.state_dict().items()}
        if model.temperature != 1:
            state[TEMPERATURE] = torch.tensor(model.temperature, dtype=torch.float64)
        with atomic_path(path) as temporary:
            # one entry: safetensors writes several in an order that differs from process to process
            about = self._belongs_to(model) | {"template": self.texts.template, "checksum": digest(state)}
            save_file(state, temporary, metadata={"belongs_to": json.dumps(about)})

    def load(self, path: Path) -> PromptedCLIP:
        """Return the model of a file that `save` wrote; raises UserError if it is damaged or belongs to something else."""
        belongs_to, state = read_model(path)
        model = self._fresh(0)
        model.temperature = float(state.pop(TEMPERATURE, 1))
        try:
            model.learner.adopt(state)
        except ValueError as error:
            raise UserError(f"{path} holds prompts of {error}") from error
        for key, expected in self._belongs_to(model).items():
            if (found := belongs_to.get(key)) != expected:
                raise UserError(f"{path} holds prompts of another {key}: {_short(found)}, not {_short(expected)}")
        return model

    def _labels(self, sources: Mapping[str, Labeled], learner: Learner) -> Labels:
        """Return all labels and pseudo-labels of a fit; the pool, which takes room on a card, for a learner that prepares."""
        n_parts = max((len(source) for source in sources.values()), default=2)
        rows, targets, *weights = (
            torch.cat([source[part] for source in sources.values()] or [torch.empty(0, dtype=torch.int64)])
            for part in range(n_parts))
        bank, targets = self.inputs.bank(learner.reads)["train"], targets.to(self.clip.device)
        counted = torch.ones(len(self.texts.classnames), dtype=torch.bool, device=self.clip.device)
        if self.recipe.masked and len(targets):
            counted[:] = False
            counted[targets] = True
        own = bank[rows].to(self.clip.device).float()
        pool = bank.to(self.clip.device) if _prepares(learner) else bank[:0]
        kept = pool if self._kept is None or not len(pool) else taken(pool, self._kept)
        return Labels(own, targets, weights[0].to(own) if weights else own.new_ones(len(rows)), counted, kept)

    @torch.no_grad()
    def _prepare(self, model: PromptedCLIP, labels: Labels) -> None:
        """Let a learner take from all labels what steps cannot learn, see `Learner.prepare`."""
        if _prepares(model.learner):
            model.learner.prepare(labels, self._texts_to_prepare(model), self.clip.logit_scale)

    def _texts_to_prepare(self, model: PromptedCLIP) -> Tensor:
        """Return the texts [C, D] that a learner's `prepare` is given."""
        if teacher := model.learner.teacher:
            if teacher not in self._ensembles:  # many texts, the same in every round
                self._ensembles = {teacher: ensemble(self.clip, self.texts.classnames, teacher)}
            return self._ensembles[teacher].clone()
        return (self.zero_shot() if model.learner().text else model).texts(Prompts()).texts

    def _fresh(self, round: int) -> PromptedCLIP:
        rng = rng_for(self.recipe.seed, "prompts", round)
        learner = self.recipe.build_learner(self.clip, self.texts, rng).to(self.clip.device).eval()
        return PromptedCLIP(self.clip, learner, self._known_texts)

    def _belongs_to(self, model: PromptedCLIP) -> dict[str, Any]:
        """Return all that gives the learner's parameters their meaning, beside their shapes."""
        learner, averaging = model.learner, model.learner.averaging
        constants = {"constants": learner.constants()} if learner.constants() else {}  # files of before have no such entry
        return {**constants, "trainer": self.recipe.name, "backbone": self.clip.name, "weights": self.clip.fingerprint,
                "class names": list(self.texts.classnames), "phrases": list(self.texts.phrases),
                "averaging": None if averaging is None else averaging.normalize,
                "image layout": learner().after_ln_pre, "text layout": learner.rows.digest()}

    def _epochs(self, sources: Mapping[str, Labeled], round: int, reads: Reads) -> Iterator[Iterator[Batch]]:
        """Yield the batches of each epoch: inputs, labels and perhaps weights, one batch of each source together."""
        n_steps = max(len(self._batches(name, len(rows), round, 0)) for name, (rows, *_) in sources.items())
        streams = [self._stream(name, source, round, n_steps, reads) for name, source in sources.items()]
        batches = streams[0] if len(streams) == 1 else (
            tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*streams, strict=True))
        for _ in range(self.recipe.n_epochs):
            yield itertools.islice(batches, n_steps)

    def _stream(self, name: str, source: Labeled, round: int, n_steps: int, reads: Reads) -> Iterator[Batch]:
        """Yield one source's batch for each step of all epochs, on the towers' device."""
        device, rows = self.clip.device, source[0]
        values = [own.to(device) for own in source[1:]]
        steps, again = itertools.tee(self._steps(name, len(rows), round, n_steps))
        inputs = self.inputs.of_steps(rows, steps, round, reads=reads)

        def gathered(places: Tensor) -> list[Tensor]:
            places = places.to(device, non_blocking=True)
            return [value.index_select(0, places) for value in values]

        for own, about in zip(inputs, by_places(gathered, again), strict=True):
            yield own, *about

    def _steps(self, name: str, n_rows: int, round: int, n_steps: int) -> Iterator[Step]:
        """Yield the steps of all epochs over one source. In an epoch e of E its passes are numbered e, e + E, e + 2 E, ..."""
        in_order = [torch.arange(n_rows)] if self.recipe.keeps_order and n_rows <= self._batch_size(name) else []
        for epoch in range(self.recipe.n_epochs):
            passes = itertools.count(epoch, self.recipe.n_epochs)
            endless = ((own, number) for number in passes for own in in_order or self._batches(name, n_rows, round, number))
            yield from itertools.islice(endless, n_steps)

    def _batch_size(self, name: str) -> int:
        return {"labeled": self.recipe.batch_size, "mined": self.recipe.n_mined}[name]

    def _batches(self, name: str, n_rows: int, round: int, number: int) -> list[Tensor]:
        """Return the batches of one pass over a source, as positions in it."""
        key = (self.recipe.seed, f"batches {name}", round, number)
        return batch_rows(n_rows, self._batch_size(name), drop_last=self.recipe.drop_last, key=key)


def _prepares(learner: Learner) -> bool:
    """Return whether a learner computes anything from all labels."""
    return type(learner).prepare is not Learner.prepare


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
