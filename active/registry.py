"""The samplers by name, and what an `ACTIVE` node says about them and their queries."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from yacs.config import CfgNode

from dassl.utils.errors import ConfigError
from dassl.utils.registry import NameOf, Parameter, Registry

SAMPLERS = Registry("sampler", "ACTIVE", home="active.samplers", facts={
    "needs_model": bool, "needs_labels": bool, "needs_linear": bool, "needs_negative_texts": bool, "labels_itself": bool,
    "check": Callable, "warm_start": Callable, "answers": Callable, "known": Callable, "asks": Callable, "stage": Callable,
    "filters": bool, "sizes": Callable, "needs_negative_texts_if": Callable})

BoundSampler = Callable  # of a SelectionContext: rows to ask, Tensor [n], or a Query
Sampler = Annotated[BoundSampler, NameOf("sampler")]  # a name in YAML that arrives as a callable
Samplers = Annotated[tuple[BoundSampler, ...], NameOf("sampler")]  # several of them


@dataclass(frozen=True)
class ChosenSampler:
    """A sampler with its parameters, as the loop uses it.

    `begin`, if there is one, gives the pseudo-labels that the model is trained on before the first query. `stream` names its
    random stream. A sampler that hands over to others has them in `inner`, and `stage` tells which one, given round, labels
    and classes. One that only filters what the sampler in `inner` sees has no `stage`, and draws from that sampler's random
    stream. One that repeats a record has `sizes`: for a round, how many images each part of its query picked.
    """

    name: str
    select: BoundSampler
    needs_model: bool
    begin: Callable | None
    stream: str
    stage: Callable | None = None
    inner: tuple["ChosenSampler", ...] = ()
    sizes: Callable[[int], list[int]] | None = None

    def at(self, round: int, n_labeled: int, n_classes: int) -> "ChosenSampler":
        """Return the sampler that selects in a round: itself, or the one that it hands over to."""
        if not self.inner:
            return self
        own = self.inner[self.stage(round, n_labeled, n_classes) if self.stage else 0].at(round, n_labeled, n_classes)
        return own if self.stage else replace(self, stream=own.stream)


def build_chosen(name: str, node: CfgNode) -> ChosenSampler:
    """Return a sampler of an `ACTIVE` node as the loop uses it.

    It, or the one that it wraps, begins by mining if it is registered with the fact `warm_start`, a function of the context and
    the sampler's parameters that returns a Query. One with the fact `stage`, a function of round, labels, classes and its
    parameters, acts in each round as the inner sampler with that index, under its name and with its random stream. One with the
    fact `filters` uses the random stream of the sampler inside it. The fact `sizes` is a function of the node and a round.
    """
    own = SAMPLERS[name]
    begins = [partial(component.facts["warm_start"], **component.arguments(node[component.key]))
              for component in map(SAMPLERS.__getitem__, wrapped(name, node)) if "warm_start" in component.facts]
    stage = partial(own.facts["stage"], **own.arguments(node[own.key])) if "stage" in own.facts else None
    inner = tuple(build_chosen(other, node) for other in _inside(name, node)) if _stands_for_others(name) else ()
    return ChosenSampler(name, build_sampler(name, node), own.facts.get("needs_model", True), begins[0] if begins else None,
                         name, stage, inner, partial(own.facts["sizes"], node) if "sizes" in own.facts else None)


def build_sampler(name: str, node: CfgNode) -> BoundSampler:
    """Return a sampler with its parameters from the `ACTIVE` node already bound.

    A parameter annotated `Sampler` holds the name of another sampler and is replaced by that sampler, built the same way;
    one annotated `Samplers` holds several names. Raises ConfigError for an unknown name or for a sampler that wraps
    itself.
    """
    return _build(name, node, ())


def choosing_samplers() -> list[str]:
    """Return the names of the samplers that choose from the context: all but those that repeat a record."""
    return [component.name for component in SAMPLERS if "answers" not in component.facts]


def check_sampler_names(node: CfgNode) -> None:
    """Raise ConfigError unless every sampler that an `ACTIVE` node names is known and its parameters fit the node.

    A sampler checks the latter by the fact `check`, a function of the node that raises ConfigError.
    """
    for sampler in (node.SAMPLER, *([node.INITIAL_SAMPLER] if node.INITIAL_SAMPLER != "auto" else [])):
        build_sampler(sampler, node)
        for name in wrapped(sampler, node):
            SAMPLERS[name].facts.get("check", lambda _: None)(node)


def check_learner(node: CfgNode, learner: str, *, has_negative_texts: bool, is_linear: bool = True) -> None:
    """Raise ConfigError if a sampler of an `ACTIVE` node needs more than the learner that selects has.

    It may need negative prompts, or logits that are a product of features and class features. Round 0 uses zero-shot CLIP,
    which is linear, except where labels are known before it.
    """
    check_sampler_names(node)
    for sampler in (initial_sampler(node), node.SAMPLER):
        for name in wrapped(sampler, node):
            facts = SAMPLERS[name].facts
            needs_negative = facts.get("needs_negative_texts") or facts.get("needs_negative_texts_if", lambda _: False)(node)
            if needs_negative and not has_negative_texts:
                raise ConfigError(f"sampler {name!r} compares positive with negative prompts, and {learner} has no negative "
                                  "ones; set TRAINER.NAME to DualPrompt, or ACTIVE.SELECTOR_TRAINER to DualPrompt and "
                                  "TRAINER.NAME to the learner that is reported")
            reads_learner = sampler == node.SAMPLER or node.KNOWN_LABELS
            if facts.get("needs_linear") and reads_learner and not is_linear:
                raise ConfigError(f"sampler {name!r} follows logits along features, and those of {learner} are not linear in "
                                  "them; take another sampler, or set ACTIVE.SELECTOR_TRAINER to a linear learner such as "
                                  "LinearProbe")


def refuse_own_labels(key: str, names: Iterable[str], why: str) -> None:
    """Raise ConfigError, naming a key below ACTIVE, if one of the samplers labels images itself."""
    for name in names:
        if SAMPLERS[name].facts.get("labels_itself"):
            raise ConfigError(f"ACTIVE.{key} is {name!r}, which labels some images itself; {why}")


def refuse_records(key: str, names: Iterable[str]) -> None:
    """Raise ConfigError, naming a key below ACTIVE, if one of the samplers repeats a record: it does not choose."""
    for name in names:
        if "answers" in SAMPLERS[name].facts:
            raise ConfigError(f"ACTIVE.{key} is {name!r}, which repeats a record and cannot choose among other images; set "
                              f"ACTIVE.SAMPLER to {name} instead")


def initial_sampler(node: CfgNode) -> str:
    """Return the name of round 0's sampler without labels: the one asked for, `random` if it needs labels, or itself."""
    if node.INITIAL_SAMPLER != "auto":
        return node.INITIAL_SAMPLER
    return "random" if _needs_labels(node.SAMPLER, node) else node.SAMPLER


