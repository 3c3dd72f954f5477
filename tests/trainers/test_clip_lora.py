"""CLIPLoRA against open_clip's own forward pass with changed weights, and what it leaves as it was."""

import math

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from dassl.utils.errors import ConfigError, UserError
from tests.trainers.colors import ROWS, trainer_of
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.clip_lora import chosen_blocks
from trainers.core.low_rank import LowRank
from trainers.core.patterns import random_clip
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Prompts
from trainers.core.token_rows import token_rows
from trainers.learner import LEARNERS, ClassTexts

TEXTS = ClassTexts(("cat", "golden retriever", "hot_dog", "forest with a longer name"), "a photo of a {}.")
LORA = ("TRAINER.NAME", "CLIPLoRA")
CASES = [{}, {"matrices": "qkvo", "rank": 3}, {"matrices": "o"}, {"matrices": "qk", "blocks": "top 1"},
         {"matrices": "v", "blocks": "bottom 2", "alpha": 5.0}, {"towers": "image"}, {"towers": "text", "matrices": "vo"}]


def model_of(clip, dtype=torch.float64, **parameters):
    """Return a model whose changes are not 0."""
    learner = LEARNERS["CLIPLoRA"].build(clip, TEXTS, np.random.default_rng(0), **parameters).to(dtype)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in learner.named_parameters():
        if name.endswith("up"):
            parameter.data.normal_(generator=generator)
    return PromptedCLIP(clip, learner.eval())


def pictures(dtype=torch.float64):
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=dtype)


def own_features(model, images):
    prompts = model.learner()
    return model.image_features(model.clip.embed_image(images), prompts), model.classifier(prompts).texts


def plain_features(model, images):
    """Return open_clip's own features of the same model with other weights in its attention: W + (alpha / sqrt(r)) B A."""
    clip, learner, weights = model.clip, model.learner, dict(model.clip.model.named_parameters())
    for prefix, tower in (("visual.", learner.image), ("", learner.text)):
        for block, matrices in tower.items():
            for name, factors in matrices.items():
                rank = factors["down"].shape[0]
                change = learner.alpha / math.sqrt(rank) * factors["up"] @ factors["down"]
                key = f"{prefix}transformer.resblocks.{block}.attn." + ("out_proj.weight" if name == "o" else "in_proj_weight")
                if name != "o":
                    change = torch.cat([change if part == name else torch.zeros_like(change) for part in "qkv"])
                weights[key] = weights[key] + change
    return functional_call(clip.model, weights, (images, learner.rows.ids))[:2]


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("parameters", CASES)
def test_features_and_gradients_are_those_of_open_clip_with_the_changed_weights(parameters, quick_gelu):
    """To 1e-10 in float64. Merged weights, as for predictions, and separate ones, as in training, are the same function."""
    clip, images, found = random_clip(torch.float64, quick_gelu=quick_gelu), pictures(), []
    model = model_of(clip, dropout=0.0, **parameters)
    frozen = clip.model(images, model.learner.rows.ids)[:2]
    towers = {"image": (0,), "text": (1,)}.get(parameters.get("towers"), (0, 1))
    for features_of, training in ((plain_features, False), (own_features, False), (own_features, True)):
        model.learner.train(training).zero_grad()
        if features_of is own_features and 0 not in towers:  # it reads frozen features
            features = (frozen[0], model.classifier(model.learner()).texts)
        else:
            features = features_of(model, images)
        weights = torch.Generator().manual_seed(2)
        sum((own * torch.randn(own.shape, generator=weights, dtype=own.dtype)).sum() for own in features).backward()
        found.append([*features, *(parameter.grad for parameter in model.learner.parameters())])
    assert len(found[0]) > 3
    for other in found[1:]:
        for own, expected in zip(other, found[0], strict=True):
            assert torch.allclose(own, expected, rtol=1e-10, atol=1e-10 * float(expected.detach().abs().max()))
    for tower in towers:
        assert (found[0][tower] - frozen[tower]).abs().max() > 1e-3
    assert all(bool((own != 0).any()) for own in found[0][2:])


@pytest.mark.parametrize("parameters", CASES)
def test_in_float32_too(clip, parameters):
    """The tolerance is 1e-5."""
    model, images = model_of(clip, torch.float32, **parameters), pictures(torch.float32)
    own, plain = own_features(model, images) if model.learner.tunes_images else None, plain_features(model, images)
    texts = model.classifier(model.learner()).texts
    assert own is None or torch.allclose(own[0], plain[0], rtol=0, atol=1e-5)
    assert torch.allclose(texts, plain[1], rtol=0, atol=1e-5)


