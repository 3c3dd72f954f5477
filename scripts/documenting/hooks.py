"""Hooks that MkDocs calls while it builds the site (`mkdocs.yml`): they add pages and pictures that are not in `docs/`.

The gallery's pages get pictures of what samplers pick, each package gets a page of its docstrings, and each file of the project
that a page links to gets its own page.
"""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT))

from scripts.documenting.links import PICTURES, as_page, files_linked, moved, site_path  # noqa: E402

PACKAGES = ("active", "trainers", "dassl", "datasets")
SHOWN = """

## What it picks

Four rounds of six labels in the plane, with a learner that takes the nearest mean. Points have the colors of their classes and
crosses are the texts. Black points are labeled, rings are this round's picks, squares are points that a sampler labels itself.

![Picks in the plane]({name}_plane.png)

Three rounds of ten labels on the digits of the quickstart, with a linear probe on the tiny CLIP.

![Picks among the digits]({name}_digits.png)
"""
_pages: dict[str, str] = {}  # source on the site: path below the project


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the gallery's pages to the navigation."""
    gallery = next(entry["Gallery"] for entry in config.nav if "Gallery" in entry)
    for title, folder in (("Samplers", "samplers"), ("Learners", "learners")):
        names = sorted(path.name for path in (PROJECT / "docs/gallery" / folder).glob("*.md"))
        gallery.append({title: [f"gallery/{folder}/{name}" for name in names]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of docstrings, those of linked files, and the pictures of picks."""
    _pages.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    for path, text in reference(docstrings=config.extra["reference"]).items():
        files.append(File.generated(config, path, content=text))
    _add_linked(files, config)
    if config.extra["pictures"]:
        from scripts.documenting.pictures import pictures

        for name, png in pictures():
            files.append(File.generated(config, f"gallery/samplers/{name}.png", content=png))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page with adapted links and, for a sampler that chooses, its pictures."""
    path = _pages.get(page.file.src_uri)
    if path is None or not path.endswith(".md"):
        return markdown
    name = Path(path).stem
    if files.get_file_from_path(f"gallery/samplers/{name}_plane.png") and path.startswith("docs/gallery/samplers/"):
        start, formula, rest = markdown.partition("\n## Formula")
        markdown = start.rstrip() + SHOWN.format(name=name) + formula + rest
    return moved(markdown, path, PROJECT)


def reference(*, docstrings: bool) -> dict[str, str]:
    """Return a page of docstrings for each folder of the code, unless left out, and one that lists them."""
    folders = sorted({path.parent for package in PACKAGES for path in (PROJECT / package).rglob("__init__.py")})
    names = {folder: folder.relative_to(PROJECT).as_posix() for folder in folders} if docstrings else {}
    pages = {f"api/{name.replace('/', '.')}.md": _docstrings(folder, name) for folder, name in names.items()}
    lines = [f"- [`{name}`]({name.replace('/', '.')}.md)" for name in names.values()]
    return pages | {"api/index.md": "# Reference\n\nDocstrings of everything that is not private, one page per folder.\n\n"
                                    + "\n".join(lines) + "\n"}


def _docstrings(folder: Path, name: str) -> str:
    modules = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    dotted = name.replace("/", ".")
    return f"# {name}\n\n" + "\n\n".join(f"::: {dotted}.{module}" for module in modules) + "\n"


def _add_linked(files: Files, config: MkDocsConfig) -> None:
    """Add files outside `docs/` that pages link to, and those that these link to."""
    waiting = [*_pages.values(), "DATASETS.md"]
    while waiting:
        page = waiting.pop()
        source = site_path(page, PROJECT)
        if source not in _pages:
            is_text = not page.endswith(PICTURES)
            content = ((PROJECT / page).read_bytes() if not is_text else
                       (PROJECT / page).read_text() if page.endswith(".md") else as_page(page, PROJECT))
            files.append(File.generated(config, source, content=content))
            _pages[source] = page
        if page.endswith(".md"):
            linked = {path for path, _ in files_linked((PROJECT / page).read_text(), page)}
            waiting += [path for path in sorted(linked) if not path.startswith("..") and (PROJECT / path).exists()
                        and site_path(path, PROJECT) not in _pages and not path.startswith("docs/")]
