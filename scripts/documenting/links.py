"""Links of Markdown pages to files of the project, and where such files are on the site.

Pages under `docs/` are read on a code host too, so their links are paths between files. The site has the pages of `docs/` at
its top, and everything else that they link to below `project/`: Markdown as a page, pictures as they are, other files as a
page with their text, folders as a list.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1 *$", re.M | re.S)
PICTURES = (".png", ".svg", ".jpg", ".gif")


def mapped(text: str, change: Callable[[str], str]) -> str:
    """Return Markdown whose link targets, outside code blocks, are changed by a function."""
    def outside(part: str) -> str:
        return LINK.sub(lambda found: f"{found[1]}({change(found[2])})", part)

    ends = [0, *(end for found in FENCE.finditer(text) for end in found.span()), len(text)]
    return "".join(text[start:end] if index % 2 else outside(text[start:end])
                   for index, (start, end) in enumerate(itertools.pairwise(ends)))


def files_linked(text: str, page: str) -> Iterator[tuple[str, str]]:
    """Yield path below the project and anchor ("" for none) of each link of a page to a file; `page` is the page's own path."""
    targets: list[str] = []
    mapped(text, lambda target: targets.append(target) or target)
    for target in targets:
        if not _is_elsewhere(target):
            yield _file(target, page)


def _is_elsewhere(target: str) -> bool:
    return re.match(r"[a-z]+:", target) is not None


def _file(target: str, page: str) -> tuple[str, str]:
    """Return path below the project and anchor of a link of a page."""
    path, _, anchor = target.partition("#")
    return (os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page), anchor


def site_path(path: str, project: Path) -> str:
    """Return the path of a file or folder of the project among the sources of the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (project / path).is_dir():
        return f"project/{path}/index.md"
    return f"project/{path}" if path.endswith((".md", *PICTURES)) else f"project/{path}.md"


def moved(text: str, page: str, project: Path) -> str:
    """Return a page of the project as on the site, where links to files lead to their places there."""
    start = os.path.dirname(site_path(page, project))

    def change(target: str) -> str:
        if _is_elsewhere(target) or target.startswith("#"):
            return target
        path, anchor = _file(target, page)
        if path.startswith("..") or not (project / path).exists():
            return target  # MkDocs then reports it
        found = os.path.relpath(site_path(path, project), start or ".")
        return f"{found}#{anchor}" if anchor else found

    return mapped(text, change)


def as_page(path: str, project: Path) -> str:
    """Return the page of a file that is not Markdown, or of a folder."""
    file = project / path
    if file.is_dir():
        names = sorted(one.name for one in file.iterdir() if not one.name.startswith((".", "__")))
        return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)
    language = {".py": "python", ".yaml": "yaml", ".json": "json", ".sh": "bash"}.get(PurePosixPath(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{file.read_text()}\n````\n"


def slug(heading: str) -> str:
    """Return the anchor of a heading, as code hosts and the site form it."""
    words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return re.sub(r"\s", "-", words.strip())


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a Markdown page."""
    return {slug(heading) for heading in re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", text), re.M)}
