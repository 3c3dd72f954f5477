"""The encoders against open_clip itself."""

import math
import weakref

import numpy as np
import open_clip
import pytest
import torch

from dassl.utils.errors import UserError
from tests.trainers.plain import plain_text
from trainers.clip.backbones import load_clip
from trainers.clip.causal_text import N_STREAMS
from trainers.clip.frozen_clip import normalized
from trainers.core.patterns import random_clip
from trainers.core.prompted_clip import PromptedCLIP, averaged
from trainers.core.prompts import Averaging, Batch, ClassTexts, Prompts
from trainers.core.token_rows import template_rows, token_rows
from trainers.registry import LEARNERS

NAMES = ["cat", "golden retriever", "forest with a very long name of many words"]


def test_image_encoder_without_prompts_is_open_clip_bit_for_bit(clip):
    """No prompt, no difference."""
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(clip.encode_image(images), clip.model.encode_image(images))


def test_text_encoder_without_prompts_is_open_clip_bit_for_bit(clip):
    """No prompt, no difference."""
    rows = template_rows(clip.tokenizer, NAMES, "a photo of a {}.")
    assert torch.equal(clip.encode_text(rows), clip.model.encode_text(rows.ids))


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_prompted_text_encoder_equals_a_hand_computed_tower(position, specific, quick_gelu):
    """In float64, every text laid out by hand at full length and sent through the blocks one by one gives the same."""
    clip = random_clip(torch.float64, quick_gelu=quick_gelu)
    text = clip.model
    rows = token_rows(clip.tokenizer, NAMES, 3, position)
    context = torch.randn(*((3,) if specific else ()), 3, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = []
    for row in range(3):
        x = text.token_embedding(rows.ids[row]).clone()
        for token, slot in enumerate(rows.slots[row]):
            x[slot] = context[row, token] if specific else context[token]
        x = (x + text.positional_embedding)[None]
        for block in text.transformer.resblocks:
            x = block(x, attn_mask=text.attn_mask)
        expected.append(text.ln_final(x)[0, rows.ids[row].argmax()] @ text.text_projection)
    assert torch.allclose(clip.encode_text(rows, Prompts(text=(context,))), torch.stack(expected), rtol=0, atol=1e-12)


DEEP = {  # shapes of the tokens of each block: s shared, c class-specific, - none
    "a class's own from a block on": "s-c", "right in the second": "scs", "of all blocks": "ccc", "shared behind own": "css",
    "none behind own": "c-s"}


@pytest.mark.parametrize("layout", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("names", [("cat",), ("cat", "cat fish", "cat fish river"), tuple(NAMES)])
def test_deep_text_prompts_of_a_class_equal_the_plain_path(clip64, layout, names):
    """Class-specific tokens may be in any block, with one text, names that begin alike or others, forward and backward."""
    rows, generator = token_rows(clip64.tokenizer, names, 3), torch.Generator().manual_seed(1)
    shapes = {"s": (3, 24), "c": (len(names), 3, 24), "-": (0, 24)}
    tokens = [torch.randn(shapes[kind], dtype=torch.float64, generator=generator).requires_grad_() for kind in layout]
    found, expected = clip64.encode_text(rows, Prompts(text=tuple(tokens))), plain_text(clip64, rows, tuple(tokens))
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    used = [own for own in tokens if own.numel()]
    weights = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    gradients = (torch.autograd.grad((features * weights).sum(), used) for features in (found, expected))
    for own, plain in zip(*gradients, strict=True):
        assert (own - plain).abs().max() < 1e-11 * plain.abs().max()


@pytest.mark.parametrize("position", ["middle", "front"])
@pytest.mark.parametrize("shape", [(3, 24), (3, 3, 24)])
def test_deep_text_prompts_need_a_context_behind_the_start_token(clip, position, shape):
    """Elsewhere there is no one place where they take over."""
    tokens = torch.zeros(3, 24), torch.zeros(shape)
    with pytest.raises(ValueError, match="right behind the start token"):
        clip.encode_text(token_rows(clip.tokenizer, NAMES, 3, position), Prompts(text=tokens))


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_image_tokens_without_prompts_give_open_clip_s_features(quick_gelu):
    """The last block is evaluated at the class token alone, with the activation that the tower has: GELU, or OpenAI's."""
    clip = random_clip(torch.float64, quick_gelu=quick_gelu)
    assert type(clip.model.visual.transformer.resblocks[-1].mlp.gelu).__name__ == ("QuickGELU" if quick_gelu else "GELU")
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = clip.encode_image_tokens(clip.embed_image(images), Prompts())
    assert torch.allclose(found, clip.model.encode_image(images), rtol=0, atol=1e-12)


def test_rows_before_the_projection_give_open_clip_s_features_bit_for_bit(clip):
    """[B, width] of the class token behind the last norm; the projection is CLIP's own."""
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = clip.encode_before_projection(images)
    assert rows.shape == (5, 32) and clip.image_projection.shape == (32, 16)
    assert torch.equal(rows @ clip.image_projection, clip.model.encode_image(images))


def test_a_tower_without_a_linear_projection_says_so():
    """A ViT whose projection was taken away, and a ResNet."""
    clip = random_clip()
    clip.model.visual.proj = None
    with pytest.raises(UserError, match="random has no linear projection"):
        _ = clip.image_projection
    with torch.random.fork_rng(devices=[]):
        vision = open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32)
        clip.model.visual = open_clip.model.CLIP(16, vision, open_clip.CLIPTextCfg(width=24, heads=3, layers=2)).visual
    with pytest.raises(UserError, match="no vision transformer"):
        _ = clip.image_projection


def test_weights_take_no_gradients(clip):
    """Only prompts are trained."""
    assert not any(parameter.requires_grad for parameter in clip.model.parameters())


@pytest.mark.parametrize("normalize", [False, True])
def test_descriptions_are_averaged_in_fp32(normalize):
    """Features of low-precision towers are averaged in fp32, in both modes."""
    features = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    found = averaged(features, Averaging(matrix, normalize))
    assert found.dtype == torch.float32 and torch.equal(found, averaged(features.float(), Averaging(matrix, normalize)))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_low_precision_towers_stay_near_fp32_and_prompts_stay_fp32(precision):
    """MODEL.PREC is the towers' precision: features are near those of fp32; a prompt and its gradient are fp32."""
    weights = "configs/models/tiny_clip.safetensors"
    exact, low = (load_clip("tiny_clip", weights, precision=name) for name in ("fp32", precision))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (normalized(low.encode_image(images)) - normalized(exact.encode_image(images))).abs().max() < 0.02
    models = [PromptedCLIP(clip, LEARNERS["MaPLe"].build(clip, ClassTexts(tuple(NAMES), "{}"), np.random.default_rng(0),
                                                         prompt_depth=2)) for clip in (exact, low)]
    features = [model.classifier(model.learner()).texts for model in models]
    assert features[1].dtype == torch.float32 and (features[1] - features[0]).abs().max() < 0.02
    (models[1].image_features(low.embed_image(images), models[1].learner()).sum() + features[1].sum()).backward()
    assert all(parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()
               for parameter in models[1].learner.parameters())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(("name", "parameters"), [
    ("DualPrompt", {"prompt_depth_vision": 2}), ("VPT", {"prompt_depth": 2, "layout": "deft"}),
    ("CLIPLoRA", {"dropout": 0.0, "matrices": "qkvo"})])
def test_losses_on_low_precision_towers_are_fp32_and_near_those_on_fp32(name, parameters, precision):
    """This includes negative contexts and prompts after `ln_pre`. The loss and the gradients' direction are compared."""
    losses, gradients = [], []
    for clip in (load_clip("tiny_clip", "configs/models/tiny_clip.safetensors", precision=own) for own in ("fp32", precision)):
        texts = ClassTexts(tuple(NAMES), "a photo of a {}.")
        model = PromptedCLIP(clip, LEARNERS[name].build(clip, texts, np.random.default_rng(0), **parameters))
        images, prompts = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), model.learner()
        features, classifier = model.image_features(clip.embed_image(images), prompts), model.classifier(prompts)
        batch = Batch(features, torch.arange(6) % 3, clip.logit_scale, None, np.random.default_rng(0))
        losses.append(model.learner.loss(classifier, batch))
        losses[-1].backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.learner.parameters())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.learner.parameters()]))
    assert losses[1].dtype == torch.float32 and losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


