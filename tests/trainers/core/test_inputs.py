"""What an epoch trains on: fixed and augmented views, features and tokens, batches."""

import gc
import itertools

import pytest
import torch
from torch.utils.data import DataLoader

from dassl.config.setup import setup_config
from dassl.data.digests import ImageFiles
from dassl.data.loader import image_batches
from dassl.data.store import ImageStore
from dassl.data.transforms import check_transforms
from dassl.engine.predict import predict
from dassl.utils.errors import ConfigError
from dassl.utils.seeding import seed_for
from tests.trainers.colors import ROWS, trainer_of
from trainers.core.build import check_image_tower
from trainers.core.inputs import batch_rows, encoder
from trainers.core.job import REGISTRIES

AUGMENTED = ("INPUT.TRANSFORMS", "['random_resized_crop', 'random_flip', 'normalize']")


def passes(*numbers):
    """Return steps that take all of ROWS, in their order, in passes of these numbers."""
    return [(torch.arange(len(ROWS)), number) for number in numbers]


def one_view(inputs, row, number, round=2):
    """Return the augmented view of one row in one pass, decoded and augmented alone."""
    item = inputs.dataset.train[row]
    return next(image_batches([inputs.dataset.root / item.path], inputs.loading.random_view, batch_size=1,
                              seeds=[seed_for(1, "view", round, number, item.path)]))


@pytest.mark.parametrize("reads", ["features", "pre_projection", "tokens"])
def test_views_encoded_ahead_equal_views_encoded_in_their_step(clip, colors, reads):
    """Augmented views depend on (seed, round, pass, image) alone: alone and among all passes' views they are the same."""
    inputs = trainer_of(clip, colors, AUGMENTED).inputs
    ahead = list(inputs.of_steps(ROWS, passes(0, 1, 2, 3), 2, reads=reads))
    for number, expected in enumerate(ahead):
        one_by_one = torch.cat([one_view(inputs, row, number) for row in ROWS.tolist()])
        assert torch.allclose(encoder(clip, reads)(one_by_one), expected, atol=1e-5)
    assert len(ahead) == 4 and not torch.equal(ahead[0], ahead[1])


@pytest.mark.parametrize("transforms", [AUGMENTED, ("INPUT.TRANSFORMS", "[]")], ids=["augmented", "fixed"])
@pytest.mark.parametrize(("n_ahead", "most"), [(30, 30), (10, 10), (1, 5)])
def test_no_more_views_are_held_than_memory_allows(clip, colors, monkeypatch, transforms, n_ahead, most):
    """Tokens are encoded in pieces of a pass, at least a step at once. The size of the pieces does not change the result."""
    inputs = trainer_of(clip, colors, transforms, ("DATALOADER.MEMORY_MB", "0")).inputs
    steps = [(own, number) for number in range(3) for own in torch.arange(len(ROWS)).flip(0).split(5)]
    at_once, counts = list(inputs.of_steps(ROWS, steps, 0, reads="tokens")), []

    def counted(batches, encode, *, n_rows, **arguments):
        counts.append(n_rows)
        return predict(batches, encode, n_rows=n_rows, **arguments)

    monkeypatch.setattr("trainers.core.inputs.predict", counted)
    monkeypatch.setattr("trainers.core.inputs.AHEAD_BYTES", n_ahead * at_once[0][0].nbytes)
    in_pieces = list(inputs.of_steps(ROWS, steps, 0, reads="tokens"))
    assert max(counts) <= most and len(counts) > 0
    assert all(torch.allclose(own, other, atol=1e-5) for own, other in zip(in_pieces, at_once, strict=True))


