"""Fit, predict, save and load, on a tiny random CLIP and small images."""

import json

import pytest
import torch
from safetensors.torch import save_file

import train
from dassl.config.setup import setup_config
from dassl.data.dataset import Dataset
from dassl.engine.fit import _Steps
from dassl.utils.errors import TrainingError, UserError
from tests.trainers.colors import NAMES, ROWS, trainer_of
from trainers.clip.frozen_clip import normalized
from trainers.core.build import build_selector, build_trainer
from trainers.core.patterns import random_clip
from trainers.core.trainer import PromptTrainer
from trainers.learner import Learner
from trainers.registry import LEARNERS

CASES = ("CoOp", "VPT", "MaPLe", "IVLP", "DualPrompt", "KgCoOp", "ProGrad", "TCP", "PromptSRC", "CLIPLoRA")


def fitted(trainer, round=0):
    return trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], round)


def context(model):
    return model.learner.ctx.detach()


def loss(trainer, model):
    logits = trainer.predict(model, "train").logits[ROWS]
    return torch.nn.functional.cross_entropy(logits, trainer.inputs.dataset.labels("train")[ROWS])


@pytest.mark.parametrize("name", CASES)
def test_training_lowers_the_loss_of_fresh_prompts(clip, colors, name):
    """After 8 epochs every learner's cross-entropy on the labeled rows is below that of its fresh prompts."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name))
    assert loss(trainer, fitted(trainer)) < loss(trainer, trainer._fresh(0))


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_moves(clip, colors, name):
    """No parameter of any learner is cut off from training."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name))
    before, after = trainer._fresh(0).learner.state_dict(), fitted(trainer).learner.state_dict()
    assert [key for key in before if torch.equal(before[key], after[key])] == []


@pytest.mark.parametrize("name", CASES)
def test_two_fits_are_bit_for_bit_alike(clip, colors, global_random_state, name):
    """The same rows, labels and round give the same prompts, whatever was trained in between."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("OPTIM.MAX_EPOCH", "2"))
    first = fitted(trainer).learner.state_dict()
    fitted(trainer, round=1)
    again = fitted(trainer).learner.state_dict()
    assert all(torch.equal(again[key], first[key]) for key in first)


def test_dual_prompt_without_visual_prompts_reads_frozen_features(clip, colors, monkeypatch):
    """With N_CTX_VISION 0 it trains on features and mined ones, opens no image, and gives either set of class features."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "DualPrompt"), ("TRAINER.DUALPROMPT.N_CTX_VISION", "0"))
    for name in ("pixel_batches", "view_batches"):
        monkeypatch.setattr(f"trainers.core.inputs.{name}", None)
    fresh, labels = trainer._fresh(0).learner, trainer.inputs.dataset.labels("train")
    model = trainer.fit(ROWS, labels[ROWS], 0, mined=(ROWS + 3 - 36 * (ROWS > 32), labels[ROWS]))
    assert not torch.equal(model.learner.positive, fresh.positive) and not torch.equal(model.learner.negative, fresh.negative)
    prediction = trainer.predict(model, "test")
    assert torch.equal(prediction.features, trainer.inputs.features["test"])
    assert prediction.negative_text_features.shape == prediction.text_features.shape == (3, clip.model.text_projection.shape[1])


def test_a_loss_that_is_not_finite_stops_with_its_place(clip, colors):
    """Row 17: epoch, batch and learning rate of the first loss that is NaN or Inf are named."""
    trainer = trainer_of(clip, colors, ("OPTIM.LR", "9e18"), ("OPTIM.WEIGHT_DECAY", "9e18"))
    with pytest.raises(TrainingError, match=r"epoch \d+, batch \d+, at learning rate"):
        fitted(trainer)


def test_rounds_and_seeds_start_from_other_prompts(clip, colors, trainer):
    """Fresh prompts of another round or another seed differ; those of the same round and seed do not."""
    other_seed = trainer_of(clip, colors, ("SEED", "0"))
    assert torch.equal(context(trainer._fresh(0)), context(trainer._fresh(0)))
    assert not torch.equal(context(trainer._fresh(0)), context(trainer._fresh(1)))
    assert not torch.equal(context(trainer._fresh(0)), context(other_seed._fresh(0)))


