"""Texts as rows of tokens: where the learned context, the class name and the fixed words stand in each."""

import itertools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dassl.utils.errors import ConfigError, UserError
from trainers.clip.tokens import Layout, layout_of, padded
from trainers.core.prompts import ClassTexts, TokenRows

if TYPE_CHECKING:
    from trainers.clip.frozen_clip import FrozenCLIP

logger = logging.getLogger(__name__)

INITIAL_STD = 0.02  # of prompts that do not start from words
MAX_CONTEXT = 256  # tokens; no text tower of CLIP's kind reads more

Position = Literal["end", "middle", "front"]


def token_rows(
    tokenizer: Any, phrases: Sequence[str], n_context: int, position: Position = "end", fixed: Sequence[int] = ()
) -> TokenRows:
    """Return the rows of "start, context, name, period, end" for each phrase, with room for `n_context` tokens.

    `position` is where the phrase (a class name) stands: after the context, in the middle of it, or in front. `fixed` are
    ordinary tokens right behind the context ("end" only). A phrase too long for the context length loses its last
    tokens, with a warning; if there is no room for any, UserError says so.
    Source: Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, Eqs. 2 and 3.
    """
    layout, blank, texts, slots = layout_of(tokenizer), [0] * n_context, [], []
    first, before = len(layout.begin), {"end": n_context, "middle": n_context // 2, "front": 0}[position]
    for phrase in phrases:
        name, tail = _name_and_tail(layout, phrase, layout.room - n_context - len(fixed))
        texts.append([*blank[:before], *fixed, *name, *blank[before:], *tail])
        slots.append([first + slot + (len(name) if slot >= before else 0) for slot in range(n_context)])
    ends = torch.tensor([first + len(own) + len(layout.end) - 1 for own in texts])
    return TokenRows(padded(layout, texts), torch.tensor(slots, dtype=torch.long).reshape(len(phrases), n_context), ends)


def deep_context(
    clip: "FrozenCLIP", texts: ClassTexts, rng: np.random.Generator, n: int, depth: int, words: str
) -> tuple[nn.ParameterList, TokenRows]:
    """Return text prompts [n, width] for each of the first blocks, and the rows that they stand in.

    The first ones start from the first n tokens of `words`, whose others follow as ordinary tokens; without enough words,
    and in deeper blocks, prompts are drawn from N(0, 0.02^2).
    """
    ids = word_ids(clip.tokenizer, words)
    enough = len(ids) >= n
    tokens = [torch.from_numpy(rng.normal(0.0, INITIAL_STD, (n, clip.text_width))).float() for _ in range(depth)]
    if enough:
        tokens[0] = clip.embed_tokens(ids[:n]).float().cpu()
    rows = token_rows(clip.tokenizer, texts.phrases, n, fixed=ids[n:].tolist() if enough else ())
    return nn.ParameterList(tokens), rows


def template_rows(tokenizer: Any, classnames: Sequence[str], template: str) -> TokenRows:
    """Return the rows of a template such as "a photo of a {}." filled with each class name, without a slot."""
    if template.count("{}") != 1:
        raise ConfigError(f"the template {template!r} must hold one {{}} for the class name")
    layout, texts = layout_of(tokenizer), [template.replace("{}", readable(classname)) for classname in classnames]
    ids = tokenizer(texts)
    ends = layout.last(ids)
    for text in itertools.compress(texts, ends == layout.length - len(layout.close) - 1):  # which are full, or more
        if (n_tokens := len(layout.words(text))) > layout.room:
            logger.warning("%r has %d tokens; only the first %d fit", text, n_tokens, layout.room)
    return TokenRows(ids, torch.empty(len(classnames), 0, dtype=torch.long), ends)


def word_ids(tokenizer: Any, words: str) -> Tensor:
    """Return the token ids of a context given in words, such as "a photo of a"."""
    return torch.tensor(layout_of(tokenizer).words(readable(words).strip()), dtype=torch.long)


def readable(name: str) -> str:
    """Return a class name as it stands in a prompt: underscores are spaces."""
    return name.replace("_", " ")


def _name_and_tail(layout: Layout, classname: str, room: int) -> tuple[list[int], list[int]]:
    """Return the tokens of the name and of what follows it, the period if the tokenizer keeps one, cut to `room` together."""
    if room < 2:
        raise UserError(f"the context leaves no room for a class name in {layout.length} tokens")
    name = readable(classname)
    tokens, n_name = layout.words(f"{name}."), len(layout.words(name))
    tail = tokens[n_name:]
    if len(tokens) > room:
        n_fit = room - len(tail[-1:])
        logger.warning("class name %r has %d tokens; only the first %d fit", classname, n_name, n_fit)
        return tokens[:n_fit], tail[-1:]
    return tokens[:n_name], tail