@pytest.mark.parametrize(("memory", "n_workers"), [("0", 2), ("64", 0)])
def test_one_loader_serves_a_whole_fit(clip, colors, monkeypatch, memory, n_workers):
    """Memory may be filled ahead any number of times. With a tower on the CPU, images in memory need no workers."""
    pairs = (AUGMENTED, ("DATALOADER.MEMORY_MB", memory), ("DATALOADER.NUM_WORKERS", "2"))
    inputs, loaders = trainer_of(clip, colors, *pairs).inputs, []

    class Counted(DataLoader):
        def __init__(self, *arguments, **named):
            loaders.append(named["num_workers"])
            super().__init__(*arguments, **named)

    monkeypatch.setattr("dassl.data.loader.DataLoader", Counted)
    monkeypatch.setattr("trainers.core.inputs.AHEAD_BYTES", 1)
    assert len(list(inputs.of_steps(ROWS, passes(0, 1, 2, 3), 0, reads="features"))) == 4
    assert loaders == [n_workers]


def test_fixed_views_are_the_frozen_features(trainer):
    """Without augmentation every pass trains on the rows' frozen features."""
    for features in trainer.inputs.of_steps(ROWS, passes(0, 1, 2), 0, reads="features"):
        assert torch.equal(features, trainer.inputs.features["train"][ROWS])


@pytest.mark.parametrize("memory", ["0", "64"])
def test_kept_tokens_equal_tokens_embedded_anew(clip, colors, memory):
    """Tokens of a split are the same whether they are kept in memory or embedded at each use, at any batch size."""
    inputs = trainer_of(clip, colors, ("DATALOADER.MEMORY_MB", memory), ("DATALOADER.TEST.BATCH_SIZE", "5")).inputs
    first, again = (torch.cat(list(inputs.of_split("test", reads="tokens"))) for _ in range(2))
    images = torch.cat(list(image_batches(colors.files("test"), inputs.loading.view, batch_size=12)))
    assert torch.equal(first, again) and torch.allclose(first, clip.embed_image(images), atol=1e-5)
    assert bool(inputs._tokens) == (memory == "64")


@pytest.mark.parametrize("share", [0.3, 0.7, 1.2, 2.5])
@pytest.mark.parametrize("transforms", [AUGMENTED, ("INPUT.TRANSFORMS", "[]")], ids=["augmented", "fixed"])
def test_images_and_tokens_share_one_memory(clip, colors, share, transforms):
    """Everything that a run keeps is within MEMORY_MB: images, and tokens of train and test. The rest is made again."""
    inputs = trainer_of(clip, colors, transforms).inputs
    n_bytes = int(share * len(colors.train) * inputs._row_bytes("tokens"))
    inputs.store = ImageStore(n_bytes)
    for _ in range(2):
        list(inputs.of_steps(ROWS, passes(0), 0, reads="tokens"))
        train, test = (torch.cat(list(inputs.of_split(split, reads="tokens"))) for split in ("train", "test"))
        kept = [*inputs._tokens.values(), *inputs.store._kept.values()]
        assert sum(tensor.nbytes for tensor in kept) == inputs.store.n_bytes <= n_bytes
    assert len(kept) > 0
    free = trainer_of(clip, colors, transforms, ("DATALOADER.MEMORY_MB", "0")).inputs
    assert torch.equal(train, torch.cat(list(free.of_split("train", reads="tokens"))))
    assert torch.equal(test, torch.cat(list(free.of_split("test", reads="tokens"))))


def test_tokens_of_another_data_set_give_their_memory_back(clip, colors):
    """A process of a sweep holds the inputs of one data set at a time, and one store for all on a root."""
    inputs = trainer_of(clip, colors).inputs
    store = inputs.store
    list(inputs.of_split("test", reads="tokens"))
    assert store.n_bytes > 0
    del inputs
    gc.collect()
    assert store.n_bytes == 0


@pytest.mark.parametrize(("n_rows", "drop_last", "sizes"), [
    (12, True, [4, 4, 4]), (10, True, [4, 4]), (10, False, [4, 4, 2]), (3, True, [3]), (4, True, [4])])
def test_batches_of_an_epoch(n_rows, drop_last, sizes):
    """The last partial batch is left out, unless it is the only one or drop_last is off; no row comes twice."""
    batches = batch_rows(n_rows, 4, drop_last=drop_last, key=(1, "batches", 0, 0))
    assert [len(batch) for batch in batches] == sizes
    assert len(torch.cat(batches).unique()) == sum(sizes)


