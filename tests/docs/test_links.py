"""No link of the documentation is dead, on a code host and on the site."""

import re
from pathlib import Path

import pytest

from scripts.documenting.links import anchors, as_page, files_linked, mapped, moved, site_path, slug

PROJECT = Path(__file__).parents[2]
PAGES = [path.relative_to(PROJECT).as_posix() for pattern in ("*.md", "docs/**/*.md", "benchmarks/**/*.md")
         for path in sorted(PROJECT.glob(pattern))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_are_there(page):
    """Paths are relative, so they work wherever the repository is read. Anchors are made as code hosts make them."""
    for path, anchor in files_linked((PROJECT / page).read_text(), page):
        assert not path.startswith(".."), f"{page} links to {path}, which is outside of the project"
        assert (PROJECT / path).exists(), f"{page} links to {path}"
        assert not anchor or anchor in anchors((PROJECT / path).read_text()), f"{page} links to {path}#{anchor}"


def test_pages_that_code_and_messages_name_are_there():
    """`docs/people.md` and the like in docstrings, messages and comments, with their headings if they name one."""
    named = {(path, name) for folder in ("active", "trainers", "dassl", "datasets", "scripts", "configs", "benchmarks")
             for path in (PROJECT / folder).rglob("*") if path.suffix in (".py", ".yaml", ".html", ".js", ".sh")
             for name in re.findall(r"\bdocs/[\w/]+\.md", path.read_text())}
    assert len(named) > 10
    assert [(path.name, name) for path, name in named if not (PROJECT / name).is_file()] == []


def test_dead_links_are_found():
    """A file, a heading and an anchor of the page itself that are not there."""
    text = "# A b\n[x](gone.md) [y](people.md#gone) [z](#gone) [w](https://a.org) ![p](pictures/page.png)\n"
    assert list(files_linked(text, "docs/x.md")) == [
        ("docs/gone.md", ""), ("docs/people.md", "gone"), ("docs/x.md", "gone"), ("docs/pictures/page.png", "")]
    assert "gone" not in anchors((PROJECT / "docs/people.md").read_text())


def test_code_is_not_searched_for_links():
    """Fences are skipped. Text between two of them is searched."""
    text = "[a](b)\n```python\nx[0](y)\n```\n[[c]](d)\n```\nz[1](e)\n```\n"
    assert mapped(text, str.upper) == text.replace("](b)", "](B)").replace("](d)", "](D)")


def test_anchors_are_those_of_code_hosts():
    """They are in lower case, with dashes for spaces and no punctuation. Links and code in a heading count by their words."""
    assert [slug(one) for one in ("What you can say besides a class", "`a_b` and [c d](e.md), f")] == [
        "what-you-can-say-besides-a-class", "a_b-and-c-d-f"]
    assert anchors("# A\n```\n# no heading\n```\n## B c\n") == {"a", "b-c"}


def test_pages_move_to_the_site_with_their_links():
    """Pages of docs move to the top, all else below `project`. Markdown and pictures stay; code and folders become pages."""
    places = {"docs/use.md": "use.md", "DATASETS.md": "project/DATASETS.md", "train.py": "project/train.py.md",
              "active": "project/active/index.md", "benchmarks/quickstart.png": "project/benchmarks/quickstart.png"}
    assert {path: site_path(path, PROJECT) for path in places} == places
    text = "[a](../../train.py) [b](../use.md#export) [c](#d) [e](https://f.org) [g](gone.md)"
    assert moved(text, "docs/tutorials/x.md", PROJECT) == (
        "[a](../project/train.py.md) [b](../use.md#export) [c](#d) [e](https://f.org) [g](gone.md)")
    assert moved("[a](docs/use.md)", "DATASETS.md", PROJECT) == "[a](../use.md)"


def test_code_and_folders_are_pages():
    """The page knows the language of its code. That of a folder lists what the folder holds."""
    assert as_page("configs/active/margin.yaml", PROJECT).startswith("# configs/active/margin.yaml\n\n````yaml\n# ")
    assert "- `loop.py`\n" in as_page("active", PROJECT) and "__init__" not in as_page("active", PROJECT)
