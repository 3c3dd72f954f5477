"""The gallery: a page for each sampler and learner, made from the code, its registry and the tables under `docs/`."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from active.registry import SAMPLERS
from dassl.utils.registry import Component, Parameter, Registry
from dassl.utils.remembered import Reference
from scripts.documenting.tables import as_markdown, one, rows_of, sections_of, table
from trainers.registry import LEARNERS, InBlocksOf, TunesImages

PROJECT = Path(__file__).parents[2]
UP = "../../.."  # from a page of the gallery to the project
PAGES = {"sampler": "docs/samplers.md", "learner": "docs/learners.md"}  # what people write about each
BASES = ("Learner", "Head", "PromptLearner")  # their docstrings are about writing a learner
FROM_CODE = {"sampler": "Source and differences", "learner": "Formula and source"}  # the heading of what docstrings say
SAYS = {  # facts of registries in words
    "needs_labels": "It needs labels, so round 0 is random unless `ACTIVE.INITIAL_SAMPLER` names it.",
    "needs_linear": "It needs a learner whose logits are linear in the features.",
    "needs_negative_texts": "It needs a learner with negative prompts.",
    "labels_itself": "It labels some images itself, which are not paid for.",
    "has_negative_texts": "It has negative prompts, which `dual_prompt` reads.",
}


def pages() -> dict[str, str]:
    """Return the text of every page of the gallery, by path below the project; DataError for one without a row or YAML."""
    found = {"docs/gallery/index.md": _index()}
    for component in _of_home(SAMPLERS):
        found[f"docs/gallery/samplers/{component.name}.md"] = sampler_page(component)
    for component in _of_home(LEARNERS):
        found[f"docs/gallery/learners/{component.name}.md"] = learner_page(component)
    return found


def sampler_page(component: Component) -> str:
    """Return the page of a sampler."""
    written = _written("sampler")
    rows = rows_of(written)
    if "answers" not in component.facts:  # else it repeats a record, and has no row in the table of samplers that choose
        one({name: row for name, row in rows.items() if "idea" in row}, component.name, PAGES["sampler"])
    facts = one(rows, component.name, PAGES["sampler"])
    shown = [(name, facts[name]) for name in ("idea", "needs", "cost of a round", "cold start", "score") if name in facts]
    if "cost of a round" in facts:
        shown.append(("measured", f"[seconds and memory]({UP}/benchmarks/samplers.md)"))
    formula = one(sections_of(written), component.name, PAGES["sampler"])
    return _page(component, "sampler", shown,
                 [f"## Formula\n\nSymbols are those of [Samplers](../../samplers.md).\n\n{_moved(formula)}"])


def learner_page(component: Component) -> str:
    """Return the page of a learner."""
    facts = one(rows_of(_written("learner")), component.name, PAGES["learner"])
    absent = component.facts.get("absent", "masked")
    facts = {name.replace("seconds", "seconds of a fit with 28 and with 282 labels"): cell for name, cell in facts.items()}
    return _page(component, "learner", [*((name, _moved(cell)) for name, cell in facts.items()), ("reads", _reads(component)),
                                        ("classes without a label", f"{absent} (`TRAINER.ABSENT`)")], [])


def _page(component: Component, kind: str, facts: list[tuple[str, str]], sections: list[str]) -> str:
    path = module_of(component).__name__.replace(".", "/") + ".py"
    first, _, rest = inspect.getdoc(module_of(component)).partition("\n")
    links = ", ".join(f"[`{Path(name).name}`]({UP}/{name})" for name in yaml_pages(component, kind))
    facts = [*facts, ("code", f"[`{path}`]({UP}/{path})"), ("run by", links or "your own config")]
    said = [words for fact, words in SAYS.items() if component.facts.get(fact) is True]
    said += ["Its logits are not linear in the features."] if component.facts.get("is_linear") is False else []
    node = "ACTIVE" if kind == "sampler" else "TRAINER"
    parts = [f"# {component.name}",
             f"<!-- Written by `python scripts/gallery.py` from {path} and {PAGES[kind]}: change these. -->",
             as_markdown(first), table(("name", f"`{component.name}`"), facts), " ".join(said), *sections,
             f"## Parameters\n\n{parameter_table(component, node)}", f"## {FROM_CODE[kind]}",
             *(as_markdown(text) for text in (rest.strip(), *_docstrings(component)))]
    return "\n\n".join(part for part in parts if part.strip()) + "\n"


def _docstrings(component: Component) -> list[str]:
    """Return the docstring of a function, or those of a class and its `__init__`, or what they inherit in this project."""
    build = resolved(component)
    if not inspect.isclass(build):
        return [inspect.getdoc(build)]
    ours = [own for own in build.__mro__ if own.__module__.startswith("trainers.")]
    texts = ([own.__doc__ for own in ours if own.__name__ not in BASES],
             [vars(own)["__init__"].__doc__ for own in ours if "__init__" in vars(own)])
    return [inspect.cleandoc(found[0]) for found in (list(filter(None, own)) for own in texts) if found]


def parameter_table(component: Component, node: str) -> str:
    """Return the YAML keys of a component: type, allowed values, default."""
    if not component.parameters:
        return "None."
    rows = [(f"`{node}.{component.key}.{parameter.key}`", " or ".join(kind.__name__ for kind in parameter.types),
             allowed(parameter), f"`{parameter.default!r}`") for parameter in component.parameters]
    return table(("key", "type", "allowed", "default"), rows)


def allowed(parameter: Parameter) -> str:
    """Return which values a parameter may have, in words; "any" if only its type limits them."""
    if parameter.choices:
        return ", ".join(f"`{choice}`" for choice in parameter.choices)
    if parameter.names:
        return f"the name of a {parameter.names[0]}, or of several" if parameter.types[0] is tuple else (
            f"the name of a {parameter.names[0]}")
    blocks = next((extra for extra in parameter.extras if isinstance(extra, InBlocksOf)), None)
    if blocks:
        return f"blocks of the {' or '.join(blocks.towers)} tower from {blocks.least} on, `all`, or `at most N`"
    if parameter.types == (bool,):
        return "`True`, `False`"
    bounds = [(word, bound) for word, bound in (("at least", parameter.minimum), ("at most", parameter.maximum))
              if bound is not None]
    return ", ".join(f"{word} {_short(bound)}" for word, bound in bounds) or "any"


def _short(bound: float) -> str:
    return f"{bound:g}".replace("e+0", "e")


def yaml_pages(component: Component, kind: str) -> list[str]:
    """Return the paths below the project of the YAML pages that run a component."""
    found = ([PROJECT / "configs/active" / f"{component.name}.yaml"] if kind == "sampler" else
             sorted((PROJECT / "configs/trainers" / component.name).glob("*.yaml")))
    return [path.relative_to(PROJECT).as_posix() for path in found if path.is_file()]


def module_of(component: Component):
    """Return the module that defines a component."""
    return importlib.import_module(resolved(component).__module__)


def resolved(component: Component) -> Callable:
    """Return a component's function or class itself, imported if the registry only remembers its name."""
    return component.build.resolve() if isinstance(component.build, Reference) else component.build