def test_initial_prompts_do_not_depend_on_the_sampler(clip, colors, trainer):
    """The streams of initialization and selection are separate (row 16)."""
    from active.registry import SAMPLERS

    cfg = setup_config([], [("ACTIVE.SAMPLER", "entropy")], [LEARNERS, SAMPLERS])
    assert torch.equal(context(build_trainer(cfg, trainer.inputs)._fresh(2)), context(trainer._fresh(2)))


def test_the_frozen_weights_stay_as_they_were(trainer):
    """Training changes no weight of CLIP."""
    before = {name: value.clone() for name, value in trainer.clip.model.state_dict().items()}
    fitted(trainer)
    assert all(torch.equal(value, before[name]) for name, value in trainer.clip.model.state_dict().items())


def test_predict_is_the_cosine_classifier(trainer):
    """Logits are exp(logit_scale) times the cosine of image and text features, in the order of the split."""
    prediction = trainer.predict(trainer.zero_shot(), "test")
    texts = trainer.clip.tokenizer([f"a photo of a {name}." for name in NAMES])
    expected = trainer.clip.logit_scale * trainer.inputs.features["test"] @ normalized(trainer.clip.model.encode_text(texts)).T
    assert torch.allclose(prediction.logits, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["AS", "AE"])
@pytest.mark.parametrize("name", ["CoOp", "DualPrompt"])
def test_samplers_get_the_texts_that_logits_are_made_of(clip, colors, tmp_path, name, mode):
    """This includes AS, whose class features are shorter than 1: at unit length, classes would be ranked differently."""
    file = tmp_path / "descriptions.json"
    file.write_text(json.dumps({"red": ["warmth", "a long wave"], "green": ["leaves"], "blue": ["sky", "a short wave"]}))
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("TRAINER.DESCRIPTIONS.MODE", mode),
                         ("TRAINER.DESCRIPTIONS.FILE", str(file)))
    prediction = trainer.predict(fitted(trainer), "test")
    expected = trainer.clip.logit_scale * prediction.features @ prediction.text_features.T
    assert torch.allclose(prediction.logits, expected, atol=1e-4)
    if mode == "AS":  # where a class lies is the mean too, as it is
        assert torch.equal(prediction.class_directions, prediction.text_features)
    else:
        assert prediction.class_directions is None
    for texts in (prediction.text_features, prediction.negative_text_features):
        if texts is not None:
            assert bool((texts.norm(dim=1) < 0.9999).any()) == (mode == "AS")


@pytest.mark.parametrize("name", CASES)
def test_saved_prompts_give_identical_logits(clip, colors, tmp_path, name):
    """A learner saved and loaded predicts bit for bit the same."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name))
    model = fitted(trainer)
    trainer.save(model, tmp_path / "prompts.safetensors")
    loaded = trainer.load(tmp_path / "prompts.safetensors")
    assert torch.equal(trainer.predict(loaded, "test").logits, trainer.predict(model, "test").logits)


def test_prompts_of_another_length_classes_or_backbone_are_refused(clip, colors, trainer, tmp_path):
    """Row 28: prompts that belong to something else are refused, naming what differs."""
    path = tmp_path / "prompts.safetensors"
    trainer.save(fitted(trainer), path)
    with pytest.raises(UserError, match=r"another shape.*\(16, 24\).*\(4, 24\)"):
        trainer_of(clip, colors, ("TRAINER.COOP.N_CTX", "4")).load(path)
    renamed = Dataset("Colors", colors.root, colors.train, (), colors.test, ("red", "green", "cyan"))
    with pytest.raises(UserError, match=r"another class names.*blue.*cyan"):
        trainer_of(clip, renamed).load(path)
    other = trainer_of(random_clip(), colors)
    other.clip.fingerprint = "other"
    with pytest.raises(UserError, match="another weights"):
        other.load(path)


@pytest.mark.parametrize(("name", "pair", "message"), [
    ("CoOp", ("TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"), "text layout"),
    ("VPT", ("TRAINER.VPT.LAYOUT", "deft"), "image layout"), ("VPT", ("TRAINER.VPT.TEMPLATE", "a {}"), "text layout"),
    ("MaPLe", ("TRAINER.MAPLE.CTX_INIT", "a photo of the"), "text layout"),
    ("DualPrompt", ("TRAINER.DUALPROMPT.N_CTX_VISION", "0"), "another shape")])
def test_prompts_of_another_layout_are_refused(clip, colors, tmp_path, name, pair, message):
    """Row 28: prompts of the same shapes that would stand in other texts or places are refused, not misread."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", name), ("OPTIM.MAX_EPOCH", "1"))
    trainer.save(fitted(trainer), tmp_path / "prompts.safetensors")
    with pytest.raises(UserError, match=message):
        trainer_of(clip, colors, ("TRAINER.NAME", name), pair).load(tmp_path / "prompts.safetensors")


