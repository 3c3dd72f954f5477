"""Registration, look-up, and what a signature says about a YAML node."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
from torch import nn

from dassl.utils.errors import ConfigError
from dassl.utils.registry import AtLeast, AtMost, Given, Parameter, Registry


@pytest.fixture
def registry() -> Registry:
    return Registry("sampler", "ACTIVE")


def positional_with_default(ctx, gamma=1.0): ...


def no_default(ctx, *, gamma): ...


def none_default(ctx, *, gamma=None): ...


def function_default(ctx, *, gamma=len): ...


def nested_default(ctx, *, gamma=(1, (2, None))): ...


def any_positional(ctx, *gamma): ...


def any_keyword(ctx, **gamma): ...


class ClassWithoutDefault:
    def __init__(self, clip, *, gamma): ...


@pytest.mark.parametrize(("build", "reason"), [
    (positional_with_default, "must be keyword-only"),
    (any_positional, "must be keyword-only"),
    (any_keyword, "must be keyword-only"),
    (no_default, "has no default"),
    (ClassWithoutDefault, "has no default"),
    (none_default, "YAML cannot hold the default None"),
    (function_default, "YAML cannot hold the default"),
    (nested_default, "YAML cannot hold the default"),
])
def test_a_parameter_that_cannot_be_a_yaml_key_is_refused_at_registration(registry, build, reason):
    """The TypeError names the component, the parameter and the reason, when the file is imported."""
    with pytest.raises(TypeError, match=reason) as caught:
        registry.register("mine")(build)
    assert "sampler 'mine'" in str(caught.value)
    assert "'gamma'" in str(caught.value)


@pytest.mark.parametrize("name", ["core-set", "CORE-SET", "core_set"])
def test_two_names_of_one_yaml_node_cannot_both_be_registered(registry, name):
    """Names that differ by case or by dash and underscore would share their node."""
    registry.register("core-set")(lambda ctx: ctx)
    with pytest.raises(ValueError, match=f"sampler '{name}' is registered twice"):
        registry.register(name)(lambda ctx: ctx)


@pytest.mark.parametrize(("name", "hint"), [
    ("entropi", "did you mean 'entropy'?"),
    ("Entropy", "did you mean 'entropy'?"),
    ("xyz", "known: coreset, entropy"),
])
def test_an_unknown_name_is_answered_with_the_nearest_or_all(registry, name, hint):
    """Row 15 of the faults table: a typo stops the run, and the line gives the right name."""
    registry.register("entropy")(lambda ctx: ctx)
    registry.register("coreset")(lambda ctx: ctx)
    with pytest.raises(ConfigError) as caught:
        registry[name]
    assert str(caught.value) == f"unknown sampler {name!r}; {hint}"


def test_a_name_can_be_looked_up_before_anything_is_registered(registry):
    """The message then says so instead of showing an empty list."""
    with pytest.raises(ConfigError, match="none are known"):
        registry["random"]


def test_annotations_become_choices_bounds_and_extras(registry):
    """`Literal`, `AtLeast`, `AtMost` and other marks are read from the signature, in any combination."""

    @registry.register("pcb")
    def pcb(ctx, *, gamma: Annotated[float, AtMost(2), AtLeast(0.1)] = 0.5, norm: Literal["l1", "l2"] = "l2",
            depth: Annotated[Literal[1, 2], "mark", AtLeast(1)] = 1, plain=(1, 2), either: tuple[int, ...] | int = (1,)): ...

    assert registry["pcb"].parameters == (
        Parameter("gamma", 0.5, (float,), minimum=0.1, maximum=2, extras=(AtMost(2), AtLeast(0.1))),
        Parameter("norm", "l2", (str,), choices=("l1", "l2")),
        Parameter("depth", 1, (int,), choices=(1, 2), minimum=1, extras=("mark", AtLeast(1))),
        Parameter("plain", (1, 2), (tuple,)), Parameter("either", (1,), (tuple, int)))
    assert list(registry.parameters()) == [f"ACTIVE.PCB.{key}" for key in ("GAMMA", "NORM", "DEPTH", "PLAIN", "EITHER")]


def test_the_bounds_of_a_number_do_not_depend_on_who_wrote_them_first(registry):
    """`Annotated[float, AtLeast(5)]` and `AtLeast(5.0)` are one object to typing, and a message must be the same each time."""

    @registry.register("first")
    def first(ctx, *, gamma: Annotated[float, AtLeast(5)] = 6.0): ...

    @registry.register("second")
    def second(ctx, *, gamma: Annotated[float, AtLeast(5.0)] = 6.0): ...

    for parameter in registry.parameters().values():
        with pytest.raises(ConfigError, match=r"^KEY is 4\.0, but must be at least 5\.0$"):
            parameter.check(4.0, "KEY")


@pytest.mark.parametrize("own_init", [True, False])
def test_a_class_is_registered_by_its_constructor(registry, own_init):
    """`self` and parameters before the star are not YAML keys, whether the constructor is its own or inherited."""

    class Learner(nn.Module):
        def __init__(self, clip, texts, *, n_ctx: Annotated[int, AtLeast(1)] = 4): ...

    registry.register("learner")(Learner if own_init else type("Child", (Learner,), {}))
    assert registry["learner"].parameters == (Parameter("n_ctx", 4, (int,), minimum=1, extras=(AtLeast(1),)),)


def test_a_node_becomes_keyword_arguments(registry):
    """Upper-case keys of the node arrive under the parameters' own names; keys of others are left alone."""
    registry.register("pcb")(lambda ctx, *, gamma=0.1, norm="l2": (ctx, gamma, norm))
    component = registry["pcb"]
    assert component.build("ctx", **component.arguments({"GAMMA": 2.0, "NORM": "l1", "OTHER": 3})) == ("ctx", 2.0, "l1")


