"""The frozen CLIP: functional encoders over open_clip's own modules, with prompts as arguments.

Without prompts the encoders are open_clip's own, bit for bit. With prompts or changed weights they compute the same function of
real numbers as the plain path, over the tower's own parts: see `text_tower`, `causal_text`, `image_tower` and `timm_tower`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dassl.data.transforms import Preprocessing
from dassl.utils.errors import UserError
from dassl.utils.linear import ONEDNN, TORCH
from trainers.clip.causal_text import CausalText
from trainers.clip.image_tower import ImageTower, OpenClipImage, image_dtype
from trainers.clip.library import VisionTransformer
from trainers.clip.linear_layers import use_onednn
from trainers.clip.text_tower import OpenClipText, TextTower
from trainers.clip.timm_tower import TimmImage, takes_prompts
from trainers.clip.tokens import Layout, layout_of
from trainers.clip.transformers_text import TransformersText
from trainers.core.prompts import Prompts, TokenRows


class FrozenCLIP:
    """An open_clip model whose weights never change, its tokenizer and its preprocessing.

    `fingerprint` identifies the weights in cache keys and checkpoints, `linear` says by whose product linear layers are
    computed, which cache keys name too: see `dassl.utils.linear`. Features are returned as the towers make them, not
    normalized; use `normalized`. A bias of the logits (SigLIP) is alike for all classes, and so cancels in their softmax.
    """

    linear = TORCH

    def __init__(self, model: nn.Module, tokenizer: Any, preprocessing: Preprocessing, *, name: str, fingerprint: str):
        self.model = model.eval().requires_grad_(False)
        self.text = getattr(model, "text", model)
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.name = name
        self.fingerprint = fingerprint
        self.text_tower = text_tower(self.text, layout_of(tokenizer))
        self.logit_scale = float(model.logit_scale.detach().double().exp())

    def use_onednn(self) -> None:
        """Compute the towers' linear layers over oneDNN from now on, where they are fp32 on the CPU."""
        self.linear = ONEDNN
        use_onednn(self.model)

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def text_width(self) -> int:
        return self.text_tower.width

    @property
    def feature_width(self) -> int:
        """D, the width of image and text features."""
        return self.text_tower.feature_width

    @property
    def text_depth(self) -> int:
        return self.text_tower.depth

    @property
    def image_width(self) -> int:
        return self.image_tower.width

    @property
    def image_depth(self) -> int:
        return self.image_tower.depth

    @property
    def patch_size(self) -> tuple[int, int]:
        return self.image_tower.patch_size

    @property
    def image_tower(self) -> ImageTower:
        """The image tower as one that takes prompts; UserError for another one."""
        if (tower := image_tower(self.model.visual)) is None:
            raise UserError(f"{self.name} has no vision transformer, so it takes text prompts only: use CoOp or a ViT")
        return tower

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the token embeddings of ids, without positions: [..., width]."""
        return self.text_tower.embed_tokens(ids.to(self.device))

    def encode_image(self, images: Tensor) -> Tensor:
        """Return the features [B, D] of images [B, 3, height, width]; open_clip's own path."""
        return self.model.encode_image(images.to(self.device, image_dtype(self.model.visual)), normalize=False)

    @property
    def image_projection(self) -> Tensor:
        """The linear map [width, D] from `encode_before_projection` to features; UserError for a tower without one."""
        if (projection := self.image_tower.projection) is None:
            raise UserError(f"{self.name} has no linear projection of image features; choose a CLIP with OpenAI's kind of ViT")
        return projection

    def encode_before_projection(self, images: Tensor) -> Tensor:
        """Return the rows [B, width] of images that the projection makes features of; open_clip's own path up to there."""
        return self.image_tower.before_projection(images.to(self.device))

    def embed_image(self, images: Tensor) -> Tensor:
        """Return the tokens [B, L, width] that enter the first block; constant as long as the image is."""
        return self.image_tower.embed(images.to(self.device))

    def encode_image_tokens(self, tokens: Tensor, prompts: Prompts) -> Tensor:
        """Return the features [B, D] of the tokens of `embed_image`, with `prompts.image` put in and `image_changes` made."""
        return self.image_tower.encode_tokens(tokens.to(self.device), prompts)

    def encode_text(self, rows: TokenRows, prompts: Prompts | None = None) -> Tensor:
        """Return the features [T, D] of the texts with `prompts.text` in their slots and `text_changes` made.

        Without either this is open_clip's own path. Deeper prompts need a context that stands right behind the
        start token; ValueError says so.
        """
        if prompts is None or not prompts.tunes_text:
            return self.model.encode_text(rows.ids.to(self.device), normalize=False)
        return self.text_tower.encode(rows, prompts)


def text_tower(text: nn.Module, layout: Layout) -> TextTower:
    """Return the text tower of an open_clip model, by the fastest path that is exact for it."""
    if not hasattr(text, "token_embedding"):
        return TransformersText(text, layout)
    plain = OpenClipText(text, layout)
    return plain if plain.why_plain else CausalText(text, layout)


def image_tower(visual: nn.Module) -> ImageTower | None:
    """Return the image tower of an open_clip model as one that takes prompts, None if it takes none."""
    if isinstance(visual, VisionTransformer):
        return OpenClipImage(visual)
    return TimmImage(visual) if takes_prompts(visual) else None


def normalized(features: Tensor) -> Tensor:
    """Return features scaled to unit length along the last axis, in fp32 where the towers are of lower precision."""
    low = features.dtype in (torch.float16, torch.bfloat16)
    return F.normalize(features.float() if low else features, dim=-1)
