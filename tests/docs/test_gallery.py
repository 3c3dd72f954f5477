"""The gallery agrees with the code: no page is missing, outdated or left over."""

from pathlib import Path

import pytest

from active.registry import SAMPLERS
from dassl.utils.errors import DataError
from scripts import gallery as command
from scripts.documenting import gallery
from scripts.documenting.tables import as_markdown, one, rows_of, sections_of
from trainers.registry import LEARNERS

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pages():
    return gallery.pages()


def test_the_gallery_is_what_the_code_makes_of_it(pages):
    """`python scripts/gallery.py` has been run since the last change, and leaves no page of what is gone."""
    there = {path.relative_to(PROJECT).as_posix(): path.read_text() for path in (PROJECT / "docs/gallery").rglob("*.md")}
    assert there.keys() == pages.keys()
    assert [name for name, text in pages.items() if there[name] != text] == []


@pytest.mark.parametrize(("registry", "folder"), [(SAMPLERS, "samplers"), (LEARNERS, "learners")])
def test_every_component_has_a_page_with_all_it_can_be_told(pages, registry, folder):
    """It has each key with its default, the source file and a page that runs it, and the index links to it."""
    own = [component for component in registry if gallery.resolved(component).__module__.startswith(f"{registry.home}.")]
    assert len(own) > 15
    for component in own:
        page = pages[f"docs/gallery/{folder}/{component.name}.md"]
        for parameter in component.parameters:
            assert f"| `{registry.node}.{component.key}.{parameter.key}` | " in page
            assert f"| `{parameter.default!r}` |" in page
        assert f"{gallery.module_of(component).__name__.split('.')[-1]}.py" in page
        assert component.name == "replay" or ".yaml`](" in page
        assert f"]({folder}/{component.name}.md)" in pages["docs/gallery/index.md"]


def test_bounds_choices_and_names_are_said(pages):
    """They are those that the registry checks."""
    assert "| float | at least 0, at most 1 | `0.1` |" in pages["docs/gallery/samplers/pcb.md"]
    assert "| str | `random`, `medoid` | `'random'` |" in pages["docs/gallery/samplers/coreset.md"]
    assert "| the name of a sampler | `'typiclust'` |" in pages["docs/gallery/samplers/tcm.md"]
    assert "blocks of the text or image tower from 1 on, `all`, or `at most N`" in pages["docs/gallery/learners/MaPLe.md"]


def test_docstrings_are_this_projects(pages):
    """Docstrings inherited from the project's own classes are included. Torch's are not, as they change with its version."""
    assert '`count` "mean" divides a_k by the number of labels of k' in pages["docs/gallery/learners/TipAdapterF.md"]
    assert [name for name, text in pages.items() if "internal Module state" in text] == []


def test_a_component_that_the_tables_pass_over_is_an_error():
    """The error tells whoever adds a sampler or learner where to describe it."""
    assert one(rows_of("| sampler | cost |\n|---|---|\n| `a`, `b` | n |\n"), "b", "docs/x.md") == {"cost": "n"}
    with pytest.raises(DataError, match=r"docs/x\.md says nothing about 'c'; add it there"):
        one(rows_of("| sampler | cost |\n|---|---|\n| `a`, `b` | n |\n"), "c", "docs/x.md")


def test_each_table_has_its_own_columns():
    """Text between two tables ends the first."""
    found = rows_of("| x | cost |\n|---|---|\n| `a` | 1 |\n\nNow\n\n| x | source |\n|---|---|\n| `b` | ECCV |\n")
    assert found == {"a": {"cost": "1"}, "b": {"source": "ECCV"}}
    both = rows_of("| x | cost |\n|---|---|\n| `a` | 1 |\n\n| x | score |\n|---|---|\n| `a` | 2 |\n")
    assert both == {"a": {"cost": "1", "score": "2"}}
    assert sections_of("# T\n## A\n\n### b\none\ntwo\n\n## C\nthree\n") == {"A": "", "b": "one\ntwo", "C": "three"}


def test_docstrings_read_in_markdown_as_in_the_code():
    """Formulas stay code, lists are set apart, stars and brackets are escaped, and text in backticks stays as it is."""
    text = "a * b of <name>, `x * <y>`:\n\n    f * g <h>\n\nof:\n- one\n  _more_\nthen"
    assert as_markdown(text) == "a \\* b of \\<name>, `x * <y>`:\n\n    f * g <h>\n\nof:\n\n- one\n  \\_more_\n\nthen"


def test_the_command_writes_what_differs_and_removes_what_is_gone(tmp_path, monkeypatch, capsys):
    """It changes nothing else."""
    monkeypatch.setattr(command, "PROJECT", tmp_path)
    monkeypatch.setattr(command, "pages", lambda: {"docs/gallery/index.md": "i\n", "docs/gallery/samplers/a.md": "a\n"})
    (tmp_path / "docs/gallery/samplers").mkdir(parents=True)
    (tmp_path / "docs/gallery/index.md").write_text("i\n")
    (tmp_path / "docs/gallery/samplers/gone.md").write_text("gone\n")
    assert command.main([]) == 0
    assert capsys.readouterr().out == "2 pages: 1 written, 1 removed\n"
    assert {path.name for path in tmp_path.rglob("*.md")} == {"index.md", "a.md"}
