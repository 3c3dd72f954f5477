"""The site is built in strict mode: every page is in it, and what is odd is an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from active.registry import choosing_samplers
from scripts.documenting import pictures
from scripts.documenting.plane import N_QUERY, N_ROUNDS, run_on_plane

PROJECT = Path(__file__).parents[2]
QUICK = {"PICTURES": "false", "REFERENCE": "false", "NO_MKDOCS_2_WARNING": "1"}


def built(config: Path, site: Path) -> subprocess.CompletedProcess:
    """Return the finished command that builds a site without pictures and docstrings."""
    return subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site],
                          capture_output=True, text=True, env=os.environ | QUICK)


@pytest.mark.starts
def test_the_site_is_built_whole(tmp_path):
    """Every page of docs is there, with the gallery in the navigation, and the files of the project that they link to."""
    pytest.importorskip("mkdocs", reason="the site needs: pip install -r requirements-docs.txt")
    done = built(PROJECT / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr
    pages = [path.relative_to(PROJECT / "docs").with_suffix(".html") for path in (PROJECT / "docs").rglob("*.md")]
    assert [page for page in pages if not (tmp_path / page).is_file()] == []
    assert (tmp_path / "project/active/samplers/coreset.py.html").is_file()
    assert 'href="gallery/samplers/coreset.html"' in (tmp_path / "index.html").read_text().replace("../", "")


@pytest.mark.starts
def test_a_dead_link_is_an_error(tmp_path):
    """The error names the page that has the link."""
    pytest.importorskip("mkdocs", reason="the site needs: pip install -r requirements-docs.txt")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# A\n\n[x](gone.md)\n")
    lines = (PROJECT / "mkdocs.yml").read_text().partition("\nnav:")[0].splitlines()
    (tmp_path / "mkdocs.yml").write_text("\n".join(line for line in lines if not line.startswith("hooks:")) + "\n")
    done = built(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1 and "'index.md' contains a link 'gone.md'" in done.stderr


def test_each_sampler_runs_in_the_plane(tmp_path):
    """There are four rounds of six picks without repeats, whatever the sampler needs, on the same points each time."""
    for name in ("coreset", "cbsq", "dual_prompt", "purity", "dropquery"):
        result = run_on_plane(name, tmp_path / name)
        asked = [path for record in result.rounds for path in (*record.queried, *record.pseudo_labeled)]
        assert len(result.rounds) == N_ROUNDS and len(asked) == len(set(asked)) == N_ROUNDS * N_QUERY
    again = run_on_plane("coreset", tmp_path / "again")
    assert again.rounds[-1].queried == run_on_plane("coreset", tmp_path / "coreset").rounds[-1].queried
    figure = pictures.draw_plane(again)
    assert [axes.get_title() for axes in figure.axes] == ["round 0: random", *(f"round {n}: coreset" for n in (1, 2, 3))]


def test_every_sampler_that_chooses_gets_its_pictures(monkeypatch, tmp_path, root):
    """There are two for each sampler, with its name in them. Drawing all takes half a minute, so only one is drawn here."""
    drawn = []
    monkeypatch.setattr(pictures, "run_on_plane", lambda name, output: name)
    monkeypatch.setattr(pictures, "draw_plane", drawn.append)
    monkeypatch.setattr(pictures, "png_of", lambda figure, dpi: b"")
    on_digits = pictures.on_digits
    monkeypatch.setattr(pictures, "on_digits", lambda *_: None)
    names = [name for name, _ in pictures.pictures()]
    assert names == [f"{name}_{kind}" for name in choosing_samplers() for kind in ("plane", "digits")]
    assert drawn == choosing_samplers()
    sheet = on_digits("margin", root, tmp_path, pictures.Held())
    assert len([image for axes in sheet.axes for image in axes.images]) == 30