def test_the_facts_of_a_registration_are_kept(registry):
    """Facts that a component states besides its name can be read later."""
    registry.register("badge", needs_labels=True)(lambda ctx: ctx)
    assert registry["badge"].facts == {"needs_labels": True}


def test_components_are_listed_by_name_whatever_the_order_of_import(registry):
    """A listing, and the order of YAML nodes, do not depend on which file was imported first."""
    for name in ("c", "a", "b"):
        registry.register(name)(lambda ctx: ctx)
    assert [component.name for component in registry] == ["a", "b", "c"]


def test_a_given_parameter_is_no_key():
    """The caller gives it to components that have it, and YAML cannot."""
    registry = Registry("thing", "THING")

    @registry.register("one")
    def one(x, *, gamma: float = 0.1, folder: Annotated[Path | None, Given()] = None): ...

    assert [parameter.key for parameter in registry["one"].parameters] == ["GAMMA"]
    assert registry["one"].given == ("folder",)


def test_another_name_that_is_taken_is_refused():
    """Neither a component's own name nor its other names can be taken over."""
    registry = Registry("thing", "NODE")
    registry.register("first", also_known_as=["one"])(lambda: None)
    for name in ("first", "one"):
        with pytest.raises(ValueError, match=f"known as '{name}' too, which is another one's name"):
            registry.register("second", also_known_as=[name])(lambda: None)


@pytest.mark.parametrize("name", [["a"], 1, None])
def test_a_name_that_is_no_text_is_unknown(name):
    """There is one line, as for any other unknown name."""
    registry = Registry("thing", "NODE")
    registry.register("a")(lambda: None)
    with pytest.raises(ConfigError, match="unknown thing"):
        registry[name]


@pytest.mark.parametrize("strays", [True, False])
def test_what_a_home_registers_elsewhere_is_not_forgotten_at_the_next_start(tmp_path, monkeypatch, strays):
    """Its files are imported at each start then, since nothing else would lead to what they register elsewhere."""
    home = tmp_path / f"home_{strays}"
    home.mkdir()
    (home / "__init__.py").touch()
    (home / "own.py").write_text("import tests.utils.test_registry as here\n@here.STARTED[0].register('own')\ndef own(): ...\n"
                                 + "@here.STARTED[1].register('stray')\ndef stray(): ...\n" * strays)
    monkeypatch.syspath_prepend(tmp_path)
    kept = []
    monkeypatch.setattr("dassl.utils.registry.remember", lambda home, value: kept.append(home))
    monkeypatch.setattr("dassl.utils.registry.recall", lambda home: None)
    STARTED[:] = [Registry("thing", "NODE", home=home.name), Registry("other", "NODE")]
    assert [component.name for component in STARTED[0]] == ["own"] and kept == [home.name] * (not strays)


STARTED: list[Registry] = []  # of the test above, for the module that it writes


def test_a_fact_that_nobody_reads_is_refused():
    """Otherwise a misspelled fact would be missing, and one of another type would be read as true."""
    registry = Registry("thing", "NODE", facts={"is_linear": bool, "check": Callable})
    for facts, message in (({"is_liner": False}, "is_liner=False; did you mean 'is_linear'?"),
                           ({"is_linear": "no"}, "is_linear='no', which must be of type bool"),
                           ({"check": True}, "check=True, which must be of type Callable")):
        with pytest.raises(ValueError, match=re.escape(f"thing 'one' is registered with {message}")):
            registry.register("one", **facts)
    registry.register("one", is_linear=False, check=print)(lambda: None)
    assert registry["one"].facts == {"is_linear": False, "check": print}
