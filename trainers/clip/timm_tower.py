"""Image towers of timm's, with prompts: its VisionTransformer (SigLIP, DFN, ViTamin) and Eva (EVA-CLIP, Perception Encoder).

The tower's own blocks, pooling and head do the work. Rotary positions turn the image's tokens and leave prompts as they are.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dassl.utils.errors import UserError
from trainers.clip.blocks import UNCHANGED
from trainers.clip.image_tower import ImageTower, with_prompts
from trainers.clip.library import TimmModel
from trainers.core.low_rank import Changes, LowRank
from trainers.core.prompts import Prompts


def takes_prompts(visual: nn.Module) -> bool:
    """Tell whether an image tower is one of timm's that this file is for."""
    return isinstance(visual, TimmModel) and isinstance(visual.trunk, (VisionTransformer, Eva))


class TimmImage(ImageTower):
    """A vision transformer of timm's."""

    def __init__(self, visual: TimmModel):
        super().__init__(visual)
        trunk = self.trunk = visual.trunk
        self.width, self.depth, self.patch_size = trunk.embed_dim, len(trunk.blocks), patch_size(trunk.patch_embed)

    def embed(self, images: Tensor) -> Tensor:
        embedded = self.trunk._pos_embed(self.trunk.patch_embed(images.to(self.dtype)))
        return self.trunk.norm_pre(embedded[0] if isinstance(embedded, tuple) else embedded)

    def before_projection(self, images: Tensor) -> Tensor:
        raise NotImplementedError  # without a `projection` nobody asks

    def encode_tokens(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        x, n_tokens = tokens.to(self.dtype), tokens.shape[1]
        rotary = self._rotary(prompts.image[0].shape[0] if prompts.image else 0, x)
        for depth, block in enumerate(self.trunk.blocks):
            if depth < len(prompts.image):
                new = prompts.image[depth].to(x.dtype)
                x = with_prompts(x, n_tokens, new if depth or prompts.after_ln_pre else self.trunk.norm_pre(new))
            with changed(block.attn, prompts.image_changes.get(depth, UNCHANGED)):
                x = block(x) if rotary is None else block(x, rope=rotary[depth])
        return self.visual.head(self.trunk.forward_head(self.trunk.norm(x[:, :n_tokens])))

    def _rotary(self, n_prompts: int, x: Tensor) -> Any:
        """Return the rotations of the tokens behind the class token at each block, None for a tower without.

        Those of prompts are by the angle 0: sine 0, cosine 1.
        """
        if (rope := getattr(self.trunk, "rope", None)) is None:
            return None
        turned = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=self.trunk.patch_embed.grid_size)
        still = turned.new_zeros(*turned.shape[:-2], n_prompts, turned.shape[-1])
        still[..., turned.shape[-1] // 2:] = 1
        turned = torch.cat([turned, still], dim=-2).to(x.dtype)
        return turned if getattr(self.trunk, "rope_mixed", False) else [turned] * self.depth


def patch_size(patch_embed: nn.Module) -> tuple[int, int]:
    """Return the size of a patch in pixels, also of a stem that makes patches of feature maps."""
    if hasattr(patch_embed, "backbone"):
        return tuple(size // grid for size, grid in zip(patch_embed.img_size, patch_embed.grid_size, strict=True))
    return tuple(patch_embed.patch_size)


def fixed_size(visual: nn.Module) -> tuple[int, int] | None:
    """Return the only size (height, width) of images that a tower of timm's takes; None for any other one."""
    patches = getattr(visual.trunk, "patch_embed", None) if isinstance(visual, TimmModel) else None
    return tuple(patches.img_size) if isinstance(patches, PatchEmbed) and patches.strict_img_size else None


@contextlib.contextmanager
def changed(attention: nn.Module, changes: Changes) -> Iterator[None]:
    """Let the matrices of an attention of timm's be changed ones; UserError for one that hides them."""
    places = list(_places(attention, changes)) if changes else []  # whole first: a refusal leaves no hook behind
    hooks = [layer.register_forward_hook(hook) for layer, hook in places]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _places(attention: nn.Module, changes: Changes) -> Iterator[tuple[nn.Module, Callable]]:
    """Yield the layers whose results change, each with what adds the change."""
    if "o" in changes:
        yield attention.proj, _adding([changes["o"]])
    parts = [changes.get(part) for part in "qkv"]
    if not any(parts):
        return
    if getattr(attention, "q_bias", None) is not None:
        raise UserError("the attention of this image tower hides its matrices (biases apart, as in EVA01), so that they cannot "
                        "be changed: tune its text tower alone, or choose another backbone")
    if attention.qkv is not None:
        yield attention.qkv, _adding(parts)
        return
    for layer, part in zip((attention.q_proj, attention.k_proj, attention.v_proj), parts, strict=True):
        if part:
            yield layer, _adding([part])


def _adding(parts: list[LowRank | None]) -> Callable:
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
        each = zip(found.chunk(len(parts), dim=-1), parts, strict=True)
        return torch.cat([own if part is None else own + part(inputs[0]) for own, part in each], dim=-1)

    return hook