def test_text_prompts_and_changes_go_together(clip64):
    """A context in the slots of a changed tower gives the features of that tower without a context, for the same tokens."""
    model = model_of(clip64, matrices="qkvo", towers="text")
    rows = token_rows(clip64.tokenizer, TEXTS.classnames, 4)
    words = clip64.embed_tokens(clip64.tokenizer(["a photo of a"])[0, 1:5])
    changes = model.learner().text_changes
    found = clip64.encode_text(rows, Prompts(text=(words,), text_changes=changes))
    expected = clip64.encode_text(model.learner.rows, Prompts(text_changes=changes))
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_it_begins_as_frozen_clip(clip, training):
    """As B = 0, features are open_clip's. Dropout is only on the branch of the change, so it makes no difference."""
    model = PromptedCLIP(clip, LEARNERS["CLIPLoRA"].build(clip, TEXTS, np.random.default_rng(0), matrices="qkvo"))
    model.learner.train(training)
    images = pictures(torch.float32)
    for own, expected in zip(own_features(model, images), clip.model(images, model.learner.rows.ids)[:2], strict=True):
        assert torch.allclose(own, expected, rtol=0, atol=1e-5)


def test_without_a_step_logits_are_zero_shot_clip_s(clip, colors):
    """Of the whole trainer, on images that are read again."""
    trainer = trainer_of(clip, colors, LORA)
    found, expected = (trainer.predict(model, "test").logits for model in (trainer._fresh(0), trainer.zero_shot()))
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)


