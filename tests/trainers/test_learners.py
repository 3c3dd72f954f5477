"""Every learner against the plain slow path, forward and backward, and its parameter counts."""

import math
from dataclasses import dataclass, field

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from dassl.utils.errors import UserError
from tests.trainers.plain import plain_image, plain_text
from trainers.clip.frozen_clip import FrozenCLIP, normalized
from trainers.core.prompted_clip import PromptedCLIP
from trainers.core.prompts import Averaging, Batch, Classifier, ClassTexts
from trainers.core.token_rows import template_rows
from trainers.registry import LEARNERS

NAMES = ("cat", "golden retriever", "hot_dog", "forest with a longer name")
TEXTS = ClassTexts(NAMES, "a photo of a {}.")
CASES = [
    ("CoOp", {}), ("CoOp", {"csc": True}), ("CoOp", {"class_token_position": "middle", "n_ctx": 5}),
    ("CoOp", {"class_token_position": "middle", "n_ctx": 5, "csc": True}), ("CoOp", {"class_token_position": "front"}),
    ("CoOp", {"ctx_init": "a photo of a"}),
    ("VPT", {"prompt_depth": 1, "n_ctx": 2}), ("VPT", {"prompt_depth": 3, "n_ctx": 4}),
    ("VPT", {"prompt_depth": 2, "n_ctx": 4, "layout": "deft"}),
    ("MaPLe", {"prompt_depth": 1}), ("MaPLe", {"prompt_depth": 3}), ("MaPLe", {"prompt_depth": 2, "n_ctx": 6}),
    ("MaPLe", {"prompt_depth": 3, "ctx_init": "an x-ray of the"}),
    ("IVLP", {"prompt_depth_text": 3, "prompt_depth_vision": 2}),
    ("IVLP", {"prompt_depth_text": 1, "prompt_depth_vision": 3, "n_ctx_text": 4}),
    ("IVLP", {"prompt_depth_text": 3, "n_ctx_text": 4, "n_ctx_vision": 0}),
    ("PromptSRC", {"prompt_depth_text": 2}),
    ("DualPrompt", {"prompt_depth_vision": 3}), ("DualPrompt", {"prompt_depth_vision": 2, "layout": "maple"}),
    ("DualPrompt", {"n_ctx_vision": 0}),
    ("TCP", {}), ("TCP", {"block": 2, "n_ctx": 1}), ("TCP", {"block": 3, "n_ctx": 6}),
]
IDS = [f"{name}-{index}" for index, (name, _) in enumerate(CASES)]
WITH_TEXT = [(case, name) for case, name in zip(CASES, IDS, strict=True) if case[0] != "VPT"]


def model_of(clip, name, parameters, texts=TEXTS, seed=0):
    learner = LEARNERS[name].build(clip, texts, np.random.default_rng(seed), **parameters).to(clip.model_dtype)
    if name == "TCP":
        rows = template_rows(clip.tokenizer, texts.classnames, texts.template)
        learner.prepare(None, normalized(clip.encode_text(rows)), clip.logit_scale)
    return PromptedCLIP(clip, learner)


def images(clip):
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=clip.model_dtype)


@pytest.fixture(params=["clip", "clip64"])
def either_clip(request):
    """The random CLIP in float32 and in float64, with what "equal" means in either."""
    clip = request.getfixturevalue(request.param)
    clip.model_dtype = clip.model.text_projection.dtype
    clip.tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[clip.model_dtype]
    return clip


def fast_and_plain(clip, model):
    """Return image features, class features and negative ones of both paths, None where the learner has none."""
    prompts, learner = model.learner(), model.learner
    classifier = model.classifier(prompts)
    fast = [model.image_features(clip.embed_image(images(clip)), prompts) if prompts.image else None,
            classifier.texts, classifier.negative]
    texts = plain_text(clip, learner.rows, prompts.text) if prompts.text else clip.model.encode_text(learner.rows.ids)
    plain = [normalized(plain_image(clip, images(clip), prompts)) if prompts.image else None, normalized(texts),
             normalized(plain_text(clip, learner.rows, prompts.negative)) if prompts.negative else None]
    return fast, plain


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=IDS)
def test_features_equal_those_of_the_plain_path(either_clip, name, parameters):
    """The fast encoders give the plain path's features, to 1e-5 in float32 and 1e-12 in float64."""
    fast, plain = fast_and_plain(either_clip, model_of(either_clip, name, parameters))
    for own, expected in zip(fast, plain, strict=True):
        assert (own is None) == (expected is None)
        assert own is None or torch.allclose(own, expected, rtol=0, atol=either_clip.tolerance)


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=IDS)
def test_gradients_equal_those_of_the_plain_path(either_clip, name, parameters):
    """The gradient of every parameter is that of the plain path, relative to its largest entry."""
    model = model_of(either_clip, name, parameters)
    gradients = []
    for path in range(2):
        model.learner.zero_grad()
        features = fast_and_plain(either_clip, model)[path]
        weights = torch.Generator().manual_seed(1)
        sum((own * torch.randn(own.shape, generator=weights, dtype=own.dtype)).sum() for own in features if own is not None
            ).backward()
        gradients.append({key: parameter.grad.clone() for key, parameter in model.learner.named_parameters()})
    for key, expected in gradients[1].items():
        assert expected.abs().max() > 0
        difference = (gradients[0][key] - expected).abs().max() / expected.abs().max()
        assert difference < 10 * either_clip.tolerance, key


