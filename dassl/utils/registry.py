"""One registry class for data sets, learners, trainers, samplers, oracles, recorders and metrics.

A component's keyword-only parameters are its YAML node: `pcb(ctx, *, gamma: float = 0.1)`, registered as "pcb" in the
registry of node `ACTIVE`, is configured by `ACTIVE.PCB.GAMMA`. The annotation is checked when the YAML is merged:
`Literal["end", "front"]` lists the choices, `Annotated[int, AtLeast(1), AtMost(77)]` sets bounds, `int | str` allows either
type. Shared keys, in `dassl.config.defaults`, are annotated in the same way.
"""

import importlib
import inspect
import json
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from types import UnionType
from typing import Annotated, Any, Literal

from dassl.utils.errors import ConfigError, did_you_mean
from dassl.utils.imports import own_name
from dassl.utils.plugins import import_all
from dassl.utils.remembered import Reference, recall, remember


@dataclass(frozen=True)
class AtLeast:
    """Lower bound of a number, for use in `Annotated`."""

    minimum: float


@dataclass(frozen=True)
class AtMost:
    """Upper bound of a number, for use in `Annotated`."""

    maximum: float


@dataclass(frozen=True)
class Before:
    """The value of a parameter in records older than it, if that is not its default, for use in `Annotated`."""

    value: Any


@dataclass(frozen=True)
class NameOf:
    """Marks a parameter, in `Annotated`, that names one or several components of a kind's registry."""

    kind: str


@dataclass(frozen=True)
class Given:
    """Marks a parameter, in `Annotated`, that is not a YAML key: the caller gives it to components that have it."""


@dataclass(frozen=True)
class Parameter:
    """One key of the YAML. `extras` is what its `Annotated` holds besides the type."""

    name: str
    default: Any
    types: tuple[type, ...]  # the default's first
    choices: tuple = ()
    minimum: float | None = None
    maximum: float | None = None
    extras: tuple = ()

    @cached_property
    def key(self) -> str:
        return self.name.upper()

    @property
    def before(self) -> Any:
        """The value of the parameter in a record without it."""
        return next((extra.value for extra in self.extras if isinstance(extra, Before)), self.default)

    @cached_property
    def recorded_before(self) -> Any:
        """The same in the form that records have, as in JSON. Not to be changed."""
        return json.loads(json.dumps(self.before))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The kinds of components that the value may name."""
        return tuple(extra.kind for extra in self.extras if isinstance(extra, NameOf))

    def check(self, value: Any, key: str) -> None:
        """Raise ConfigError, naming the key in full, for a value outside the choices or beyond the bounds."""
        if self.choices and value not in self.choices:
            raise ConfigError(f"{key} is {value!r}; {did_you_mean(str(value), filter(None, map(str, self.choices)))}")
        if self.minimum is not None and value < self.minimum:
            raise ConfigError(f"{key} is {value}, but must be at least {self.minimum}")
        if self.maximum is not None and value > self.maximum:
            raise ConfigError(f"{key} is {value}, but must be at most {self.maximum}")


@dataclass(frozen=True)
class Component:
    """A registered function or class, its YAML parameters, and the facts stated at registration."""

    name: str
    build: Callable
    parameters: tuple[Parameter, ...]
    facts: Mapping[str, Any]
    given: tuple[str, ...] = ()  # names of parameters that are not YAML keys

    @cached_property
    def key(self) -> str:
        return self.name.upper().replace("-", "_")

    def arguments(self, node: Mapping[str, Any]) -> dict[str, Any]:
        """Return this component's keyword arguments from a YAML node; a recorded node may lack newer keys."""
        return {parameter.name: node.get(parameter.key, parameter.before) for parameter in self.parameters}


_registries: list["Registry"] = []  # all of this process