def test_the_test_clip_spreads_its_features():
    """The random CLIP of the tests must not give nearly the same features for all texts or images."""
    clip = random_clip()
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cosines = torch.corrcoef(clip.encode_image(images))
    assert cosines.fill_diagonal_(0).max() < 0.99


def test_a_clip_is_freed_with_its_last_user():
    """Text streams are kept, but not beyond the CLIP, so that a sweep over backbones holds one at a time."""
    clip = random_clip()
    rows = token_rows(clip.tokenizer, NAMES, 3)
    context = torch.zeros(3, 24)
    first = clip.encode_text(rows, Prompts(text=(context,)))
    assert torch.equal(clip.encode_text(rows, Prompts(text=(context,))), first)
    gone = weakref.ref(clip)
    del clip
    assert gone() is None


def test_no_more_streams_are_kept_than_said(clip):
    """Old ones make room, and are made again when they are needed."""
    context = Prompts(text=(torch.zeros(3, 24),))
    rows = [token_rows(clip.tokenizer, [f"name {number}"], 3) for number in range(N_STREAMS + 2)]
    before = [clip.encode_text(own, context) for own in rows]
    assert len(clip.text_tower._made_streams) == N_STREAMS
    assert all(torch.equal(clip.encode_text(own, context), features) for own, features in zip(rows, before, strict=True))


def test_the_logit_scale_is_exact(clip):
    """The exponential of the weight in float64: in float32 CLIP's 100 would be 99.99999 or 100.00001."""
    assert clip.logit_scale == math.exp(float(clip.model.logit_scale))
