"""What a text tower is to prompts: texts as rows of tokens, with learned ones in their slots, to features."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from trainers.clip.blocks import UNCHANGED, changed_block, check_standard
from trainers.clip.tokens import Layout
from trainers.core.prompts import Prompts, TokenRows


class TextTower(ABC):
    """A frozen text tower: `width` of its tokens, `depth` in blocks, `feature_width` of what it makes of a text.

    `why_plain` says in words why the exact stream of `trainers.clip.causal_text` is not for it; "" where it is.
    """

    width: int
    depth: int
    feature_width: int
    why_plain = ""

    @abstractmethod
    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the embeddings of token ids, without positions: [..., width]."""

    @abstractmethod
    def encode(self, rows: TokenRows, prompts: Prompts) -> Tensor:
        """Return the features [T, D] of texts with `prompts.text` in their slots and `text_changes` made."""


class OpenClipText(TextTower):
    """A text tower of open_clip's own blocks, in a CLIP or by itself.

    Every text is as long as the tower's context: padding is attended where the tower attends it.
    """

    def __init__(self, text: nn.Module, layout: Layout):
        self.text, self.layout = text, layout
        self.width, self.depth = text.token_embedding.weight.shape[1], len(text.transformer.resblocks)
        projection = text.text_projection
        self.feature_width = (self.width if projection is None else projection.out_features
                              if isinstance(projection, nn.Linear) else projection.shape[1])
        self._pooling = getattr(text, "text_pool_type", None) or text.pool_type
        self._class_token = getattr(text, "cls_emb", None)
        self.why_plain = self._why_plain()

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.text.token_embedding(ids.to(self.text.token_embedding.weight.device))

    def encode(self, rows: TokenRows, prompts: Prompts) -> Tensor:
        x, mask = self._embedded(rows, prompts)
        if prompts.text_changes:
            check_standard(self.text.transformer.resblocks, "changes of the text tower's weights need")
        for depth, block in enumerate(self.text.transformer.resblocks):
            if 0 < depth < len(prompts.text) and prompts.text[depth].numel():
                x = replaced(x, rows, prompts.text[depth].to(x.dtype))
            changes = prompts.text_changes.get(depth, UNCHANGED)
            x = changed_block(block, x, changes, mask) if changes else block(x, attn_mask=mask)
        if self._class_token is not None:
            return self.project(self.text.ln_final(x[:, -1]))
        return self.project(self.text.ln_final(x)[torch.arange(len(x), device=x.device), self._read(rows, x.device)])

    def project(self, x: Tensor) -> Tensor:
        """Return the features [T, D] of the tokens [T, width] that are read, behind the final norm."""
        projection = self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def _embedded(self, rows: TokenRows, prompts: Prompts) -> tuple[Tensor, Tensor | None]:
        """Return the tokens [T, L, width] that enter the first block, and the mask that open_clip adds to attention."""
        text, device = self.text, self.text.token_embedding.weight.device
        slots = rows.slots.to(device, non_blocking=True)
        x = text.token_embedding(rows.ids.to(device, non_blocking=True)).to(text.transformer.get_cast_dtype())
        if prompts.text:
            x = filled(x, slots, prompts.text[0])
        if self._class_token is not None:
            x = torch.cat([x, self._class_token.to(x.dtype).expand(len(x), 1, -1)], dim=1)
        return x + text.positional_embedding.to(x.dtype), self._mask(rows.ids.to(device, non_blocking=True), slots, x)

    def _mask(self, ids: Tensor, slots: Tensor, x: Tensor) -> Tensor | None:
        """Return the tower's own mask for texts as tokens x; a slot's id is not that of padding, which may be masked."""
        text, causal = self.text, self.text.attn_mask
        if self._class_token is None and not getattr(text, "use_pad_mask", False):
            return causal
        ids = ids.scatter(1, slots, text.pad_id + 1)
        padding = text._build_additive_mask(ids, x.shape[1], x.dtype)
        return padding if causal is None else causal + padding

    def _read(self, rows: TokenRows, device: torch.device) -> Tensor:
        """Return the position [T] whose token is read."""
        ends = rows.ends.to(device, non_blocking=True)
        return {"first": torch.zeros_like(ends), "last": torch.full_like(ends, rows.ids.shape[1] - 1)}.get(self._pooling, ends)

    def _why_plain(self) -> str:
        if self._class_token is not None:
            return "it reads a class token behind the padding"
        if self.text.attn_mask is None:
            return "it is not causal"
        if self._pooling not in ("argmax", "eos"):
            return "it is not read at the end token"
        if len(self.layout.begin) != 1:
            return "its texts have no start token"
        return ""


def filled(x: Tensor, slots: Tensor, context: Tensor) -> Tensor:
    """Return tokens x [T, L, width] with the context, [n, width] or [T, n, width], in their slots [T, n]."""
    context = context.to(x.dtype).expand(len(x), -1, -1)
    return x.scatter(1, slots[:, :, None].expand(-1, -1, x.shape[2]), context)


def replaced(x: Tensor, rows: TokenRows, tokens: Tensor) -> Tensor:
    """Return x [T, L, width] with other tokens, [n, width] or [T, n, width], in the first slots, alike in all texts.

    Raises ValueError if the context does not stand at the same place in all texts.
    """
    first = int(rows.slots[0, 0]) if rows.slots.numel() else 0
    n = tokens.shape[-2]
    if (rows.slots[:, :n] != torch.arange(first, first + n)).any():
        raise ValueError("deep text prompts need a context right behind the start token")
    return torch.cat([x[:, :first], tokens.expand(len(x), -1, -1), x[:, first + n:]], dim=1)