@pytest.mark.parametrize("belongs_to", ["[]", "5", "[1]", "{"])
def test_prompts_that_say_nonsense_of_themselves_are_refused(trainer, tmp_path, belongs_to):
    """Row 19: anything wrong in the file's metadata is an error with the path."""
    path = tmp_path / "prompts.safetensors"
    save_file(fitted(trainer).learner.state_dict(), path, metadata={"belongs_to": belongs_to})
    with pytest.raises(UserError, match=str(path)):
        trainer.load(path)


def test_a_damaged_prompts_file_is_a_clear_error(trainer, tmp_path):
    """Row 19: nothing but safetensors is read; a pickle or a cut file is refused with its path."""
    path = tmp_path / "prompts.safetensors"
    torch.save({"ctx": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"prompts\.safetensors"):
        trainer.load(path)


def test_zero_shot_trainer_has_nothing_to_fit(clip, colors):
    """TRAINER.NAME ZeroShot runs through `fit` without an optimizer and predicts as `zero_shot` does."""
    trainer = trainer_of(clip, colors, ("TRAINER.NAME", "ZeroShot"))
    logits = [trainer.predict(model, "test").logits for model in (fitted(trainer), trainer.zero_shot())]
    assert torch.equal(*logits)


@pytest.mark.parametrize(("pairs", "expected"), [
    ((), (0.02, 0.005, 8, 4)),
    ((("LR", "0.5"), ("WEIGHT_DECAY", "0.25"), ("MAX_EPOCH", "3"), ("BATCH_SIZE", "7")), (0.5, 0.25, 3, 7)),
    ((("WEIGHT_DECAY", "0"),), (0.02, 0.0, 8, 4))])
def test_a_selecting_learner_trains_by_its_own_values_or_else_by_those_reported(trainer, pairs, expected):
    """ACTIVE.SELECTOR_OPTIM sets rate, decay (0 counts), epochs and batch of the selecting learner only."""
    cfg = setup_config([], [("OPTIM.LR", "0.02"), ("OPTIM.WEIGHT_DECAY", "0.005"), ("OPTIM.MAX_EPOCH", "8"),
                            ("DATALOADER.TRAIN_X.BATCH_SIZE", "4"), ("ACTIVE.SELECTOR_TRAINER", "VPT"),
                            *((f"ACTIVE.SELECTOR_OPTIM.{key}", value) for key, value in pairs)], [LEARNERS])
    selecting, reported = build_selector(cfg, trainer.inputs).recipe, build_trainer(cfg, trainer.inputs).recipe
    assert (selecting.name, reported.name) == ("VPT", "CoOp")
    for recipe, values in ((selecting, expected), (reported, (0.02, 0.005, 8, 4))):
        optimizer, _ = recipe.build_optimization([torch.nn.Parameter(torch.zeros(1))])
        group = optimizer.param_groups[0]
        assert (group["initial_lr"], group["weight_decay"], recipe.n_epochs, recipe.batch_size) == values


def test_metadata_is_plain_json(trainer, tmp_path):
    """It says what the prompts belong to, and can be read without this project."""
    from safetensors import safe_open

    trainer.save(fitted(trainer), tmp_path / "prompts.safetensors")
    with safe_open(tmp_path / "prompts.safetensors", "pt") as file:
        assert json.loads(file.metadata()["belongs_to"])["class names"] == list(NAMES)


def test_a_bit_of_a_prompts_file_that_has_turned_is_found(clip, colors, tmp_path):
    """It is found even without the record that holds the file's hash. Older files have no checksum and are read."""
    trainer = trainer_of(clip, colors, ("OPTIM.MAX_EPOCH", "1"))
    model = fitted(trainer)
    trainer.save(model, path := tmp_path / "prompts.safetensors")
    assert torch.equal(context(trainer.load(path)), context(model))
    whole = path.read_bytes()
    n_bytes = context(model).numel() * 4
    for position in range(len(whole) - n_bytes, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1:])
        with pytest.raises(UserError, match="does not match its checksum"):
            trainer.load(path)
    save_file({"ctx": context(model)}, path, metadata={"belongs_to": json.dumps(trainer._belongs_to(model))})
    assert torch.equal(context(trainer.load(path)), context(model))