@pytest.mark.parametrize("names", [("cat",), ("cat", "cat fish"), ("class one", "class two", "class four of four")])
@pytest.mark.parametrize("csc", [False, True])
def test_common_beginnings_of_names_are_no_trap(clip64, names, csc):
    """One class, names that begin alike, and names that begin other names give the plain path's features."""
    clip64.model_dtype = torch.float64
    model = model_of(clip64, "CoOp", {"csc": csc, "n_ctx": 3}, ClassTexts(names, "{}"))
    expected = normalized(plain_text(clip64, model.learner.rows, model.learner().text))
    assert torch.allclose(model.classifier(model.learner()).texts, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("csc", [False, True])
def test_descriptions_are_averaged_by_their_formulas(clip64, normalize, csc):
    """AE: the mean of a class's raw text features, scaled to unit length. AS: the mean of its texts' scores.

    The logits are those of the plain path, and so is the gradient of the context.
    """
    clip64.model_dtype = torch.float64
    matrix = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    texts = ClassTexts(NAMES[:3], "{}", ("cat, which is a pet", "cat, which has fur", "dog, which barks", "forest"),
                       Averaging(matrix, normalize))
    model = model_of(clip64, "CoOp", {"csc": csc, "n_ctx": 3}, texts)
    assert model.learner.ctx.shape[:-2] == ((4,) if csc else ())
    raw = plain_text(clip64, model.learner.rows, model.learner().text)
    pictures = normalized(torch.randn(5, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    scores = clip64.logit_scale * pictures @ normalized(raw).T  # of each text
    expected = torch.stack([scores[:, :2].mean(1), scores[:, 2], scores[:, 3]], dim=1)
    if normalize:
        mean = torch.stack([(raw[0] + raw[1]) / 2, raw[2], raw[3]])
        expected = clip64.logit_scale * pictures @ (mean / mean.norm(dim=1, keepdim=True)).T
    found = model.logits(pictures, model.classifier(model.learner()))
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fast, plain = (torch.autograd.grad(logits, model.learner.ctx, weights)[0] for logits in (found, expected))
    assert (fast - plain).abs().max() < 1e-11 * plain.abs().max()


@dataclass
class Sizes:
    """As much of a CLIP as learners look at when they are built."""

    text_width: int
    image_width: int
    text_depth: int = 12
    image_depth: int = 12
    patch_size: tuple[int, int] = (16, 16)
    feature_width: int = 512
    tokenizer: object = field(default_factory=lambda: open_clip.get_tokenizer("ViT-B-32"))

    def embed_tokens(self, ids):
        return torch.zeros(len(ids), self.text_width)


B16, L14 = Sizes(512, 768), Sizes(768, 1024, 12, 24, (14, 14))


@pytest.mark.parametrize(("sizes", "name", "parameters", "n_classes", "count"), [
    (B16, "CoOp", {"ctx_init": "a photo of a"}, 47, 2_048), (B16, "CoOp", {}, 47, 8_192),
    (B16, "CoOp", {"csc": True}, 47, 385_024), (B16, "VPT", {}, 47, 73_728), (B16, "MaPLe", {}, 47, 3_555_072),
    (B16, "DualPrompt", {}, 47, 200_704), (B16, "DualPrompt", {"n_ctx_vision": 0}, 47, 2 * 8_192),
    (B16, "IVLP", {}, 47, 12 * 2 * (512 + 768)), (B16, "PromptSRC", {}, 47, 46_080),
    (B16, "TCP", {}, 47, 331_904), (B16, "KgCoOp", {}, 47, 2_048),
    (B16, "CLIPLoRA", {}, 47, 184_320), (B16, "CLIPLoRA", {"towers": "image", "rank": 4, "matrices": "qkvo"}, 47, 294_912),
    (B16, "CLIPLoRA", {"towers": "text", "blocks": "top 3"}, 47, 18_432),
    (L14, "CLIPLoRA", {}, 47, 3 * 4 * (12 * 768 + 24 * 1024)),
    (L14, "MaPLe", {}, 47, 9 * 2 * 768 + 9 * (768 * 1024 + 1024)), (B16, "ZeroShot", {}, 47, 0),
])
def test_parameter_counts(sizes, name, parameters, n_classes, count):
    """The counts of the papers' settings, for ViT-B/16 and, with other widths, ViT-L/14."""
    texts = ClassTexts(tuple(f"class {index}" for index in range(n_classes)), "a photo of a {}.")
    learner = LEARNERS[name].build(sizes, texts, np.random.default_rng(0), **parameters)
    assert sum(parameter.numel() for parameter in learner.parameters()) == count
    assert all(parameter.dtype == torch.float32 for parameter in learner.parameters())


def test_maple_starts_from_words_and_keeps_the_others(clip):
    """Of "a photo of a" the first two tokens are learned, and "of a" stays after them as ordinary tokens."""
    clip.model_dtype = torch.float32
    learner = model_of(clip, "MaPLe", {"prompt_depth": 1}).learner
    sentence = clip.tokenizer(["a photo of a cat."])[0]
    assert torch.equal(learner.tokens[0], clip.embed_tokens(sentence[1:3]))
    assert learner.rows.slots[0].tolist() == [1, 2] and learner.rows.ids[0, 3:9].tolist() == sentence[3:9].tolist()


def test_maps_of_maples_deeper_blocks_start_equal_if_cloned(clip):
    """All but the first start equal, as do the authors' clones, but they are separate parameters. By default each is drawn."""
    clip.model_dtype = torch.float32
    cloned, drawn = (model_of(clip, "MaPLe", {"prompt_depth": 3} | own).learner.maps for own in ({"deep_maps": "cloned"}, {}))
    assert torch.equal(cloned[1].weight, cloned[2].weight) and torch.equal(cloned[1].bias, cloned[2].bias)
    assert cloned[1].weight is not cloned[2].weight and not torch.equal(cloned[0].weight, cloned[1].weight)
    assert not torch.equal(drawn[1].weight, drawn[2].weight)


@pytest.mark.parametrize(("layout", "deviation"), [("maple", 0.02), ("deft", math.sqrt(6 / (3 * 64 + 32)) / math.sqrt(3))])
def test_initial_image_tokens(clip, layout, deviation):
    """N(0, 0.02^2), or DeFT's uniform distribution between +-sqrt(6 / (3 patch^2 + width))."""
    clip.model_dtype = torch.float32
    values = torch.stack(list(model_of(clip, "VPT", {"n_ctx": 90, "prompt_depth": 3, "layout": layout}).learner.tokens))
    assert abs(values.std().item() / deviation - 1) < 0.03
    assert layout == "maple" or values.abs().max() <= deviation * math.sqrt(3)


def test_depth_beyond_the_tower_is_an_error(clip):
    """If prompts are in more blocks than there are, the error names both numbers."""
    clip.model_dtype = torch.float32
    with pytest.raises(UserError, match=r"4 blocks.*tower has 3"):
        model_of(clip, "VPT", {"prompt_depth": 4})


def test_visual_prompts_on_a_resnet_are_an_error_that_names_the_fix():
    """A ResNet tower takes text prompts only: CoOp works on it, and DualPrompt without visual ones; VPT says what to do."""
    with torch.random.fork_rng(devices=[]):
        model = open_clip.model.CLIP(16, open_clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=32),
                                     open_clip.CLIPTextCfg(width=24, heads=3, layers=2))
    clip = FrozenCLIP(model, open_clip.get_tokenizer("ViT-B-32"), None, name="RN tiny", fingerprint="")
    clip.model_dtype = torch.float32
    for name, parameters in (("CoOp", {}), ("DualPrompt", {"n_ctx_vision": 0})):
        model = model_of(clip, name, parameters)
        assert model.classifier(model.learner()).texts.shape == (4, 16)
    with pytest.raises(UserError, match="use CoOp or a ViT"):
        model_of(clip, "VPT", {"prompt_depth": 1})


def dual(clip, **parameters):
    clip.model_dtype = torch.float64
    return model_of(clip, "DualPrompt", {"prompt_depth_vision": 2, **parameters})


def dual_loss(model, clip, targets, seed=0):
    prompts = model.learner()
    features, classifier = model.image_features(clip.embed_image(images(clip)), prompts), model.classifier(prompts)
    loss = model.learner.loss(classifier, Batch(features, targets, clip.logit_scale, None, np.random.default_rng(seed)))
    return loss, features, classifier


def test_dual_loss_is_its_formula(clip64):
    """L = CE + lambda (-log p_clean(y) - log(1 - p_clean(y'))), with y' another class drawn for each sample."""
    model, targets = dual(clip64, l2_weight=0.7), torch.tensor([0, 3, 1])
    loss, features, classifier = dual_loss(model, clip64, targets)
    complement = (targets + torch.from_numpy(np.random.default_rng(0).integers(1, 4, 3))) % 4
    expected = 0.0
    for i in range(3):
        positive, negative = (clip64.logit_scale * texts @ features[i] for texts in (classifier.texts, classifier.negative))
        clean = positive.exp() / (positive.exp() + negative.exp())
        second = -clean[targets[i]].log() - (1 - clean[complement[i]]).log()
        expected += (-positive.log_softmax(0)[targets[i]] + 0.7 * second) / 3
    assert torch.allclose(loss, expected, rtol=1e-12)
    assert (complement != targets).all()


@pytest.mark.parametrize(("sign", "falls"), [("corrected", True), ("printed", False)])
def test_a_step_raises_p_clean_of_the_label_and_lowers_that_of_the_complement(clip64, sign, falls):
    """The corrected loss pushes p_clean(y) up and p_clean(y') down; Eq. 5 as printed pushes p_clean(y') up."""
    learner = dual(clip64, l2_sign=sign, l2_weight=1000.0).learner
    generator = torch.Generator().manual_seed(0)
    feature, texts, negative = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (1, 4, 4))
    complement = (2 + int(np.random.default_rng(0).integers(1, 4, 1)[0])) % 4
    texts.requires_grad_(), negative.requires_grad_()
    learner.loss(Classifier(texts, negative), Batch(feature, torch.tensor([2]), 1.0, None, np.random.default_rng(0))).backward()
    before = (feature @ (texts - negative).T)[0]
    after = (feature @ ((texts - 1e-5 * texts.grad) - (negative - 1e-5 * negative.grad)).T)[0]
    assert after[2] > before[2]
    assert (after[complement] < before[complement]) == falls


def test_swapping_the_contexts_turns_p_clean_around(clip64):
    """With positive and negative context exchanged, p_clean becomes 1 - p_clean."""
    model = dual(clip64)

    def p_clean():
        _, features, classifier = dual_loss(model, clip64, torch.tensor([0, 1, 2]))
        return torch.sigmoid(clip64.logit_scale * features @ (classifier.texts - classifier.negative).T)

    before = p_clean()
    model.learner.positive.data, model.learner.negative.data = model.learner.negative.data, model.learner.positive.data
    assert torch.allclose(p_clean(), 1 - before, atol=1e-12) and (before - 0.5).abs().max() > 1e-3


@pytest.mark.parametrize(("detach", "moved"), [
    ("none", {"positive", "negative", "tokens"}), ("pos", {"negative", "tokens"}), ("pos+visual", {"negative"})])
def test_gradient_routing_of_the_second_loss(clip64, detach, moved):
    """What the second loss moves: everything, all but the positive context, or the negative context alone."""
    targets, both = torch.tensor([0, 1, 2]), []
    for weight in (0.0, 1.0):
        model = dual(clip64, l2_detach=detach, l2_weight=weight)
        dual_loss(model, clip64, targets)[0].backward()
        both.append({key: parameter.grad for key, parameter in model.learner.named_parameters()})
    changed = {key.split(".")[0] for key in both[0] if not torch.allclose(both[0][key], both[1][key], rtol=1e-9, atol=0)}
    assert changed == moved


def test_dual_loss_is_finite_for_extreme_margins_and_one_class(clip64):
    """Margins of 1e4 give a finite loss; with one class there is no complement."""
    learner = dual(clip64).learner
    features = torch.eye(2, dtype=torch.float64)
    for texts in (torch.eye(2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)):
        targets = torch.zeros(2, dtype=torch.long)
        loss = learner.loss(Classifier(texts, -texts), Batch(features, targets, 1e4, None, np.random.default_rng(0)))
        assert torch.isfinite(loss)


def test_default_loss_is_cross_entropy(clip):
    """Every other learner minimizes the cross-entropy of scaled cosines."""
    clip.model_dtype = torch.float32
    learner, features = model_of(clip, "CoOp", {}).learner, normalized(torch.randn(5, 8))
    texts, targets = normalized(torch.randn(4, 8)), torch.tensor([0, 1, 2, 3, 0])
    expected = F.cross_entropy(20 * features @ texts.T, targets)
    batch = Batch(features, targets, 20.0, None, np.random.default_rng(0))
    assert torch.equal(learner.loss(Classifier(texts), batch), expected)


def test_the_complement_of_a_dual_loss_is_never_the_label(clip64):
    """With two classes it can only be the other one: over 200 samples the loss is exactly that of the other class."""
    learner = dual(clip64, l2_weight=1.0).learner
    generator = torch.Generator().manual_seed(0)
    features, texts, negative = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (200, 2, 2))
    targets = torch.arange(200) % 2
    loss = learner.loss(Classifier(texts, negative), Batch(features, targets, 1.0, None, np.random.default_rng(0)))
    margins, rows = features @ texts.T - features @ negative.T, torch.arange(200)
    expected = torch.nn.functional.cross_entropy(features @ texts.T, targets) + (
        -margins[rows, targets].sigmoid().log() - (1 - margins[rows, 1 - targets].sigmoid()).log()).mean()
    assert torch.allclose(loss, expected, rtol=1e-12)


