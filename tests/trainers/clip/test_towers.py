"""Towers of every family against open_clip's own path, and with prompts against towers computed by hand, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dassl.utils.errors import UserError
from tests.trainers.clip.families import IMAGES, LENGTH, TEXTS, image_clip, text_clip, transformers_clip
from trainers.clip.frozen_clip import FrozenCLIP
from trainers.clip.tokens import layout_of
from trainers.core.low_rank import LowRank
from trainers.core.prompts import Prompts, TokenRows
from trainers.core.token_rows import template_rows, token_rows

NAMES = ["cat", "golden retriever", "a_b"]
FAST = {"CLIP", "MetaCLIP 2"}


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def text_by_hand(clip: FrozenCLIP, rows: TokenRows, tokens: list[Tensor]) -> Tensor:
    """Return the features [T, D] of texts, each laid out alone, with the mask and the place to read written out."""
    text, changes, found = clip.text, TEXTS[clip.name][0], []
    for row in range(len(rows.ids)):
        slots, end = rows.slots[row].tolist(), int(rows.ends[row])
        x = list(text.token_embedding(rows.ids[row]))
        for token, slot in enumerate(slots):
            x[slot] = (tokens[0][row] if tokens[0].dim() == 3 else tokens[0])[token]
        padding = [position for position in range(LENGTH) if position > end]
        if changes.get("embed_cls"):
            x.append(text.cls_emb)
            padding = [position + 1 for position in padding]  # open_clip's mask is for a class token in front
        n = len(x)
        mask = torch.zeros(n, n, dtype=torch.float64)
        if not changes.get("no_causal_mask"):
            mask[torch.ones(n, n, dtype=torch.bool).triu(1)] = -math.inf
        if changes.get("embed_cls"):
            mask[:, padding] = -math.inf
        x = torch.stack(x) + text.positional_embedding
        for depth, block in enumerate(text.transformer.resblocks):
            if 0 < depth < len(tokens):
                own = tokens[depth][row] if tokens[depth].dim() == 3 else tokens[depth]
                x = torch.cat([x[:slots[0]], own, x[slots[-1] + 1:]])
            x = block(x[None], attn_mask=mask)[0]
        read = {"last": -1, "first": 0}.get(changes.get("pool_type"), -1 if changes.get("embed_cls") else end)
        found.append(clip.text_tower.project(text.ln_final(x)[read]))
    return torch.stack(found)


@pytest.mark.parametrize("family", TEXTS)
def test_texts_without_prompts_are_open_clip_s_bit_for_bit(family):
    """Every tokenizer and every way to read texts is tried. The stream is used where it is exact, and nowhere else."""
    clip = text_clip(family, torch.float32)
    rows = template_rows(clip.tokenizer, NAMES, "a photo of a {}.")
    names = [name.replace("_", " ") for name in NAMES]
    assert torch.equal(rows.ids, clip.tokenizer([f"a photo of a {name}." for name in names]))
    found = clip.encode_text(rows)
    assert torch.equal(found, clip.model.encode_text(rows.ids)) and found.shape[1] == clip.feature_width
    assert (family in FAST) == (not clip.text_tower.why_plain)


@pytest.mark.parametrize("family", TEXTS)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("specific", [False, True])
def test_a_context_equals_a_tower_computed_by_hand(family, position, specific):
    """Each text is laid out at full length and sent through the blocks one by one, forward and backward."""
    clip = text_clip(family)
    rows, context = token_rows(clip.tokenizer, NAMES, 3, position), drawn(*((3,) if specific else ()), 3, 24)
    check(clip.encode_text(rows, Prompts(text=(context,))), text_by_hand(clip, rows, [context]), [context])


@pytest.mark.parametrize("family", TEXTS)
def test_deep_text_prompts_equal_a_tower_computed_by_hand(family):
    """Shared prompts are in the second block, class-specific ones in the third."""
    clip = text_clip(family)
    rows, tokens = token_rows(clip.tokenizer, NAMES, 3), [drawn(3, 24), drawn(3, 24, seed=2), drawn(3, 3, 24, seed=3)]
    check(clip.encode_text(rows, Prompts(text=tuple(tokens))), text_by_hand(clip, rows, tokens), tokens)


@pytest.mark.parametrize("family", [family for family in TEXTS if family not in FAST])
def test_deep_text_prompts_need_one_place(family):
    """They would have no single position after names of several lengths."""
    clip = text_clip(family)
    with pytest.raises(ValueError, match="right behind the start token"):
        clip.encode_text(token_rows(clip.tokenizer, NAMES, 3, "front"), Prompts(text=(drawn(3, 24), drawn(3, 24))))


@pytest.mark.parametrize("family", TEXTS)
def test_changes_of_the_text_tower_equal_changed_weights(family):
    """A tower whose matrices include the change gives the same."""
    changes = {part: LowRank(drawn(2, 24, seed=place), drawn(24, 2, seed=place + 9)) for place, part in enumerate("qkvo")}
    clip, changed = text_clip(family), text_clip(family)
    with torch.no_grad():
        attention = changed.text.transformer.resblocks[1].attn
        for part, own in changes.items():
            weight = attention.out_proj.weight if part == "o" else attention.in_proj_weight.view(3, 24, 24)["qkv".index(part)]
            weight += own.up @ own.down
    rows = template_rows(clip.tokenizer, NAMES, "a {}.")
    found, expected = clip.encode_text(rows, Prompts(text_changes={1: changes})), changed.encode_text(rows)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def check(found: Tensor, expected: Tensor, tokens: list[Tensor]) -> None:
    """Features are equal, and so are the gradients of a weighted sum of them by all tokens."""
    assert torch.allclose(found, expected, rtol=0, atol=1e-12 * max(1.0, float(expected.detach().abs().max())))
    weights = drawn(*found.shape, seed=7).detach()
    gradients = (torch.autograd.grad((features * weights).sum(), tokens) for features in (found, expected))
    for own, plain in zip(*gradients, strict=True):
        assert plain.abs().max() > 0
        assert (own - plain).abs().max() < 1e-10 * plain.abs().max()


def rotated(x: Tensor, angles: tuple[Tensor, Tensor], half: bool) -> Tensor:
    """Return x [heads, tokens, width] turned by the sines and cosines [tokens, width] or [heads, tokens, width]."""
    sine, cosine = angles
    if half:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosine + turned * sine


def attention_by_hand(attention, x: Tensor, rotary: Tensor | None, n_prompts: int, extra: dict[str, Tensor]) -> Tensor:
    """Return an attention of timm's over tokens x [L, width] of one image, of which the last n_prompts are prompts.

    `extra` are matrices that are added to those of queries, keys, values and output.
    """
    if attention.qkv is not None:
        weights = attention.qkv.weight.chunk(3)
        biases = (attention.qkv.bias.chunk(3) if getattr(attention, "q_bias", None) is None
                  else (attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias))
    else:
        each = attention.q_proj, attention.k_proj, attention.v_proj
        weights, biases = [own.weight for own in each], [own.bias for own in each]
    parts = [F.linear(x, weight + extra.get(name, 0), bias).unflatten(-1, (attention.num_heads, -1)).transpose(0, 1)
             for name, weight, bias in zip("qkv", weights, biases, strict=True)]
    q, k, v = attention.q_norm(parts[0]), attention.k_norm(parts[1]), parts[2]
    if rotary is not None:
        first, last = attention.num_prefix_tokens, len(x) - n_prompts
        half, angles = getattr(attention, "rotate_half", False), rotary.tensor_split(2, -1)
        q, k = (torch.cat([own[:, :first], rotated(own[:, first:last], angles, half), own[:, last:]], dim=1) for own in (q, k))
    weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
    out = attention.norm((weights @ v).transpose(0, 1).flatten(1))
    return F.linear(out, attention.proj.weight + extra.get("o", 0), attention.proj.bias)


def block_by_hand(block, x: Tensor, attend) -> Tensor:
    """Return timm's block with norms before or behind its two parts, and with or without scales of them."""
    scales = [getattr(block, name, None) for name in ("gamma_1", "gamma_2")]
    if hasattr(block, "ls1"):
        scales = [getattr(own, "gamma", None) for own in (block.ls1, block.ls2)]
    for norm, part, scale in zip((block.norm1, block.norm2), (attend, block.mlp), scales, strict=True):
        own = norm(part(x)) if "PostNorm" in type(block).__name__ else part(norm(x))
        x = x + (own if scale is None else scale * own)
    return x


