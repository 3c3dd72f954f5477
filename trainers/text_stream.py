"""Many texts as one stream of tokens, without padding and with their common beginning only once.

The text tower is causal and only the end token of each text is read. So what follows the end tokens is left out, tokens
that stand at the same positions in all texts (start token, shared context) have the same states in all of them and are
computed once, and the start token's states are constants of the tower, which do not belong into the stream at all.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.prompts import TokenRows


@dataclass(frozen=True)
class TextStream:
    """Where the n tokens of T texts stand: first the common tokens of positions 1..P-1, then each text's own ones.

    A text's own tokens number at most S. Rows of the context are those of the flattened [T n, width] or [n, width] tensor.
    """

    ids: Tensor  # [n] token ids; anything at a slot
    positions: Tensor  # [n]
    slots: Tensor  # [K] stream rows that hold context tokens
    sources: Tensor  # [K] rows of the context that they hold
    n_common: int  # P - 1
    own: Tensor  # [T, S] row of each text's own tokens among all own tokens; 0 where the text has fewer than S
    flat: Tensor  # [n - n_common] position of each own token in the flattened [T, S]
    n_own: Tensor  # [T] own tokens of each text; the last of them is its end token

    def to(self, device: torch.device) -> "TextStream":
        """Return the stream with its tensors on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return TextStream(**(vars(self) | moved))

    @property
    def ends(self) -> Tensor:
        """Rows of the end tokens among all own tokens, [T]."""
        return self.n_own.cumsum(0) - 1


def text_stream(rows: TokenRows, *, shared: bool) -> TextStream:
    """Return the stream of the texts; `shared` says that all of them hold the same context, [n, width]."""
    n_texts, length = rows.ids.shape
    source = torch.full((n_texts, length), -1)  # context token at each position, -1 for an ordinary token
    source.scatter_(1, rows.slots, torch.arange(rows.slots.shape[1]).expand(n_texts, -1))
    n_common = _common_length(rows, source, shared) - 1
    n_own = rows.ends - n_common
    text_of = torch.arange(n_texts).repeat_interleave(n_own)
    rank = torch.arange(int(n_own.sum())) - (n_own.cumsum(0) - n_own)[text_of]  # place among the text's own tokens
    texts = torch.cat([torch.zeros(n_common, dtype=torch.long), text_of])
    positions = torch.cat([torch.arange(1, n_common + 1), rank + n_common + 1])
    sources = source[texts, positions]
    slots = (sources >= 0).nonzero().flatten()
    offset = 0 if shared else texts[slots] * rows.slots.shape[1]
    own = torch.zeros(n_texts, int(n_own.max()), dtype=torch.long)
    own[text_of, rank] = torch.arange(len(rank))
    return TextStream(rows.ids[texts, positions], positions, slots, sources[slots] + offset, n_common, own,
                      text_of * own.shape[1] + rank, n_own)


def _common_length(rows: TokenRows, source: Tensor, shared: bool) -> int:
    """Return P: how many leading positions, the start token among them, are alike in all texts and before any end."""
    alike = ((source == source[0]) & ((source >= 0) | (rows.ids == rows.ids[0]))).all(0)
    if not shared:
        alike &= (source < 0).all(0)
    n_leading = int(alike.long().cumprod(0).sum())
    return min(n_leading, int(rows.ends.min()))