def test_clip_itself_stays_as_it_was(clip, colors):
    """No weight moves or has a gradient. Other learners' texts are the same before and after, bit for bit."""
    weights = {name: value.clone() for name, value in clip.model.state_dict().items()}
    rows, context = token_rows(clip.tokenizer, ["cat", "dog"], 2), Prompts(text=(torch.ones(2, clip.text_width),))
    before = clip.encode_text(rows, context)
    trainer = trainer_of(clip, colors, LORA, ("OPTIM.MAX_EPOCH", "2"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    trainer.predict(model, "test")
    assert all(torch.equal(value, weights[name]) for name, value in clip.model.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in clip.model.parameters())
    assert all(parameter.grad is not None for parameter in model.learner.parameters())
    assert torch.equal(clip.encode_text(rows, context), before)


@pytest.mark.parametrize("towers", ["both", "image", "text"])
def test_predictions_are_of_the_trained_towers(clip, colors, towers):
    """Pool and test are encoded by the changed image tower. If that tower is unchanged, the frozen features are used."""
    trainer = trainer_of(clip, colors, LORA, ("TRAINER.CLIPLORA.TOWERS", towers), ("OPTIM.LR", "0.1"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    zero_shot = trainer.predict(trainer.zero_shot(), "test")
    for split in ("train", "test"):
        found = trainer.predict(model, split)
        assert torch.equal(found.features, trainer.inputs.features[split]) == (towers == "text")
        assert torch.allclose(found.text_features, zero_shot.text_features, atol=1e-6) == (towers == "image")


def test_dropout_is_in_steps_alone_and_has_a_stream_of_its_own(clip, global_random_state):
    """In training each pass differs; the same seed gives the same passes; in evaluation there is none."""
    images, passes = pictures(torch.float32), []
    for _ in range(2):
        model = model_of(clip, torch.float32)
        still = own_features(model, images)
        model.learner.train()
        passes.append([own_features(model, images) for _ in range(2)])
        model.learner.eval()
        assert all(map(torch.equal, own_features(model, images), still))
    for tower in range(2):
        (one, two), (again, _) = ([features[tower] for features in own] for own in passes)
        assert torch.equal(one, again) and not torch.allclose(one, two, atol=1e-3)


def test_dropped_inputs_have_the_share_and_the_mean(clip):
    """A quarter of the entries is 0, the others are 4/3 of what they were."""
    learner = LEARNERS["CLIPLoRA"].build(clip, TEXTS, np.random.default_rng(0)).train()
    x = torch.rand(200, 500) + 0.5
    ratio = learner._drop(x) / x
    dropped = ratio == 0
    assert abs(dropped.double().mean() - 0.25) < 0.01
    assert torch.allclose(ratio[~dropped], torch.tensor(4 / 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_full_precision_are_merged_for_predictions(dtype):
    """There is one product of the inputs, not two, bit for bit. A change that is being trained stays separate."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, down, up = (torch.randn(*shape, generator=generator).to(dtype)
                                 for shape in ((4, 6), (5, 6), (5,), (2, 6), (5, 2)))
    assert torch.equal(LowRank(down, up).linear(x, weight, bias), F.linear(x, weight + up @ down, bias))
    beside = LowRank(down, up, drop=torch.zeros_like).linear(x, weight, bias)
    assert torch.equal(beside, F.linear(x, weight, bias))


def test_small_changes_are_not_lost_in_towers_of_low_precision():
    """Merged into bfloat16 weights of 1, changes of 0.001 would be rounded away. Kept separate they are not."""
    weight = torch.ones(1, 512, dtype=torch.bfloat16)
    weight[:, ::2] = -1
    change = LowRank(torch.full((1, 512), 0.001), torch.ones(1, 1))
    x, bias = torch.ones(1, 512, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)
    found = change.linear(x, weight, bias)
    assert found.dtype == torch.bfloat16 and found.item() == pytest.approx(0.512, rel=0.02)


def test_a_model_is_kept_as_its_factors(clip, colors, tmp_path):
    """The file has kilobytes, and gives the same logits bit for bit."""
    trainer = trainer_of(clip, colors, LORA, ("OPTIM.MAX_EPOCH", "2"))
    model = trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0)
    trainer.save(model, path := tmp_path / "lora.safetensors")
    n_numbers = 3 * 3 * 2 * 2 * (clip.text_width + clip.image_width)  # 3 matrices of 3 blocks, A and B of rank 2
    assert sum(parameter.numel() for parameter in model.learner.parameters()) == n_numbers
    assert 4 * n_numbers < path.stat().st_size < 4 * n_numbers + 16_000
    for split in ("train", "test"):
        found, expected = (trainer.predict(own, split).logits for own in (trainer.load(path), model))
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("key", "value", "said"), [
    ("RANK", "3", "another shape"), ("MATRICES", "qk", "another shape"), ("MATRICES", "qko", "another shape"),
    ("BLOCKS", "top 2", "another shape"), ("TOWERS", "text", "another shape"), ("ALPHA", "2", "another constants"),
    ("TEMPLATE", "the {}", "another text layout")])
def test_a_model_of_other_changes_is_refused(clip, colors, tmp_path, key, value, said):
    """This holds even if all shapes are the same. Dropout matters only in training and is not compared."""
    trainer = trainer_of(clip, colors, LORA, ("OPTIM.MAX_EPOCH", "1"))
    trainer.save(trainer.fit(ROWS, trainer.inputs.dataset.labels("train")[ROWS], 0), path := tmp_path / "lora.safetensors")
    with pytest.raises(UserError, match=said):
        trainer_of(clip, colors, LORA, (f"TRAINER.CLIPLORA.{key}", value)).load(path)
    trainer_of(clip, colors, LORA, ("TRAINER.CLIPLORA.DROPOUT", "0.5")).load(path)


@pytest.mark.parametrize(("blocks", "expected"), [("all", range(12)), ("top 3", range(9, 12)), ("bottom 3", range(3)),
                                                  ("top 12", range(12)), ("bottom 12", range(12)), ("top 1", range(11, 12))])
def test_chosen_blocks(blocks, expected):
    """The last ones, the first ones, or all."""
    assert list(chosen_blocks(blocks, 12)) == list(expected)


@pytest.mark.parametrize("blocks", ["", "none", "top", "top 0", "top -1", "bottom x", "top 1.5", "middle 2", "top  2", "all 3"])
def test_words_for_blocks_that_mean_nothing_are_refused(blocks):
    """One line names the key and its possible values."""
    with pytest.raises(ConfigError, match=r"TRAINER\.CLIPLORA\.BLOCKS is .*'all', 'top N' or 'bottom N'"):
        chosen_blocks(blocks, 12)


def test_more_blocks_than_there_are_and_unknown_matrices_are_refused(clip):
    """Both errors name the key. Matrices are checked before anything is loaded."""
    with pytest.raises(UserError, match=r"TRAINER\.CLIPLORA\.BLOCKS: top 4 .* tower has 3"):
        model_of(clip, blocks="top 4")
    matrices = next(own for own in LEARNERS["CLIPLoRA"].parameters if own.name == "matrices")
    for value in ("", "x", "qq", "Q", "kq", "q k"):
        with pytest.raises(ConfigError, match=rf"TRAINER\.CLIPLORA\.MATRICES is '{value}'"):
            matrices.check(value, "TRAINER.CLIPLORA.MATRICES")


def test_on_a_resnet_the_text_tower_alone_is_changed():
    """Its image tower has no blocks; the error says so, and `towers: text` works on frozen features."""
    with torch.random.fork_rng(devices=[]):
        model = open_clip.model.CLIP(16, open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32),
                                     open_clip.CLIPTextCfg(width=24, heads=3, layers=2))
    clip = FrozenCLIP(model, open_clip.get_tokenizer("ViT-B-32"), None, name="RN tiny", fingerprint="")
    own = model_of(clip, torch.float32, towers="text")
    assert not own.learner.tunes_images and own.classifier(own.learner()).texts.shape == (4, 16)
    with pytest.raises(UserError, match="no vision transformer"):
        model_of(clip)


def test_factors_begin_within_their_bounds(clip):
    """A is uniform in +-1/sqrt(width), B is 0."""
    learner = LEARNERS["CLIPLoRA"].build(clip, TEXTS, np.random.default_rng(0), rank=64)
    for tower, width in ((learner.text, clip.text_width), (learner.image, clip.image_width)):
        for factors in (own for matrices in tower.values() for own in matrices.values()):
            bound = 1 / math.sqrt(width)
            assert 0.95 * bound < factors["down"].abs().max() <= bound and not factors["up"].any()
            assert abs(factors["down"].detach().std() / (bound / math.sqrt(3)) - 1) < 0.1
