"""What an epoch trains on: fixed and augmented views, features and tokens, batches."""

import pytest
import torch

from dassl.data.loader import image_batches
from dassl.utils.seeding import seed_for
from tests.trainers.colors import ROWS, trainer_of
from trainers.frozen_clip import normalized
from trainers.inputs import batch_rows

AUGMENTED = ("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']")


def encoded(clip, images, tokens):
    return clip.embed_image(images) if tokens else normalized(clip.encode_image(images))


@pytest.mark.parametrize("tokens", [False, True])
def test_views_encoded_ahead_equal_views_encoded_in_their_step(clip, colors, tokens):
    """Augmented views depend on (seed, round, epoch, image) alone: alone and among all epochs' views they are the same."""
    inputs = trainer_of(clip, colors, AUGMENTED).inputs
    ahead = list(inputs.of_epochs(ROWS, 2, 4, tokens=tokens))
    items = [colors.train[row] for row in ROWS.tolist()]
    for epoch, expected in enumerate(ahead):
        one_by_one = [next(image_batches([colors.root / item.path], inputs.loading.random_view, batch_size=1,
                                         seeds=[seed_for(1, "view", 2, epoch, item.path)])) for item in items]
        assert torch.allclose(encoded(clip, torch.cat(one_by_one), tokens), expected, atol=1e-5)
    assert len(ahead) == 4 and not torch.equal(ahead[0], ahead[1])


@pytest.mark.parametrize("tokens", [False, True])
def test_views_in_chunks_equal_views_at_once(clip, colors, monkeypatch, tokens):
    """How many epochs are encoded in one pass changes nothing."""
    inputs = trainer_of(clip, colors, AUGMENTED).inputs
    at_once = torch.stack(list(inputs.of_epochs(ROWS, 0, 7, tokens=tokens)))
    monkeypatch.setattr("trainers.inputs.AHEAD_BYTES", 3 * at_once[0].nbytes)
    assert torch.allclose(torch.stack(list(inputs.of_epochs(ROWS, 0, 7, tokens=tokens))), at_once, atol=1e-5)


def test_fixed_views_are_the_frozen_features(trainer):
    """Without augmentation every epoch trains on the rows' frozen features."""
    for features in trainer.inputs.of_epochs(ROWS, 0, 3, tokens=False):
        assert torch.equal(features, trainer.inputs.features["train"][ROWS])


@pytest.mark.parametrize("memory", ["0", "64"])
def test_kept_tokens_equal_tokens_embedded_anew(clip, colors, memory):
    """Tokens of a split are the same whether they are kept in memory or embedded at each use, at any batch size."""
    inputs = trainer_of(clip, colors, ("DATALOADER.MEMORY_MB", memory), ("DATALOADER.TEST.BATCH_SIZE", "5")).inputs
    first, again = (torch.cat(list(inputs.of_split("test", tokens=True))) for _ in range(2))
    images = torch.cat(list(image_batches(colors.files("test"), inputs.loading.view, batch_size=12)))
    assert torch.equal(first, again) and torch.allclose(first, clip.embed_image(images), atol=1e-5)
    assert bool(inputs._tokens) == (memory == "64")


@pytest.mark.parametrize(("n_rows", "drop_last", "sizes"), [
    (12, True, [4, 4, 4]), (10, True, [4, 4]), (10, False, [4, 4, 2]), (3, True, [3]), (4, True, [4])])
def test_batches_of_an_epoch(n_rows, drop_last, sizes):
    """The last partial batch is left out, unless it is the only one or drop_last is off; no row comes twice."""
    batches = batch_rows(n_rows, 4, drop_last=drop_last, key=(1, "batches", 0, 0))
    assert [len(batch) for batch in batches] == sizes
    assert len(torch.cat(batches).unique()) == sum(sizes)


def test_batches_carry_the_features_of_their_labels(trainer):
    """In every batch, feature i is that of the image of label i."""
    for batches in trainer._epochs({"labeled": (ROWS, ROWS)}, 0, tokens=False):
        for features, targets in batches:
            assert torch.equal(features, trainer.inputs.features["train"][targets])


def test_an_epoch_of_two_sources_is_one_pass_over_the_larger(clip, colors):
    """Each step joins a labeled and a mined batch; the smaller source is cycled, every row of the larger comes once."""
    trainer = trainer_of(clip, colors, ("DATALOADER.TRAIN_U.BATCH_SIZE", "5"))
    labeled, mined = torch.arange(4), torch.arange(10, 30)
    for batches in trainer._epochs({"labeled": (labeled, labeled), "mined": (mined, mined)}, 0, tokens=False):
        seen = [targets for _, targets in batches]
        assert [len(targets) for targets in seen] == [9] * 4
        assert sorted(row for targets in seen for row in targets.tolist() if row >= 10) == mined.tolist()
        assert all(set(labeled.tolist()) < set(targets.tolist()) for targets in seen)
