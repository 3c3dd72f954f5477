"""Image towers that take prompts: open_clip's own vision transformers; timm's are in `trainers.clip.timm_tower`."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from trainers.clip.blocks import UNCHANGED, block_at, changed_block, check_standard
from trainers.clip.library import ResidualAttentionBlock, VisionTransformer
from trainers.core.prompts import Prompts


class ImageTower(ABC):
    """A frozen vision transformer: `width` of its tokens, `depth` in blocks, `patch_size` (height, width) in pixels.

    `projection` [width, D] is the linear map by which it ends, None for a tower that ends otherwise.
    """

    width: int
    depth: int
    patch_size: tuple[int, int]
    projection: Tensor | None = None

    def __init__(self, visual: nn.Module):
        self.visual = visual

    @property
    def dtype(self) -> torch.dtype:
        return image_dtype(self.visual)

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens [B, L, width] that enter the first block; constant as long as the image is."""

    @abstractmethod
    def encode_tokens(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        """Return the features [B, D] of the tokens of `embed`, with `prompts.image` put in and `image_changes` made.

        Prompts stand behind the image tokens. The first ones are sent through the norm before the first block (which works
        token by token) unless `prompts.after_ln_pre`; deeper ones take their place at the entry of their block.
        """

    @abstractmethod
    def before_projection(self, images: Tensor) -> Tensor:
        """Return the rows [B, width] that `projection` makes features of; the tower's own path up to there."""


class OpenClipImage(ImageTower):
    """open_clip's VisionTransformer. Where the class token is read, the last block is evaluated at it alone."""

    def __init__(self, visual: VisionTransformer):
        super().__init__(visual)
        self.width, self.depth = visual.class_embedding.shape[0], len(visual.transformer.resblocks)
        self.patch_size, self.projection = visual.patch_size, visual.proj

    def embed(self, images: Tensor) -> Tensor:
        return self.visual._embeds(images.to(self.dtype))

    def before_projection(self, images: Tensor) -> Tensor:
        return self.visual._pool(self.visual.transformer(self.embed(images)))[0]

    def encode_tokens(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        vision, x = self.visual, tokens.to(self.dtype)
        n_tokens, blocks, changes = x.shape[1], vision.transformer.resblocks, prompts.image_changes
        if changes:
            check_standard(blocks, "changes of the image tower's weights need")
        for depth, block in enumerate(blocks):
            if depth < len(prompts.image):
                new = prompts.image[depth].to(x.dtype)
                new = new if depth or prompts.after_ln_pre else vision.ln_pre(new)
                x = with_prompts(x, n_tokens, new)
            if depth + 1 < len(blocks) or not self._reads_class_token:
                x = changed_block(block, x, changes[depth]) if depth in changes else block(x)
        if self._reads_class_token:
            return vision.ln_post(block_at(blocks[-1], x[:, 0], x, changes.get(len(blocks) - 1, UNCHANGED))) @ vision.proj
        pooled, _ = vision._pool(x[:, :n_tokens])
        return pooled @ vision.proj

    @property
    def _reads_class_token(self) -> bool:
        vision = self.visual
        return (vision.attn_pool is None and vision.pool_type == "tok"
                and isinstance(vision.transformer.resblocks[-1], ResidualAttentionBlock))


def with_prompts(x: Tensor, n_tokens: int, new: Tensor) -> Tensor:
    """Return image tokens x [B, L, width] with prompts [n, width] behind the first n_tokens, in place of what stood there."""
    return torch.cat([x[:, :n_tokens], new.expand(x.shape[0], -1, -1)], dim=1)


def image_dtype(visual: nn.Module) -> torch.dtype:
    """Return the type of the numbers that an image tower takes."""
    return next(layer for layer in visual.modules() if isinstance(layer, nn.Conv2d)).weight.dtype