def test_every_seed_and_round_has_a_stream_of_its_own_for_the_loss(clip, colors, monkeypatch):
    """Each of two rounds of two seeds gives its steps other numbers; the same seed and round gives the same."""
    drawn, loss_of = [], Learner.loss

    def noted(self, classifier, batch):
        drawn.append(batch.rng.random())
        return loss_of(self, classifier, batch)

    monkeypatch.setattr(Learner, "loss", noted)
    for seed, round in (("1", 0), ("1", 1), ("2", 0), ("2", 1), ("1", 0)):
        fitted(trainer_of(clip, colors, ("SEED", seed), ("OPTIM.MAX_EPOCH", "1")), round)
    assert len(drawn) == 15 and len(set(drawn[:12])) == 12 and drawn[12:] == drawn[:3]


def test_a_step_that_once_found_no_memory_draws_as_any_other(clip, colors, monkeypatch):
    """The loss of DualPrompt draws wrong classes. In parts they are those of the whole batch."""
    def logits(*, fails: bool) -> torch.Tensor:
        trainer = trainer_of(clip, colors, ("TRAINER.NAME", "DualPrompt"), ("OPTIM.MAX_EPOCH", "2"), ("OPTIM.LR", "0.002"))
        gradient_of, calls = _Steps._gradient_of, []

        def once_without_room(self, part, share):
            loss = gradient_of(self, part, share)
            calls.append(share)
            if fails and len(calls) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return loss

        with monkeypatch.context() as patch:
            patch.setattr(_Steps, "_gradient_of", once_without_room)
            return trainer.predict(fitted(trainer), "test").logits

    assert torch.allclose(logits(fails=True), logits(fails=False), atol=0.05)  # rounding, times 100


def test_dropout_is_drawn_again(clip, colors):
    """CLIPLoRA has a random stream of its own."""
    learner = trainer_of(clip, colors, ("TRAINER.NAME", "CLIPLoRA"))._fresh(0).learner
    ones = torch.ones(50)
    for _ in range(2):  # before the first draw, and after it
        draw_again = learner.remember()
        first, second = learner._drop(ones), learner._drop(ones)
        draw_again()
        assert torch.equal(learner._drop(ones), first) and not torch.equal(first, second)


def test_a_card_without_room_is_one_line(root, tmp_path, monkeypatch, capsys):
    """Wherever it is noticed."""
    def without_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(PromptTrainer, "_labels", without_room)
    assert train.main(["--config-file", "configs/quickstart.yaml", "--root", str(root), "--output-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the card has no room: CUDA out of memory. Tried to allocate 2 GiB.; ACTIVE.DEVICE cpu" in error
