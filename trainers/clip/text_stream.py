"""Many texts as one stream of tokens, without padding and with their common beginning only once.

The text tower is causal and only the end token of each text is read. So what follows the end tokens is left out, tokens
that stand at the same positions in all texts (start token, shared context) have the same states in all of them and are
computed once, and the start token's states are constants of the tower, which do not belong into the stream at all.
Texts of equal length stand side by side, so that they are one block without a gap.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.core.prompts import TokenRows


@dataclass(frozen=True)
class Group:
    """Neighboring texts with the same number of own tokens."""

    n_texts: int
    n_own: int
    mask: Tensor  # [n_own, P + n_own]: which of the common and its own tokens each own token sees


@dataclass(frozen=True)
class TextStream:
    """Where the n tokens of T texts stand: first the common tokens of positions 1..P-1, then each text's own ones.

    Texts stand in the order of their lengths; `order` brings them back. Rows of the context are those of the flattened
    [T n, width] or [n, width] tensor.
    """

    ids: Tensor  # [n] token ids; anything at a slot
    positions: Tensor  # [n]
    slots: Tensor  # [K] stream rows that hold context tokens
    sources: Tensor  # [K] rows of the context that they hold
    ends: Tensor  # [T] stream rows of the end tokens, in stream order
    order: Tensor  # [T] where each text stands in stream order
    n_common: int  # P - 1
    common_mask: Tensor  # [P - 1, P]
    groups: tuple[Group, ...]

    @property
    def sizes(self) -> list[int]:
        """Tokens of the common part and of each group."""
        return [self.n_common, *(group.n_texts * group.n_own for group in self.groups)]


def text_stream(rows: TokenRows, *, shared: bool, device: torch.device) -> TextStream:
    """Return the stream of the texts; `shared` says that all of them hold the same context, [n, width]."""
    n_texts, length = rows.ids.shape
    source = torch.full((n_texts, length), -1)  # context token at each position, -1 for an ordinary token
    source.scatter_(1, rows.slots, torch.arange(rows.slots.shape[1]).expand(n_texts, -1))
    n_common = _common_length(rows, source, shared) - 1
    by_length = rows.ends.argsort(stable=True)
    n_own = (rows.ends - n_common)[by_length]
    last = n_common + n_own.cumsum(0)  # one behind each text's end token
    texts = torch.cat([by_length[:1].expand(n_common), by_length.repeat_interleave(n_own)])
    positions = torch.arange(1, len(texts) + 1)
    positions[n_common:] -= (last - n_own - n_common).repeat_interleave(n_own)
    sources = source[texts, positions]
    slots = (sources >= 0).nonzero().flatten()
    offset = 0 if shared else texts[slots] * rows.slots.shape[1]
    tensors = (rows.ids[texts, positions], positions, slots, sources[slots] + offset, last - 1, by_length.argsort())
    return TextStream(*(tensor.to(device) for tensor in tensors), n_common, _causal(n_common, n_common + 1, device),
                      _groups(n_own, n_common, device))


def spread(stream: TextStream, own: TextStream) -> Tensor:
    """Return for each row of `own`, a stream of the same texts without common tokens, the row of `stream` that it repeats."""
    texts = (own.positions == 1).cumsum(0) - 1
    before_end = own.ends[texts] - torch.arange(len(texts), device=texts.device)
    return torch.where(own.positions <= stream.n_common, own.positions - 1, stream.ends[texts] - before_end)


def _groups(n_own: Tensor, n_common: int, device: torch.device) -> tuple[Group, ...]:
    lengths, counts = n_own.unique_consecutive(return_counts=True)
    return tuple(Group(count, length, _causal(length, n_common + 1 + length, device))
                 for length, count in zip(lengths.tolist(), counts.tolist(), strict=True))


def _causal(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """Return what the last n_queries of n_keys tokens see: themselves and all before them."""
    return torch.ones(n_queries, n_keys, dtype=torch.bool, device=device).tril(n_keys - n_queries)


def _common_length(rows: TokenRows, source: Tensor, shared: bool) -> int:
    """Return P: how many leading positions, the start token among them, are alike in all texts and before any end."""
    alike = ((source == source[0]) & ((source >= 0) | (rows.ids == rows.ids[0]))).all(0)
    if not shared:
        alike &= (source < 0).all(0)
    n_leading = int(alike.long().cumprod(0).sum())
    return min(n_leading, int(rows.ends.min()))
