"""What rows of tokens are made of, for any of open_clip's tokenizers: CLIP's own, and those of transformers."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PROBE = "a"  # any word: its tokens stand between those that begin and end a text


@dataclass(frozen=True)
class Layout:
    """How a tokenizer lays out a text: `begin`, its own tokens, `end`, and `pad` up to `length`, of which the last are `close`.

    `words` returns the own tokens of a text, cleaned as the tokenizer cleans texts.
    """

    begin: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    length: int
    words: Callable[[str], list[int]]
    close: tuple[int, ...] = ()

    @property
    def room(self) -> int:
        """How many own tokens a text can have."""
        return self.length - len(self.begin) - len(self.end) - len(self.close)

    def last(self, ids: Tensor) -> Tensor:
        """Return the position [T] of the last token of each text [T, length] that is no padding."""
        if self.end:  # which may be the token for padding too
            own = ids == self.end[-1]
            own[:, :len(self.begin)] = False
            return own.int().argmax(1)
        return (ids != self.pad).sum(1) - 1


@functools.cache
def layout_of(tokenizer: Any) -> Layout:
    """Return how a tokenizer of open_clip's lays out texts."""
    length = tokenizer.context_length
    if hasattr(tokenizer, "sot_token_id"):
        return Layout((tokenizer.sot_token_id,), (tokenizer.eot_token_id,), 0, length, tokenizer.encode)
    inner = tokenizer.tokenizer  # that of transformers

    def words(text: str) -> list[int]:
        return inner(tokenizer.clean_fn(text), add_special_tokens=False).input_ids

    if tokenizer.tokenizer_mode == "clips":
        return Layout((inner.bos_token_id,), (inner.eos_token_id,), inner.pad_token_id, length, words, (inner.cls_token_id,))
    whole, own, pad = inner(PROBE).input_ids, words(PROBE), inner.pad_token_id
    start = next(place for place in range(len(whole)) if whole[place:place + len(own)] == own)
    begin, end = whole[:start], whole[start + len(own):]
    if tokenizer.strip_sep_token:
        end = [0 if token == inner.sep_token_id else token for token in end]
    return Layout(tuple(begin), tuple(end), pad, length, words)


def padded(layout: Layout, texts: list[list[int]]) -> Tensor:
    """Return texts of own tokens as rows [T, length]."""
    rows = torch.full((len(texts), layout.length), layout.pad, dtype=torch.long)
    for row, own in enumerate(texts):
        tokens = torch.tensor([*layout.begin, *own, *layout.end])
        rows[row, :len(tokens)] = tokens
    rows[:, layout.length - len(layout.close):] = torch.tensor(layout.close, dtype=torch.long)
    return rows