@pytest.mark.parametrize(("name", "size", "is_same"), [
    ("CrossModal", 12, True), ("CrossModal", 11, False), ("TipAdapterF", 100, False)])
def test_steps_on_all_labels_in_their_order_see_the_same_tensors(clip, colors, name, size, is_same):
    """This is so for learners that ask for it, where all labels are one batch: fixed views are gathered once a fit."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("DATALOADER.TRAIN_X.BATCH_SIZE", str(size)))
    steps = [step for batches in trainer._epochs({"labeled": (ROWS, ROWS + 1)}, 0, reads="features") for step in batches]
    first = steps[0]
    assert all((features is first[0], targets is first[1]) == (is_same, is_same) for features, targets in steps[1:])
    assert all(torch.equal(features, trainer.inputs.features["train"][targets - 1]) for features, targets in steps)
    assert (first[1].tolist() == (ROWS + 1).tolist()) == is_same and len(steps) > 1


def test_labels_and_pseudo_labels_keep_their_orders_one_behind_the_other(clip, colors):
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "CrossModal"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "100"))
    labeled, mined = torch.arange(4), torch.arange(10, 30)
    for batches in trainer._epochs({"labeled": (labeled, labeled), "mined": (mined, mined)}, 0, reads="features"):
        (features, targets), = batches
        assert targets.tolist() == [*labeled, *mined] and torch.equal(features, trainer.inputs.features["train"][targets])


def test_augmented_views_are_others_in_each_step_although_rows_keep_their_order(clip, colors):
    trainer = trainer_of(clip, colors, AUGMENTED, ("TRAINER.NAME", "CrossModal"), ("DATALOADER.TRAIN_X.BATCH_SIZE", "100"))
    first, second, *_ = (next(batches) for batches in trainer._epochs({"labeled": (ROWS, ROWS)}, 0, reads="features"))
    assert first[1].tolist() == second[1].tolist() == ROWS.tolist() and not torch.equal(first[0], second[0])


def test_batches_carry_the_features_of_their_labels(trainer):
    """In every batch, feature i is that of the image of label i."""
    for batches in trainer._epochs({"labeled": (ROWS, ROWS)}, 0, reads="features"):
        for features, targets in batches:
            assert torch.equal(features, trainer.inputs.features["train"][targets])


def test_an_epoch_of_two_sources_is_one_pass_over_the_larger(clip, colors):
    """Each step joins a labeled and a mined batch. The smaller source is cycled, and each row of the larger comes once."""
    trainer = trainer_of(clip, colors, ("DATALOADER.TRAIN_U.BATCH_SIZE", "5"))
    labeled, mined = torch.arange(4), torch.arange(10, 30)
    for batches in trainer._epochs({"labeled": (labeled, labeled), "mined": (mined, mined)}, 0, reads="features"):
        seen = [targets for _, targets in batches]
        assert [len(targets) for targets in seen] == [9] * 4
        assert sorted(row for targets in seen for row in targets.tolist() if row >= 10) == mined.tolist()
        assert all(set(labeled.tolist()) < set(targets.tolist()) for targets in seen)


def test_every_pass_over_the_smaller_source_has_its_own_order_and_views(clip, colors):
    """As a loader that is begun again: its rows come in another order and as other views, and those left over come too.

    The first pass of an epoch is that of a source alone; the next ones are numbered behind all epochs.
    """
    trainer = trainer_of(clip, colors, AUGMENTED, ("DATALOADER.TRAIN_U.BATCH_SIZE", "5"), ("OPTIM.MAX_EPOCH", "2"))
    labeled, mined = torch.arange(6), torch.arange(10, 30)  # one batch of four a pass, beside four of five
    sources = {"labeled": (labeled, labeled), "mined": (mined, mined)}
    alone = [[targets for _, targets in epoch] for epoch in trainer._epochs({"labeled": sources["labeled"]}, 2, "features")]
    for epoch, batches in enumerate(trainer._epochs(sources, 2, "features")):
        seen = []
        for step, (features, targets) in enumerate(batches):
            number = epoch + 2 * step
            views = torch.cat([one_view(trainer.inputs, row, number) for row in targets[:4].tolist()])
            assert torch.allclose(features[:4], encoder(clip, "features")(views), atol=1e-5)
            assert targets[:4].tolist() == batch_rows(6, 4, drop_last=True, key=(1, "batches labeled", 2, number))[0].tolist()
            seen.append(targets[:4].tolist())
        assert seen[0] == alone[epoch][0].tolist() and len({tuple(rows) for rows in seen}) == len(seen) == 4
        assert {row for rows in seen for row in rows} == set(labeled.tolist())


def test_every_seed_source_round_and_pass_has_an_order_of_its_own(clip, colors):
    """Two of each give sixteen different orders of the same twelve rows."""
    orders = []
    for seed, source, round in itertools.product(("1", "2"), ("labeled", "mined"), (0, 1)):
        trainer = trainer_of(clip, colors, ("SEED", seed), ("OPTIM.MAX_EPOCH", "2"), ("DATALOADER.TRAIN_U.BATCH_SIZE", "4"))
        orders += [tuple(torch.cat([rows for _, rows in batches]).tolist())
                   for batches in trainer._epochs({source: (ROWS, ROWS)}, round, reads="features")]
    assert len(set(orders)) == len(orders) == 16


@pytest.fixture
def kept(clip, colors, tmp_path):
    """A function that returns inputs of three kept views an image, of a seed, as a new run has them."""

    def inputs_of(seed=1, *pairs):
        own = [AUGMENTED, ("INPUT.VIEWS", "3"), ("CACHE_DIR", str(tmp_path)), ("SEED", str(seed)), *pairs]
        return trainer_of(clip, colors, *own).inputs

    return inputs_of


@pytest.mark.parametrize("reads", ["features", "pre_projection"])
def test_kept_views_are_encoded_once_and_drawn_by_seed_round_and_pass(clip, colors, kept, monkeypatch, reads):
    """Each input is one of the image's three views, alone as in its batch; another run, seed or round encodes none of them."""
    inputs, encoded = kept(), []
    seen = torch.stack(list(inputs.of_steps(ROWS, passes(*range(40)), 2, reads=reads)), 1)
    for row, own in zip(ROWS.tolist(), seen, strict=True):
        digest = bytes(ImageFiles(colors).contents("train").digests[row].numpy()).hex()
        seeds = [seed_for(0, "view of the bank", number, digest) for number in range(3)]
        places = [colors.place(colors.train[row].path)] * 3
        views = next(image_batches(places, inputs.loading.random_view, batch_size=3, seeds=seeds))
        nearest = (own[:, None] - encoder(clip, reads)(views)).norm(dim=2)
        assert nearest.amin(1).max() < 1e-4 and len(nearest.argmin(1).unique()) == 3
    monkeypatch.setattr("trainers.core.inputs.predict", lambda *_, n_rows, **__: encoded.append(n_rows))
    again = torch.stack(list(kept().of_steps(ROWS, passes(*range(40)), 2, reads=reads)), 1)
    assert torch.equal(again, seen) and not encoded
    for other, round in ((kept(2), 2), (kept().with_seed(3), 2), (kept(), 0)):
        own = torch.stack(list(other.of_steps(ROWS, passes(*range(40)), round, reads=reads)), 1)
        assert not torch.equal(own, seen) and not encoded


def test_a_learner_of_images_refuses_kept_views(clip, colors, kept):
    """Its tokens are no features that could be kept; and without a random step an image has one view."""
    cfg = setup_config([], [AUGMENTED, ("INPUT.VIEWS", "3"), ("TRAINER.NAME", "VPT")], REGISTRIES)
    with pytest.raises(ConfigError, match=r"INPUT\.VIEWS is 3, but VPT tunes the image tower"):
        check_image_tower(cfg)
    cfg.TRAINER.NAME, cfg.INPUT.TRANSFORMS = "CoOp", ["normalize"]
    check_image_tower(cfg)
    with pytest.raises(ConfigError, match=r"INPUT\.VIEWS is 3, but INPUT\.TRANSFORMS has no random step"):
        check_transforms(cfg.INPUT)
