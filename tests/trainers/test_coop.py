"""CoOp: its initial state, its layouts, its parameters."""

import numpy as np
import pytest
import torch

from trainers.clip.frozen_clip import normalized
from trainers.coop import CoOp
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Classifier, ClassTexts

NAMES = ("cat", "golden retriever", "hot_dog", "forest")
TEXTS = ClassTexts(NAMES, "a photo of a {}.")


def text_features(model):
    return model.classifier(model.learner()).texts


def learner(clip, seed=0, **parameters):
    return CoOp(clip, TEXTS, np.random.default_rng(seed), **parameters)


@pytest.mark.parametrize("csc", [False, True])
@pytest.mark.parametrize(("fixture", "tolerance"), [("clip", 1e-4), ("clip64", 1e-6)])
def test_untrained_word_context_gives_zero_shot_logits(request, fixture, tolerance, csc):
    """With CTX_INIT "a photo of a" and no step taken, the logits are those of "a photo of a {}." in open_clip.

    The context itself is fp32 in both, which is exact, since it copies token embeddings (rounded to fp32 in float64).
    """
    clip = request.getfixturevalue(fixture)
    dtype = clip.model.text_projection.dtype
    images = normalized(torch.randn(6, 16, generator=torch.Generator().manual_seed(0), dtype=dtype))
    texts = clip.tokenizer([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    expected = clip.logit_scale * images @ normalized(clip.model.encode_text(texts)).T
    model = PromptedCLIP(clip, learner(clip, ctx_init="a_photo_of a", csc=csc))
    with torch.no_grad():
        assert torch.allclose(model.logits(images, Classifier(text_features(model))), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("parameters", "shape"), [
    ({}, (16, 24)), ({"n_ctx": 4}, (4, 24)), ({"csc": True}, (4, 16, 24)),
    ({"ctx_init": "a photo of a"}, (4, 24)), ({"ctx_init": "a photo of a", "csc": True}, (4, 4, 24)),
    ({"ctx_init": "an xylophonist's"}, (None, 24)),
])
def test_shape_of_the_context(clip, parameters, shape):
    """Shared [n, w] or class-specific [C, n, w]; words set n, in tokens."""
    found = learner(clip, **parameters).ctx.shape
    n = len(clip.tokenizer.encode(parameters.get("ctx_init", ""))) or shape[-2]
    assert found == (*shape[:-2], n, shape[-1])


def test_csc_at_16_tokens_of_width_512_on_47_classes_has_385024_parameters():
    """The count of the PCB protocol on DTD: 47 classes x 16 tokens x 512."""
    class Clip:
        import open_clip
        tokenizer, text_width = open_clip.get_tokenizer("ViT-B-32"), 512

    coop = CoOp(Clip(), ClassTexts(tuple(f"class {i}" for i in range(47)), "{}"), np.random.default_rng(0), csc=True)
    assert sum(parameter.numel() for parameter in coop.parameters()) == 385_024


def test_random_context_is_normal_with_deviation_002(clip):
    """The initial context has mean 0 and standard deviation 0.02."""
    values = learner(clip, n_ctx=70, csc=True).ctx.detach()
    assert abs(values.std() / 0.02 - 1) < 0.03 and abs(values.mean()) < 0.001


def test_class_specific_contexts_differ_and_words_start_alike(clip):
    """Random class-specific contexts are drawn for each class; contexts given in words start as copies."""
    assert not torch.equal(*learner(clip, csc=True).ctx[:2])
    assert torch.equal(*learner(clip, csc=True, ctx_init="a photo").ctx[:2])


def test_initialization_follows_its_generator(clip, global_random_state):
    """The same generator gives the same context, and another one a different context. Global generators are not touched."""
    assert torch.equal(learner(clip, 1).ctx, learner(clip, 1).ctx)
    assert not torch.equal(learner(clip, 1).ctx, learner(clip, 2).ctx)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_every_context_token_receives_a_gradient(clip, position, csc):
    """No context token is cut off from the loss, in any layout."""
    model = PromptedCLIP(clip, learner(clip, csc=csc, class_token_position=position))
    text_features(model)[:, 0].sum().backward()
    assert (model.learner.ctx.grad.abs().amax(-1) > 0).all()


def test_class_specific_gradients_stay_with_their_class(clip):
    """The loss of one class's text moves only that class's context."""
    model = PromptedCLIP(clip, learner(clip, csc=True))
    text_features(model)[2].sum().backward()
    moved = model.learner.ctx.grad.abs().amax((1, 2)) > 0
    assert moved.tolist() == [False, False, True, False]