def _needs_labels(name: str, node: CfgNode) -> bool:
    """Return whether a sampler needs labels; for one that hands over to others, whether the first of them does."""
    if _stands_for_others(name):
        return _needs_labels(_inside(name, node)[0], node)
    return SAMPLERS[name].facts.get("needs_labels", False)


def _stands_for_others(name: str) -> bool:
    return bool(SAMPLERS[name].facts.keys() & {"stage", "filters"})


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
    """Return how many images an integer or a share is, rounded and at least 1; None for anything else."""
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
    """Return the names of a sampler, of the one that it wraps, of the one that this wraps, and so on."""
    return [name, *(found for sampler in _inside(name, node) for found in wrapped(sampler, node))]


def _inside(name: str, node: CfgNode) -> list[str]:
    """Return the names of the samplers that the parameters of one name."""
    values = [node[SAMPLERS[name].key][parameter.key] for parameter in _naming(name)]
    return [inner for value in values for inner in ([value] if isinstance(value, str) else value)]


def _naming(name: str) -> list[Parameter]:
    return [parameter for parameter in SAMPLERS[name].parameters if "sampler" in parameter.names]


def _build(name: str, node: CfgNode, inside: tuple[str, ...]) -> BoundSampler:
    if name in inside:
        raise ConfigError(f"sampler {name!r} wraps itself: {' -> '.join((*inside, name))}")
    component = SAMPLERS[name]
    arguments = component.arguments(node.get(component.key, {}))
    for parameter in _naming(name):
        value = arguments[parameter.name]
        arguments[parameter.name] = (_build(value, node, (*inside, name)) if isinstance(value, str) else
                                     tuple(_build(inner, node, (*inside, name)) for inner in value))
    return partial(component.build, **arguments)
