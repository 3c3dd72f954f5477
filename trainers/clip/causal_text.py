"""CLIP's text tower, causal and read at the end token, without what cannot reach the result.

It computes the same function of real numbers as `OpenClipText` (every text padded to the full context length, every token
through every block), but as one stream without padding and with the common beginning once, see `trainers.clip.text_stream`; the
start token's keys and values are constants of the tower, as long as its weights are; and the last block is evaluated at the end
tokens alone.
"""

from collections.abc import Mapping
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.clip.blocks import UNCHANGED, after_attention, check_standard, projected
from trainers.clip.text_stream import TextStream, spread, text_stream
from trainers.clip.text_tower import OpenClipText
from trainers.clip.tokens import Layout
from trainers.core.low_rank import Changes
from trainers.core.prompts import Prompts, TokenRows

N_STREAMS = 8  # kept at a time: those of a learner, its selector and zero-shot CLIP are three
KeysValues = tuple[Tensor, Tensor]


class CausalText(OpenClipText):
    """A text tower of which `why_plain` has nothing to say."""

    def __init__(self, text: nn.Module, layout: Layout):
        super().__init__(text, layout)
        self._made_streams: dict[tuple[TokenRows, bool, bool], tuple[TextStream, Tensor]] = {}

    @property
    def _device(self) -> torch.device:
        return self.text.token_embedding.weight.device

    def encode(self, rows: TokenRows, prompts: Prompts) -> Tensor:
        """Return the features [T, D]; ValueError for deeper prompts unless the context stands right behind the start token."""
        start, changes = self._start_token(prompts.text_changes), prompts.text_changes
        context = prompts.text[0] if prompts.text else torch.empty(0, self.width, device=self._device)
        stream, embedded = self._streams(rows, context.dim() == 2, len(prompts.text) > 1)
        context = context.reshape(-1, context.shape[-1]).to(embedded.dtype)
        x = embedded.index_add(0, stream.slots, context[stream.sources])
        for depth in range(self.depth):
            if 0 < depth < len(prompts.text) and prompts.text[depth].numel():
                x, stream = self._replaced(x, stream, rows, prompts.text[depth].to(x.dtype))
            x = self._text_block(depth, x, stream, start[depth], changes.get(depth, UNCHANGED))
        return self.project(self.text.ln_final(x[stream.order]))

    def _replaced(self, x: Tensor, stream: TextStream, rows: TokenRows, tokens: Tensor) -> tuple[Tensor, TextStream]:
        """Return the stream [n, width] with other tokens in its slots, and where its tokens stand then.

        From the first class-specific tokens on, [T, n, width], no context is common: each text has its own copy.
        """
        if tokens.dim() == 3 and stream.n_common:
            own, _ = self._streams(rows, False, True)
            x, stream = x[spread(stream, own)], own
        if stream.n_common:
            return torch.cat([tokens, x[len(tokens):]]), stream
        tokens = tokens.expand(len(rows.ids), -1, -1).flatten(0, 1)
        return x.index_copy(0, stream.slots, tokens[stream.sources]), stream

    def _text_block(self, depth: int, x: Tensor, stream: TextStream, start: KeysValues, changes: Changes) -> Tensor:
        """Return the stream [n, width] after a block, or after the last one the end tokens [T, width] in stream order."""
        block, last = self.text.transformer.resblocks[depth], depth + 1 == self.depth
        queries, *keys_values = (None, *projected(block, x, "kv", changes)) if last else projected(block, x, "qkv", changes)
        (common_k, *own_k), (common_v, *own_v) = (part.split(stream.sizes) for part in keys_values)
        common_k, common_v = (torch.cat([own, part]).transpose(0, 1)[None]  # [1, heads, P, head width]
                              for own, part in zip(start, (common_k, common_v), strict=True))
        if last:
            x = x[stream.ends]
            own_q = projected(block, x, "q", changes)[0].split([group.n_texts for group in stream.groups])
            attended = []
        else:
            common_q, *own_q = queries.split(stream.sizes)
            attended = [_attention(common_q.transpose(0, 1)[None], common_k, common_v, stream.common_mask)]
        for group, q, k, v in zip(stream.groups, own_q, own_k, own_v, strict=True):
            keys, values = (torch.cat([common.expand(group.n_texts, -1, -1, -1), _texts(own, group.n_texts)], dim=2)
                            for common, own in ((common_k, k), (common_v, v)))
            attended.append(_attention(_texts(q, group.n_texts), keys, values, None if last else group.mask))
        return after_attention(block, x, torch.cat(attended), changes)

    def _streams(self, rows: TokenRows, shared: bool, deep: bool) -> tuple[TextStream, Tensor]:
        """Return the stream of the texts and its embedded tokens [n, width], kept for the last `N_STREAMS` sets of texts."""
        key = rows, shared, deep
        if key not in self._made_streams:
            if len(self._made_streams) == N_STREAMS:
                del self._made_streams[next(iter(self._made_streams))]
            self._made_streams[key] = self._make_stream(rows, shared, deep)
        return self._made_streams[key]

    def _make_stream(self, rows: TokenRows, shared: bool, deep: bool) -> tuple[TextStream, Tensor]:
        """Return the stream of the texts and its embedded tokens [n, width], with positions alone at the slots."""
        stream = text_stream(rows, shared=shared, device=self._device)
        if deep and (rows.slots != torch.arange(1, rows.slots.shape[1] + 1)).any():
            raise ValueError("deep text prompts need a context right behind the start token")
        embedded = self.text.token_embedding(stream.ids)
        embedded[stream.slots] = 0
        dtype = self.text.transformer.get_cast_dtype()
        return stream, (embedded + self.text.positional_embedding[stream.positions]).to(dtype)

    @cached_property
    def _constant_start_token(self) -> list[KeysValues]:
        return self._make_start_token({})

    def _start_token(self, changes: Mapping[int, Changes]) -> list[KeysValues]:
        """Return keys and values of the start token in every block, [1, heads, head width] each: it sees nothing but itself."""
        return self._make_start_token(changes) if changes else self._constant_start_token

    def _make_start_token(self, changes: Mapping[int, Changes]) -> list[KeysValues]:
        start = torch.tensor([self.layout.begin[0]]).to(self._device, non_blocking=True)
        x = (self.text.token_embedding(start) + self.text.positional_embedding[:1]).to(self.text.transformer.get_cast_dtype())
        found = []
        check_standard(self.text.transformer.resblocks, "text prompts need")
        for depth, block in enumerate(self.text.transformer.resblocks):
            own = changes.get(depth, UNCHANGED)
            k, v = projected(block, x, "kv", own)
            found.append((k, v))
            x = after_attention(block, x, v.flatten(1), own)
        return found


def _texts(rows: Tensor, n_texts: int) -> Tensor:
    """Return rows [n_texts S, heads, head width] of texts of equal length as [n_texts, heads, S, head width]."""
    return rows.unflatten(0, (n_texts, -1)).transpose(1, 2)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the heads' concatenated outputs as rows [B Q, width], for q [B, heads, Q, head width] and longer k and v."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2).flatten(0, 1)
