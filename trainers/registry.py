"""Learners and trainers by name, and the learners' keys that depend on the backbone."""

from collections.abc import Mapping
from dataclasses import dataclass

from yacs.config import CfgNode

from dassl.utils.errors import ConfigError, UserError, did_you_mean
from dassl.utils.registry import Registry
from dassl.utils.remembered import Reference

_FOR_SAMPLERS = {"is_linear": bool, "has_negative_texts": bool}
_FOR_TESTING = {  # see trainers.testing
    "begins_as_zero_shot": bool, "moves_absent": bool, "draws_classes": bool, "without_draws": dict}
LEARNERS = Registry("learner", "TRAINER", home="trainers", leave_out=("testing",),
                    facts={"absent": str, "keeps_order": bool, **_FOR_SAMPLERS, **_FOR_TESTING})
# functions of a trainers.core.trainer.Setting that return an active.plan.Trainer
TRAINERS = Registry("trainer", "TRAINER", facts=_FOR_SAMPLERS)


def is_learner(name: str) -> bool:
    """Tell whether `TRAINER.NAME` is a learner or, if not, a trainer; raises ConfigError if it is neither."""
    if name not in LEARNERS and name not in TRAINERS:
        known = [component.name for registry in (TRAINERS, LEARNERS) for component in registry]
        raise ConfigError(f"unknown trainer {name!r}; {did_you_mean(name, known)}")
    return name in LEARNERS


def has_negative_texts(name: str) -> bool:
    """Tell whether a learner has negative prompts, with which a sampler can tell right from wrong pseudo-labels."""
    return (LEARNERS if is_learner(name) else TRAINERS)[name].facts.get("has_negative_texts", False)


def is_linear(name: str) -> bool:
    """Tell whether a learner's logits are a product of features and class features, plus a bias, as some samplers need."""
    return (LEARNERS if is_learner(name) else TRAINERS)[name].facts.get("is_linear", True)


def read_by(name: str) -> str:
    """Return what a learner `reads`: unit-norm "features" unless it says otherwise, or the image tokens that it tunes.

    This imports the learner's file.
    """
    build = LEARNERS[name].build
    said = getattr(build.resolve() if isinstance(build, Reference) else build, "reads", "features")
    return said if isinstance(said, str) else "features"  # else a property, which depends on whether the learner tunes images


def keeps_order(name: str) -> bool:
    """Tell whether a batch of all labels comes in their order for a learner, see `trainers.learner`."""
    return is_learner(name) and LEARNERS[name].facts.get("keeps_order", False)


def absent(asked: str, name: str) -> str:
    """Return how the loss treats classes without a label, "masked" or "pushed", for a value of `TRAINER.ABSENT`.

    "auto" is the learner's fact `absent`: masked, unless it was registered as pushed, following its paper.
    """
    if asked != "auto":
        return asked
    found = LEARNERS[name].facts.get("absent", "masked") if is_learner(name) else "pushed"
    if found not in ("masked", "pushed"):
        raise ConfigError(f"learner {name!r} is registered with absent={found!r}, which must be 'masked' or 'pushed'")
    return found


@dataclass(frozen=True)
class InBlocksOf:
    """Marks a parameter, in `Annotated`, as a number of prompted blocks of one tower, or of the one of two with fewer.

    It is an integer, "all", or "at most N", and not below `least`.
    """

    towers: tuple[str, ...]
    least: int = 1


@dataclass(frozen=True)
class TunesImages:
    """Marks a parameter that makes a learner tune the image tower, unless it has a certain value, for `Annotated`."""

    unless: int | str = 0


def tunes_images(name: str, node: CfgNode) -> bool:
    """Tell whether a learner's keys in a `TRAINER` node say that it tunes the image tower."""
    component = LEARNERS[name]
    values = component.arguments(node.get(component.key, {}))
    return any(isinstance(extra, TunesImages) and values[parameter.name] != extra.unless
               for parameter in component.parameters for extra in parameter.extras)


def checked_depth(depth: int | str, n_blocks: int, least: int = 1) -> int:
    """Return how many of a tower's blocks an integer, "all" or "at most N" takes.

    Raises ConfigError for anything else, UserError for an integer beyond the tower or for fewer than `least`.
    """
    if (found := _depth(depth, n_blocks)) < least:
        raise UserError(f"{depth} of {n_blocks} blocks are asked for, but at least {least} are needed")
    return found


def _depth(depth: int | str, n_blocks: int) -> int:
    if depth == "all":
        return n_blocks
    number = str(depth).removeprefix("at most ")
    at_most = number != str(depth)
    if not number.isdecimal() or len(number) > 9 or int(number) < 1:
        raise ConfigError(f"{depth!r} is not a number of blocks; it may be an integer from 1 on, 'all', or 'at most 9'")
    if at_most:
        return min(int(number), n_blocks)
    if int(number) > n_blocks:
        raise UserError(f"prompts in {depth} blocks are asked for, but the tower has {n_blocks}; lower it, or ask for 'all'")
    return int(number)


def settle_depths(node: CfgNode, n_blocks: Mapping[str, int]) -> None:
    """Replace each depth in the learners' nodes of a `TRAINER` node by the number of blocks that it means in these towers.

    Raises ConfigError and UserError as `checked_depth` does, naming the key. Depths of towers that are not given stay
    as they are.
    """
    for component in LEARNERS:
        for parameter in component.parameters:
            blocks = next((extra for extra in parameter.extras if isinstance(extra, InBlocksOf)), None)
            if blocks is None or component.key not in node or not n_blocks.keys() >= set(blocks.towers):
                continue
            own, n_shared = node[component.key], min(n_blocks[tower] for tower in blocks.towers)
            try:
                own[parameter.key] = checked_depth(own[parameter.key], n_shared, blocks.least)
            except UserError as error:
                raise type(error)(f"TRAINER.{component.key}.{parameter.key}: {error}") from None