def _reads(component: Component) -> str:
    if any(isinstance(extra, TunesImages) for parameter in component.parameters for extra in parameter.extras):
        return "images, encoded again in every round, unless its keys leave the image tower as it is"
    reads = getattr(resolved(component), "reads", "features")
    if getattr(resolved(component), "tunes_images", False) is True:
        return "images, encoded again in every round"
    return "the input of the image tower's last projection" if reads == "pre_projection" else (
        "frozen features from the cache")


def _of_home(registry: Registry) -> Iterator[Component]:
    """Yield the components of this project, without those of plug-ins."""
    return (component for component in registry if resolved(component).__module__.startswith(f"{registry.home}."))


def _index() -> str:
    parts = ["# Gallery", "<!-- Written by `python scripts/gallery.py`: change the code, or the tables of docs/samplers.md and "
             "docs/learners.md. -->",
             "A page for each sampler and each learner, made from the code: what it does, its formula, its parameters with "
             "bounds and defaults, its source and where it differs from its authors' code. On the site, a sampler's page "
             "also shows what it picks, round by round, in the plane and on the digits.",
             "[Samplers](../samplers.md) says which to choose, and what the symbols mean; so does "
             "[Learners](../learners.md)."]
    for title, folder, registry in (("Samplers", "samplers", SAMPLERS), ("Learners", "learners", LEARNERS)):
        rows = [(f"[`{component.name}`]({folder}/{component.name}.md)",
                 _does(component))
                for component in _of_home(registry)]
        parts.append(f"## {title}\n\n{table(('name', 'what it does'), rows)}")
    return "\n\n".join(parts) + "\n"


def _does(component: Component) -> str:
    """Return the first line of a component's file after its name."""
    line = inspect.getdoc(module_of(component)).splitlines()[0].partition(": ")[2]
    return as_markdown(line[:1].upper() + line[1:])


def _written(kind: str) -> str:
    return (PROJECT / PAGES[kind]).read_text()


def _moved(text: str) -> str:
    """Return text of a page in docs/ for use two folders deeper, with adapted links."""
    return text.replace("](../", f"]({UP}/")