def image_by_hand(clip: FrozenCLIP, tokens: Tensor, prompts: Prompts, extra: dict[int, dict[str, Tensor]]) -> Tensor:
    """Return the features [B, D] of image tokens, image by image."""
    trunk, found = clip.model.visual.trunk, []
    rope = getattr(trunk, "rope", None)
    angles = None if rope is None else rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed((4, 4))
    for x in tokens:
        n_tokens, n_prompts = len(x), 0
        for depth, block in enumerate(trunk.blocks):
            if depth < len(prompts.image):
                own = prompts.image[depth]
                n_prompts = len(own)
                x = torch.cat([x[:n_tokens], own if depth or prompts.after_ln_pre else trunk.norm_pre(own)])
            own_angles = angles[depth] if getattr(trunk, "rope_mixed", False) else angles
            x = block_by_hand(block, x, lambda x, block=block, own=own_angles, n=n_prompts, depth=depth: attention_by_hand(
                block.attn, x, own, n, extra.get(depth, {})))
        found.append(clip.model.visual.head(trunk.forward_head(trunk.norm(x[None, :n_tokens])))[0])
    return torch.stack(found)


def pixels() -> Tensor:
    return drawn(2, 3, 32, 32).detach()


@pytest.mark.parametrize("family", IMAGES)
def test_images_without_prompts_are_open_clip_s_bit_for_bit(family):
    """The whole tower and its tokens give the same."""
    clip = image_clip(family, torch.float32)
    expected = clip.model.encode_image(pixels().float())
    assert torch.equal(clip.encode_image(pixels()), expected)
    assert torch.equal(clip.encode_image_tokens(clip.embed_image(pixels()), Prompts()), expected)


