"""Prompts as values, the texts they stand in, and the learners that make them."""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.utils.errors import ConfigError, UserError
from dassl.utils.registry import Registry

if TYPE_CHECKING:
    from trainers.frozen_clip import FrozenCLIP

logger = logging.getLogger(__name__)

TRAINERS = Registry("trainer", "TRAINER")

INITIAL_STD = 0.02  # of prompts that do not start from words
MAX_CONTEXT = 256  # tokens; no text tower of CLIP's kind reads more

Position = Literal["end", "middle", "front"]


@dataclass(frozen=True)
class Prompts:
    """Learned tokens of both towers; index = depth, `()` = tower untouched.

    `text[0]` is the context that fills the slots, [n, width] for all texts or [T, n, width]; a deeper `text[j]` [n, width]
    replaces it at the entry of block j. `image[0]` [n, width] is appended before `ln_pre`, a deeper `image[j]` replaces
    those tokens at the entry of block j. With `after_ln_pre` the first image prompts, too, enter behind `ln_pre` (DeFT).
    `negative` is a second context for the same texts, of which a class is told apart from its absence (DualPrompt).
    """

    text: tuple[Tensor, ...] = ()
    image: tuple[Tensor, ...] = ()
    negative: tuple[Tensor, ...] = ()
    after_ln_pre: bool = False


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Token ids of the texts, [T, L], the positions of the context in each, [T, n], and of its end token, [T]."""

    ids: Tensor
    slots: Tensor
    ends: Tensor

    def digest(self) -> str:
        """Return the SHA-256 of the rows, which tells layouts and texts apart."""
        return hashlib.sha256(repr((self.ids.tolist(), self.slots.tolist())).encode()).hexdigest()


@dataclass(frozen=True)
class Classifier:
    """The class features [C, D] that images are compared with, and those of "not this class", where the learner has them."""

    texts: Tensor
    negative: Tensor | None = None


@dataclass(frozen=True)
class Averaging:
    """How the features of T texts become those of C classes: one matrix [C, T] whose rows sum to 1.

    With `normalize` (AE, average embedding) raw features are averaged and then scaled to unit length; without it (AS,
    average score) unit-length features are averaged and left as they are, which is the mean of the texts' scores.
    Source: Bang et al., "Active Prompt Learning in Vision Language Models", CVPR 2024, Section 3.3.
    """

    matrix: Tensor
    normalize: bool

    def like(self, features: Tensor) -> "Averaging":
        """Return the same with the matrix where the features are and in their precision, float32 at least."""
        return replace(self, matrix=self.matrix.to(features.device, torch.promote_types(features.dtype, torch.float32)))


@dataclass(frozen=True)
class ClassTexts:
    """What the texts are made of: the class names, in the order of the labels, and the data set's zero-shot template.

    `phrases` are what follows the context, one a class (its name) or several, which `averaging` then brings together.
    """

    classnames: tuple[str, ...]
    template: str
    phrases: tuple[str, ...] = ()
    averaging: Averaging | None = None

    def __post_init__(self) -> None:
        if not self.phrases:
            object.__setattr__(self, "phrases", self.classnames)


class PromptLearner(nn.Module, ABC):
    """Learns prompts for one list of classes. Holds parameters and the texts they stand in, never CLIP.

    A learner is built as `Learner(clip, texts, rng, *, yaml parameters)` from a FrozenCLIP, ClassTexts and a NumPy
    generator, from which all of its randomness comes. `tunes_images` says whether its prompts enter the image tower.
    """

    rows: TokenRows
    averaging: Averaging | None = None
    tunes_images = False

    @abstractmethod
    def forward(self) -> Prompts:
        """Return the prompts as they are now."""

    def loss(
        self, scale: float, features: Tensor, classifier: Classifier, targets: Tensor, rng: np.random.Generator
    ) -> Tensor:
        """Return the training loss of unit-norm image features [B, D] with labels [B]: cross-entropy, unless overridden."""
        return F.cross_entropy(scale * features @ classifier.texts.T, targets)


def token_rows(
    tokenizer, phrases: Sequence[str], n_context: int, position: Position = "end", fixed: Sequence[int] = ()
) -> TokenRows:
    """Return the rows of "start, context, name, period, end" for each phrase, with room for `n_context` tokens.

    `position` is where the phrase (a class name) stands: after the context, in the middle of it, or in front. `fixed` are
    ordinary tokens right behind the context ("end" only). A phrase too long for the context length loses its last
    tokens, with a warning; if there is no room for any, UserError says so.
    Source: Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, Eqs. 2 and 3.
    """
    length, blank = tokenizer.context_length, [0] * n_context
    ids, slots, ends = torch.zeros(len(phrases), length, dtype=torch.long), [], []
    for row, phrase in enumerate(phrases):
        name, tail = _name_and_tail(tokenizer, phrase, length - n_context - len(fixed) - 2)
        before = {"end": n_context, "middle": n_context // 2, "front": 0}[position]
        tokens = [tokenizer.sot_token_id, *blank[:before], *fixed, *name, *blank[before:], *tail, tokenizer.eot_token_id]
        ids[row, : len(tokens)] = torch.tensor(tokens)
        slots.append([1 + slot + (len(name) if slot >= before else 0) for slot in range(n_context)])
        ends.append(len(tokens) - 1)
    return TokenRows(ids, torch.tensor(slots, dtype=torch.long).reshape(len(phrases), n_context), torch.tensor(ends))


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


@dataclass(frozen=True)
class InBlocksOf:
    """Marks a parameter as a number of prompted blocks of one tower, or of the one of two that has fewer, for `Annotated`.

    It is an integer, "all", or "at most N".
    """

    towers: tuple[str, ...]


def checked_depth(depth: int | str, n_blocks: int) -> int:
    """Return how many of a tower's blocks an integer, "all" or "at most N" takes.

    Raises ConfigError for anything else, UserError for an integer beyond the tower.
    """
    if depth == "all":
        return n_blocks
    at_most = isinstance(depth, str) and depth.startswith("at most ")
    number = depth.removeprefix("at most ") if at_most else str(depth)
    if not number.isdecimal() or len(number) > 9 or int(number) < 1:
        raise ConfigError(f"{depth!r} is no number of blocks; it may be an integer from 1 on, 'all', or 'at most 9'")
    if at_most:
        return min(int(number), n_blocks)
    if int(number) > n_blocks:
        raise UserError(f"prompts in {depth} blocks are asked for, but the tower has {n_blocks}; lower it, or ask for 'all'")
    return int(number)


def settle_depths(node: CfgNode, n_blocks: Mapping[str, int]) -> None:
    """Replace each depth in the learners' nodes of a `TRAINER` node by the number of blocks that it takes of these towers.

    Raises ConfigError and UserError as `checked_depth` does, naming the key. Depths in towers that are not given stay.
    """
    for component in TRAINERS:
        for parameter in component.parameters:
            towers = next((extra.towers for extra in parameter.extras if isinstance(extra, InBlocksOf)), None)
            if towers is None or component.key not in node or not n_blocks.keys() >= set(towers):
                continue
            own = node[component.key]
            try:
                own[parameter.key] = checked_depth(own[parameter.key], min(n_blocks[tower] for tower in towers))
            except UserError as error:
                raise type(error)(f"TRAINER.{component.key}.{parameter.key}: {error}") from None


def template_rows(tokenizer, classnames: Sequence[str], template: str) -> TokenRows:
    """Return the rows of a template such as "a photo of a {}." filled with each class name, without a slot."""
    if template.count("{}") != 1:
        raise ConfigError(f"the template {template!r} must hold one {{}} for the class name")
    ids = tokenizer([template.replace("{}", readable(classname)) for classname in classnames])
    return TokenRows(ids, torch.empty(len(classnames), 0, dtype=torch.long), ids.argmax(1))


def word_ids(tokenizer, words: str) -> Tensor:
    """Return the token ids of a context given in words, such as "a photo of a"."""
    return torch.tensor(tokenizer.encode(readable(words).strip()), dtype=torch.long)


def readable(name: str) -> str:
    """Return a class name as it stands in a prompt: underscores are spaces."""
    return name.replace("_", " ")


def _name_and_tail(tokenizer, classname: str, room: int) -> tuple[list[int], list[int]]:
    """Return the tokens of the name and of what follows it (the period), cut to `room` tokens together."""
    if room < 2:
        raise UserError(f"the context leaves no room for a class name in {tokenizer.context_length} tokens")
    name = readable(classname)
    tokens, n_name = tokenizer.encode(f"{name}."), len(tokenizer.encode(name))
    if len(tokens) > room:
        logger.warning("class name %r has %d tokens; only the first %d fit", classname, n_name, room - 1)
        return tokens[: room - 1], tokens[-1:]
    return tokens[:n_name], tokens[n_name:]
