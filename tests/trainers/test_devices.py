"""Learners on a pretended card: no operation mixes devices, and the host's waits are counted."""

import math
from contextlib import contextmanager

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from dassl.engine import fit
from dassl.utils.errors import TrainingError
from tests.pretend_cuda import MEMORY, on_card, pretend_cuda
from tests.trainers.colors import ROWS, trainer_of
from trainers.core.patterns import random_clip
from trainers.registry import LEARNERS

SMALL = [("OPTIM.MAX_EPOCH", "2"), ("OPTIM.LR", "0.002"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "6"),
         ("TRAINER.CLIPLORA.DROPOUT", "0.0")]  # no generator is pretended
AUGMENTED = ("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']")


@contextmanager
def card_trainer(colors, *pairs):
    """Yield a trainer whose CLIP is on the card, and the card."""
    with pretend_cuda() as card:
        clip = random_clip()
        clip.model.to("cuda")
        trainer = trainer_of(clip, colors, *pairs)
        for bank in trainer.inputs.banks.values():
            bank.update({split: rows.cpu() for split, rows in bank.items()})
        yield trainer, card


def counted_steps(monkeypatch, card):
    """Return the counts by which each step's waits grow, including those of loading its batch."""
    steps, take = [], fit._Steps.take

    def counted(self, batch):
        take(self, batch)
        steps.append(card.n_read_backs + card.waits.total())
        card.forget()

    monkeypatch.setattr(fit._Steps, "take", counted)
    return steps


@pytest.mark.parametrize(("name", "more"), [
    *((own.name, ()) for own in LEARNERS), ("CoOp", (AUGMENTED,)), ("VPT", (AUGMENTED,)),
    ("CoOp", (("INPUT.VIEWS", "2"), AUGMENTED))])
def test_a_card_trains_and_predicts_what_the_cpu_does(clip, colors, tmp_path, monkeypatch, name, more):
    """Bit for bit, since the pretended card computes on the CPU. An epoch's steps never wait for it, only their end does."""
    pairs, labels = [*SMALL, ("TRAINER.NAME", name), ("CACHE_DIR", str(tmp_path)), *more], colors.labels("train")
    with sdpa_kernel(SDPBackend.MATH):
        trainer = trainer_of(clip, colors, *pairs)
        here = trainer.fit(ROWS, labels[ROWS], 0)
        expected = trainer.predict(here, "test")
    with card_trainer(colors, *pairs) as (trainer, card):
        steps = counted_steps(monkeypatch, card)
        there = trainer.fit(ROWS, labels[ROWS], 0)
        assert steps[1:] in ([], [0, 1, 0])  # the third step is the first of the second epoch
        card.forget()
        found = trainer.predict(there, "test")
    assert there.losses == here.losses
    assert torch.equal(found.logits, expected.logits) and torch.equal(found.text_features, expected.text_features)
    assert card.n_read_backs <= 5  # features and logits of the only batch; texts, negative ones or a bias, tokens to keep


def test_a_loss_that_is_not_finite_stops_at_the_end_of_its_epoch(colors):
    """On a card; the error names the batch, and the parameters are those before it."""
    with pretend_cuda():
        parameter = torch.nn.Parameter(on_card(torch.zeros(2)))
        optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9, weight_decay=0.1)
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        seen = []

        def loss_of(batch: float) -> torch.Tensor:
            seen.append(batch)
            return (parameter * batch).sum()

        with pytest.raises(TrainingError, match="loss is nan in epoch 1, batch 1, at learning rate 1"):
            fit.fit([[1.0], [2.0, math.nan, 4.0]], loss_of, optimizer, scheduler, n_epochs=2)
        assert len(seen) == 4
        assert parameter.detach().cpu().tolist() == pytest.approx([-1 - (0.9 * 1 + 2 - 0.1)] * 2)


@pytest.mark.parametrize(("name", "n_sent"), [("CoOp", 0), ("VPT", 0), ("GDA", 36)])
def test_the_pool_goes_to_the_card_for_learners_that_prepare_alone(colors, name, n_sent):
    """It takes room from steps: 31 GB of ten million images."""
    labels = colors.labels("train")
    with card_trainer(colors, *SMALL, ("TRAINER.NAME", name)) as (trainer, _):
        found = trainer._labels({"labeled": (ROWS, labels[ROWS])}, trainer._fresh(0).learner)
        assert len(found.pool) == n_sent and found.features.is_cuda and len(found.features) == len(ROWS)


@pytest.mark.parametrize("has_room", [False, True])
def test_image_tokens_stay_on_a_card_that_has_room_for_them(colors, monkeypatch, has_room):
    """Memory of the host, which `DATALOADER.MEMORY_MB` bounds, says nothing about the card's."""
    with card_trainer(colors, *SMALL, ("TRAINER.NAME", "VPT")) as (trainer, _):
        n_bytes = trainer.inputs._row_bytes("tokens")
        trainer.inputs.store.max_bytes = trainer.inputs.store.n_bytes + 20 * n_bytes  # for 12 rows, not for 36
        monkeypatch.setattr("trainers.core.inputs.AHEAD_BYTES", 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2 * 12 * n_bytes - (not has_room), MEMORY))
        kept = trainer.inputs._kept_rows(ROWS, "tokens")
        assert (kept is not None and kept[0].is_cuda) == has_room