@pytest.mark.parametrize("family", IMAGES)
@pytest.mark.parametrize(("depth", "after_ln_pre"), [(1, False), (1, True), (3, False)])
def test_image_prompts_equal_a_tower_computed_by_hand(family, depth, after_ln_pre):
    """Blocks are written out, forward and backward: rotary positions for image tokens only, pooling without prompts."""
    clip = image_clip(family)
    tokens = [drawn(2, clip.image_width, seed=depth) for depth in range(depth)]
    prompts, embedded = Prompts(image=tuple(tokens), after_ln_pre=after_ln_pre), clip.embed_image(pixels())
    check(clip.encode_image_tokens(embedded, prompts), image_by_hand(clip, embedded, prompts, {}), tokens)


@pytest.mark.parametrize("family", [family for family in IMAGES if family != "EVA01"])
@pytest.mark.parametrize("parts", ["qkvo", "qv", "o"])
@pytest.mark.parametrize("drops", [False, True])
def test_changes_of_the_image_tower_equal_a_tower_computed_by_hand(family, parts, drops):
    """Each matrix is changed alone and together, with prompts as well. In training, the change is added next to the matrix."""
    clip, width = image_clip(family), 32
    factors = {part: (drawn(2, width, seed=place), drawn(width, 2, seed=place + 9)) for place, part in enumerate(parts)}
    changes = {part: LowRank(*own, (lambda x: x) if drops else None) for part, own in factors.items()}
    prompts, embedded = Prompts(image=(drawn(2, width),), image_changes={1: changes}), clip.embed_image(pixels())
    extra = {1: {part: up @ down for part, (down, up) in factors.items()}}
    used = [own for pair in factors.values() for own in pair]
    check(clip.encode_image_tokens(embedded, prompts), image_by_hand(clip, embedded, prompts, extra), used)
    assert not any(layer._forward_hooks for layer in clip.model.visual.modules())


def test_an_attention_that_hides_its_matrices_says_so():
    """EVA01 keeps the biases of its matrices apart, behind torch's back; the output's matrix is as others are.

    The tower is what it was after a refusal: runs that follow in the same process share it.
    """
    clip, change = image_clip("EVA01"), LowRank(drawn(2, 32), drawn(32, 2))
    for parts in ("q", "qo"):
        with pytest.raises(UserError, match="EVA01"):
            clip.encode_image_tokens(clip.embed_image(pixels()), Prompts(image_changes={0: dict.fromkeys(parts, change)}))
        assert not any(layer._forward_hooks for layer in clip.model.visual.modules())
    assert clip.encode_image_tokens(clip.embed_image(pixels()), Prompts(image_changes={0: {"o": change}})).shape == (2, 16)


def test_patches_are_counted_in_pixels():
    """This includes those of a stem that first makes a map of features."""
    assert image_clip("ViTamin").patch_size == (16, 16) and image_clip("DFN").patch_size == (8, 8)


@pytest.mark.parametrize(("family", "begin", "end", "pad"), [
    ("CLIP", (49406,), (49407,), 0), ("SigLIP", (), (1,), 1), ("SigLIP without a projection", (), (), 0),
    ("CLIPA", (2,), (0,), 0), ("MetaCLIP 2", (2,), (1,), 0), ("CLIPS", (2,), (1,), 0)])
