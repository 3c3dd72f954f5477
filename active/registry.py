"""The samplers by their names, and what an `ACTIVE` node says of them and of their queries."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from yacs.config import CfgNode

from dassl.utils.errors import ConfigError
from dassl.utils.registry import NameOf, Registry

SAMPLERS = Registry("sampler", "ACTIVE", home="active.samplers", facts={
    "needs_model": bool, "needs_labels": bool, "needs_linear": bool, "needs_negative_texts": bool, "labels_itself": bool,
    "check": Callable, "warm_start": Callable, "answers": Callable, "known": Callable, "asks": Callable})

BoundSampler = Callable  # of a SelectionContext: rows to ask, Tensor [n], or a Query
Sampler = Annotated[BoundSampler, NameOf("sampler")]  # a name in YAML that arrives as a callable


@dataclass(frozen=True)
class ChosenSampler:
    """A sampler with its parameters, as the loop uses it.

    `begin`, if it has one, gives the pseudo-labels that the model is trained on before the first query.
    """

    name: str
    select: BoundSampler
    needs_model: bool
    begin: Callable | None


def build_chosen(name: str, node: CfgNode) -> ChosenSampler:
    """Return a sampler of an `ACTIVE` node as the loop uses it.

    It, or the one that it wraps, begins by mining if it is registered with the fact `warm_start`, a function of the context and
    the sampler's parameters that returns a Query.
    """
    begins = [partial(component.facts["warm_start"], **component.arguments(node[component.key]))
              for component in map(SAMPLERS.__getitem__, wrapped(name, node)) if "warm_start" in component.facts]
    needs_model = SAMPLERS[name].facts.get("needs_model", True)
    return ChosenSampler(name, build_sampler(name, node), needs_model, begins[0] if begins else None)


def build_sampler(name: str, node: CfgNode) -> BoundSampler:
    """Return a sampler that already carries its parameters from the `ACTIVE` node.

    A parameter annotated `Sampler` holds the name of another sampler and is replaced by that one, built the same way.
    Raises ConfigError for an unknown name or for a sampler that wraps itself.
    """
    return _build(name, node, ())


def choosing_samplers() -> list[str]:
    """Return the names of the samplers that choose by the context: all but those that repeat a record."""
    return [component.name for component in SAMPLERS if "answers" not in component.facts]


def check_sampler_names(node: CfgNode) -> None:
    """Raise ConfigError unless every sampler that an `ACTIVE` node names is known and its parameters fit the node.

    A sampler says the latter by the fact `check`, a function of the node that raises what it finds wrong.
    """
    for sampler in (node.SAMPLER, *([node.INITIAL_SAMPLER] if node.INITIAL_SAMPLER != "auto" else [])):
        build_sampler(sampler, node)
        for name in wrapped(sampler, node):
            SAMPLERS[name].facts.get("check", lambda _: None)(node)


def check_learner(node: CfgNode, learner: str, *, has_negative_texts: bool, is_linear: bool = True) -> None:
    """Raise ConfigError if a sampler of an `ACTIVE` node needs more than the learner that selects has.

    That is negative prompts, or logits that are a product of features and class features. Round 0 is zero-shot CLIP's, which
    is linear.
    """
    check_sampler_names(node)
    for sampler in (initial_sampler(node), node.SAMPLER):
        for name in wrapped(sampler, node):
            facts = SAMPLERS[name].facts
            if facts.get("needs_negative_texts") and not has_negative_texts:
                raise ConfigError(f"sampler {name!r} compares positive with negative prompts, and {learner} has no negative "
                                  "ones; set TRAINER.NAME to DualPrompt, or ACTIVE.SELECTOR_TRAINER to DualPrompt and "
                                  "TRAINER.NAME to the learner that is reported")
            if facts.get("needs_linear") and sampler == node.SAMPLER and not is_linear:
                raise ConfigError(f"sampler {name!r} follows logits along features, and those of {learner} are not linear in "
                                  "them; take another sampler, or set ACTIVE.SELECTOR_TRAINER to a linear learner such as "
                                  "LinearProbe")


def refuse_own_labels(key: str, names: Iterable[str], why: str) -> None:
    """Raise ConfigError, naming a key below ACTIVE, if one of the samplers labels images itself."""
    for name in names:
        if SAMPLERS[name].facts.get("labels_itself"):
            raise ConfigError(f"ACTIVE.{key} is {name!r}, which labels some images itself; {why}")


def initial_sampler(node: CfgNode) -> str:
    """Return the name of the sampler of a round 0 without labels: the one asked for, `random` if it needs labels, or itself."""
    if node.INITIAL_SAMPLER != "auto":
        return node.INITIAL_SAMPLER
    return "random" if SAMPLERS[node.SAMPLER].facts.get("needs_labels") else node.SAMPLER


def query_size(size: int | str, n_train: int, n_classes: int) -> int:
    """Return the labels of a round for `ACTIVE.QUERY_SIZE`: an integer, a share such as "1%" (rounded), or per_class."""
    if size == "per_class":
        return n_classes
    if (n_query := _images(size, n_train)) is None:
        raise ConfigError(f"ACTIVE.QUERY_SIZE is {size!r}, but must be an integer, a share such as '1%', or per_class")
    if n_query < 1:
        raise ConfigError(f"ACTIVE.QUERY_SIZE is {size}, but must be at least 1")
    return n_query


def audit_size(size: int | str, n_train: int) -> int:
    """Return the labels of an audit for `ACTIVE.AUDIT`: an integer or a share; 0 or "" is none."""
    if size == "":
        return 0
    if (n_audited := _images(size, n_train)) is None or n_audited < 0:
        raise ConfigError(f"ACTIVE.AUDIT is {size!r}, but must be an integer from 0 on or a share such as '5%'")
    return n_audited


def _images(size: int | str, n_train: int) -> int | None:
    """Return how many images an integer or a share is, rounded and 1 at least; None for anything else."""
    share = str(size).removesuffix("%").strip()
    try:
        if isinstance(size, int):
            return size
        if size.endswith("%") and 0 < float(share) <= 100:
            return max(1, int(n_train * float(share) / 100 + 0.5))
    except ValueError:
        pass
    return None


def wrapped(name: str, node: CfgNode) -> list[str]:
    """Return the names of a sampler, of the one it wraps, of the one that wraps, ..."""
    component = SAMPLERS[name]
    inner = [node[component.key][parameter.key] for parameter in component.parameters if "sampler" in parameter.names]
    return [name, *(found for sampler in inner for found in wrapped(sampler, node))]


def _build(name: str, node: CfgNode, inside: tuple[str, ...]) -> BoundSampler:
    if name in inside:
        raise ConfigError(f"sampler {name!r} wraps itself: {' -> '.join((*inside, name))}")
    component = SAMPLERS[name]
    arguments = component.arguments(node.get(component.key, {}))
    for parameter in component.parameters:
        if "sampler" in parameter.names:
            arguments[parameter.name] = _build(arguments[parameter.name], node, (*inside, name))
    return partial(component.build, **arguments)