def test_maps_of_maple_start_within_torch_s_bound(clip):
    """Uniform in +-1 / sqrt(text width), weights and biases: near the bound, and never beyond it."""
    clip.model_dtype = torch.float32
    bound = 1 / clip.text_width ** 0.5
    for linear in model_of(clip, "MaPLe", {"prompt_depth": 3}).learner.maps:
        for values in (linear.weight, linear.bias):
            assert 0.9 * bound < values.abs().max() <= bound
            assert abs(values.detach().std() / (bound / 3 ** 0.5) - 1) < 0.35


@pytest.mark.parametrize(("learner", "numbers"), [
    ("CoOp", {"n_ctx": 16, "csc": False, "ctx_init": "", "class_token_position": "end"}),
    ("VPT", {"n_ctx": 8, "prompt_depth": "all", "layout": "maple", "template": "a photo of a {}."}),
    ("MaPLe", {"n_ctx": 2, "prompt_depth": "at most 9", "ctx_init": "a photo of a", "deep_maps": "drawn"}),
    ("IVLP", {"n_ctx_text": 2, "n_ctx_vision": 2, "prompt_depth_text": "all", "prompt_depth_vision": "all",
              "ctx_init": "a photo of a"}),
    ("PromptSRC", {"n_ctx_text": 4, "n_ctx_vision": 4, "prompt_depth_text": "at most 9", "prompt_depth_vision": "at most 9",
                   "ctx_init": "a photo of a", "text_loss_weight": 25.0, "image_loss_weight": 10.0, "logit_loss_weight": 1.0,
                   "teacher": "dataset", "average_mean": 0.6, "average_std": 0.6}),
    ("CLIPLoRA", {"rank": 2, "alpha": 1.0, "dropout": 0.25, "matrices": "qkv", "blocks": "all", "towers": "both",
                  "template": "dataset"}),
    ("DualPrompt", {"n_ctx": 16, "n_ctx_vision": 20, "prompt_depth_vision": "all", "layout": "deft", "l2_weight": 1.0,
                    "l2_sign": "corrected", "l2_detach": "none"}),
    ("KgCoOp", {"n_ctx": 4, "csc": False, "ctx_init": "a photo of a", "class_token_position": "end", "weight": 8.0}),
    ("TCP", {"n_ctx": 4, "ctx_init": "", "block": "at most 9", "weight": 8.0}),
    ("ZeroShot", {"template": "dataset"}), ("LinearProbe", {"form": "map", "kappa": 100.0, "template": "dataset"}),
    ("GDA", {"form": "pool", "template": "dataset"}), ("RLA", {"strength": 1.0, "template": "dataset"}),
    ("ProLIP", {"strength": 1.0, "template": "dataset"}),
    *((name, {"alpha": 1.0, "beta": 5.5, "centered": True, "count": "sum", "template": "dataset"})
      for name in ("TipAdapter", "TipAdapterF")),
    ("LPpp", {"form": "repaired", "alpha": "scale", "steps": 300, "template": "dataset"}),
    ("CrossModal", {"template": "dataset"}), ("CLIPAdapter", {"ratio": 0.2, "template": "dataset"})])
def test_the_numbers_of_the_papers_and_of_published_tables_are_the_defaults(learner, numbers):
    """They are what a run without these keys means, and how its record is read."""
    assert {parameter.name: parameter.default for parameter in LEARNERS[learner].parameters} == numbers