def test_a_tokenizer_says_how_texts_are_laid_out(family, begin, end, pad):
    """The layout is found from what the tokenizer does to a word."""
    layout = layout_of(text_clip(family).tokenizer)
    assert (layout.begin, layout.end, layout.pad, layout.length) == (begin, end, pad, LENGTH)
    assert layout.room == LENGTH - len(begin) - len(end) - len(layout.close)
    assert layout.close == ((3,) if family == "CLIPS" else ())


@pytest.mark.parametrize(("family", "kept"), [("SigLIP", 20), ("SigLIP without a projection", 21), ("MetaCLIP 2", 18)])
def test_a_name_too_long_loses_its_last_tokens(family, kept):
    """If the tokenizer leaves out the period, none is kept, and no token from the end of the name replaces it."""
    clip, name = text_clip(family), "abcdefghijk" * 5
    layout = layout_of(clip.tokenizer)
    begin, words = len(layout.begin) + 3, layout.words(f"{name}.")
    period = words[-1:] if words != layout.words(name) else []
    rows = token_rows(clip.tokenizer, [name], 3)
    assert rows.ids[0, begin:].tolist() == [*words[:kept], *period, *layout.end]


@pytest.mark.parametrize("family", TEXTS)
def test_the_last_token_is_found_in_the_tokenizer_s_own_rows(family):
    """It is the end token, or the text's last token if the tokenizer has none. Cut texts are full."""
    clip = text_clip(family)
    layout = layout_of(clip.tokenizer)
    begin, end = len(layout.begin), len(layout.begin) + layout.room + len(layout.end)
    ends = [begin + len(layout.words("a cat")) + len(layout.end) - 1, end - 1]
    assert layout.last(clip.tokenizer(["a cat", "z" * 99])).tolist() == ends


@pytest.mark.parametrize("family", TEXTS)
def test_a_context_of_the_template_s_words_gives_the_template_s_features(family):
    """With the embeddings of "a photo of a" as context, texts are those of the template."""
    clip = text_clip(family)
    words = torch.tensor(layout_of(clip.tokenizer).words("a photo of a"))
    rows = token_rows(clip.tokenizer, NAMES[:1], len(words))
    found = clip.encode_text(rows, Prompts(text=(clip.embed_tokens(words),)))
    expected = clip.encode_text(template_rows(clip.tokenizer, NAMES[:1], "a photo of a {}."))
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


SHORT = ["cat", "a_b"]  # so that nothing is cut off
TRANSFORMERS = ("roberta", "xlm-roberta", "mt5", "m2m_100")


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_text_tower_of_transformers_takes_a_context(family):
    """Without a context it is open_clip's own. With the template's words as context, texts give the template's features."""
    clip = transformers_clip(family)
    rows = template_rows(clip.tokenizer, SHORT, "a photo of a {}.")
    expected = clip.encode_text(rows)
    assert torch.equal(expected, clip.model.encode_text(rows.ids)) and clip.feature_width == expected.shape[1]
    words = torch.tensor(layout_of(clip.tokenizer).words("a photo of a"))
    found = clip.encode_text(token_rows(clip.tokenizer, SHORT, len(words)), Prompts(text=(clip.embed_tokens(words),)))
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_a_context_in_a_text_tower_of_transformers_learns_from_its_own_texts_alone(family):
    """Padding after a text does not affect it: among longer texts, a name has the same features and gradients."""
    clip, context = transformers_clip(family), drawn(3, 24)
    assert clip.text_width == 24

    def of_first(names: list[str]) -> tuple[Tensor, Tensor]:
        found = clip.encode_text(token_rows(clip.tokenizer, names, 3), Prompts(text=(context,)))[0]
        return found, torch.autograd.grad(found.square().sum(), context)[0]

    for own, other in zip(of_first(["cat"]), of_first(["cat", "golden retriever"]), strict=True):
        assert torch.allclose(own, other, rtol=0, atol=1e-12) and other.abs().max() > 0


def test_a_text_tower_of_transformers_takes_nothing_deeper():
    """Its blocks do not take prompts or changes, and one line says so."""
    clip, context = transformers_clip("roberta"), drawn(3, 24)
    rows = token_rows(clip.tokenizer, NAMES, 3)
    for prompts in (Prompts(text=(context, context)), Prompts(text_changes={0: {"q": LowRank(context, context)}})):
        with pytest.raises(UserError, match="choose CoOp"):
            clip.encode_text(rows, prompts)