class Registry:
    """Names to components. `kind` is the word used in messages, `node` the YAML node above the components' own.

    `home` is the package whose modules, except those in `leave_out`, register components, so that dropping a file into it is
    enough; or a single module. They are imported when a component is used; names and parameters are remembered from start to
    start. `facts` are the facts that a component may be registered with, and their types: `Callable` for a function; None
    allows any.
    """

    def __init__(self, kind: str, node: str, home: str = "", leave_out: Collection[str] = (),
                 facts: Mapping[str, Any] | None = None):
        self.kind = kind
        self.node = node
        self.facts = facts
        self.home, self._leave_out, self._is_filled = home, leave_out, not home
        self._components: dict[str, Component] = {}
        self._canonical: dict[str, str] = {}
        _registries.append(self)

    def register(self, name: str, *, also_known_as: Sequence[str] = (), **facts: Any) -> Callable:
        """Return a decorator that registers a function or class under `name`, and under the names that it has elsewhere.

        Raises TypeError if a parameter is not keyword-only, has no default, or its default cannot be written in
        YAML, and ValueError if the name is taken or a fact is unknown here.
        """
        self._check_facts(name, facts)

        def decorate(build: Callable) -> Callable:
            component = Component(name, build, _parameters(f"{self.kind} {name!r}", build), facts, _given(build))
            for other in self._components.values():
                if other.key == component.key and not _is_reference(other.build, build):
                    raise ValueError(f"{self.kind} {name!r} is registered twice: {other.build} and {build}")
            for alias in also_known_as:
                if alias in self._components or self._canonical.get(alias, name) != name:
                    raise ValueError(f"{self.kind} {name!r} is to be known as {alias!r} too, which is another one's name")
            self._components[name] = component
            self._canonical |= dict.fromkeys(also_known_as, name)
            return build

        return decorate

    def _check_facts(self, name: str, facts: Mapping[str, Any]) -> None:
        for fact, value in facts.items() if self.facts is not None else ():
            if fact not in self.facts:
                raise ValueError(f"{self.kind} {name!r} is registered with {fact}={value!r}; {did_you_mean(fact, self.facts)}")
            if not isinstance(value, self.facts[fact]):
                raise ValueError(f"{self.kind} {name!r} is registered with {fact}={value!r}, which must be of type "
                                 f"{self.facts[fact].__name__}")

    def canonical(self, name: str) -> str:
        """Return the name of a component in records and messages; an unknown name stays as it is."""
        self.fill()
        return self._canonical.get(name, name) if isinstance(name, str) else name

    def canonical_value(self, value: Any) -> Any:
        """Return a config's value with canonical names for the components that it names, one or a list."""
        return type(value)(map(self.canonical, value)) if isinstance(value, (list, tuple)) else self.canonical(value)

    def fill(self) -> None:
        """Register the components of `home`, if that has not happened yet."""
        if self._is_filled:
            return
        self._is_filled, home, before = True, own_name(self.home), set(self._components)
        if (remembered := recall(home)) is None:
            import_all(home, getattr(importlib.import_module(home), "__path__", ()), leave_out=self._leave_out)
            own = [component for component in self._components.values() if _lives_in(home, component)]
            if any(_lives_in(home, component) and not (registry.home and _lives_in(registry.home, component))
                   for registry in _registries if registry is not self for component in registry._components.values()):
                return  # what the files register elsewhere would be missing at a start that does not import them
            if {component.name for component in own} < self._components.keys() - before:
                return  # so would components that live elsewhere
            with suppress(ValueError):  # a component that cannot be found by name is imported at each start
                names = {known: name for known, name in self._canonical.items() if name in {one.name for one in own}}
                remember(home, ([_referred(component) for component in own], names))
        else:
            components, names = remembered
            self._components = {component.name: component for component in components} | self._components
            self._canonical = names | self._canonical

    def __getitem__(self, name: str) -> Component:
        name = self.canonical(name)
        if not isinstance(name, str) or name not in self._components:
            raise ConfigError(f"unknown {self.kind} {name!r}; {did_you_mean(str(name), self._components)}")
        return self._components[name]

    def __contains__(self, name: str) -> bool:
        return self.canonical(name) in self._components

    def parameters(self) -> dict[str, Parameter]:
        """Return the parameters of all components by their dotted keys."""
        return {f"{self.node}.{component.key}.{parameter.key}": parameter
                for component in self for parameter in component.parameters}

    def __iter__(self) -> Iterator[Component]:
        self.fill()
        return iter(sorted(self._components.values(), key=lambda component: component.name))


def _lives_in(home: str, component: Component) -> bool:
    return f"{getattr(component.build, '__module__', '')}.".startswith(f"{home}.")


def _referred(component: Component) -> Component:
    """Return a component in a form to remember: functions, including those among its facts, by name."""
    facts = {name: Reference.of(fact) if callable(fact) else fact for name, fact in component.facts.items()}
    return replace(component, build=Reference.of(component.build), facts=facts)


def _is_reference(known: Callable, build: Callable) -> bool:
    """Tell whether `known` is a reference to the function or class `build`, which has now been imported."""
    return isinstance(known, Reference) and known == Reference(build.__module__, build.__qualname__)


def _hints(build: Callable) -> dict[str, Any]:
    return typing.get_type_hints(build.__init__ if inspect.isclass(build) else build, include_extras=True)


def _given(build: Callable) -> tuple[str, ...]:
    return tuple(name for name, hint in _hints(build).items() if Given() in getattr(hint, "__metadata__", ()))


def _parameters(owner: str, build: Callable) -> tuple[Parameter, ...]:
    hints, given = _hints(build), _given(build)
    found = []
    for name, parameter in inspect.signature(build).parameters.items():
        if name in given:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            found.append(parameter_of(owner, name, parameter.default, hints.get(name)))
        elif parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise TypeError(f"{owner}: parameter {name!r} must be keyword-only (put it after a '*')")
    return tuple(found)


def parameter_of(owner: str, name: str, default: Any, hint: Any) -> Parameter:
    """Return the parameter that a name, its default and its annotation declare.

    Raises TypeError, naming the owner, if there is no default or YAML cannot hold it.
    """
    if default is inspect.Parameter.empty:
        raise TypeError(f"{owner}: parameter {name!r} has no default")
    if not _fits_yaml(default):
        raise TypeError(f"{owner}: YAML cannot hold the default {default!r} of parameter {name!r}")
    extras = ()
    if typing.get_origin(hint) is Annotated:
        hint, *extras = typing.get_args(hint)
    choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    minimum = next((extra.minimum for extra in extras if isinstance(extra, AtLeast)), None)
    maximum = next((extra.maximum for extra in extras if isinstance(extra, AtMost)), None)
    if isinstance(default, float):  # typing caches AtLeast(0) and AtLeast(0.0) as one, whichever came first in the process
        minimum, maximum = (bound if bound is None else float(bound) for bound in (minimum, maximum))
    others = typing.get_args(hint) if isinstance(hint, UnionType) else ()
    types = dict.fromkeys([type(default), *(typing.get_origin(other) or other for other in others)])
    return Parameter(name, default, tuple(types), choices, minimum, maximum, tuple(extras))


def _fits_yaml(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_fits_yaml(item) for item in value)
    return isinstance(value, (bool, int, float, str))
