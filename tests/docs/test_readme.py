"""The README is short, its two commands come first, and its numbers are those of the code."""

import re
from pathlib import Path

from active.registry import choosing_samplers
from scripts.documenting import gallery
from trainers.registry import LEARNERS

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "README.md").read_text()


def test_it_is_read_in_a_minute():
    """150 lines at most; the long tables are in docs."""
    assert len(TEXT.splitlines()) <= 150


def test_a_picture_and_the_two_commands_come_first():
    """They fit on one screen, in the same order as in CI."""
    head = "\n".join(TEXT.splitlines()[:20])
    assert "](docs/pictures/loop.svg)" in head
    given = re.findall(r"^bash (scripts/\S+)", head, re.M)
    assert given == ["scripts/quickstart.sh", "scripts/test.sh"]
    assert re.findall(r"^bash (scripts/\S+)$", (PROJECT / ".ci/run").read_text(), re.M)[:2] == given


def test_its_numbers_are_those_of_the_code():
    """The numbers of samplers, learners and backbones are counted."""
    own = [component for component in LEARNERS if gallery.resolved(component).__module__.startswith("trainers.")]
    n_backbones = re.search(r"each of its (\d+) models", (PROJECT / "docs/backbones.md").read_text())[1]
    assert f"**[{len(choosing_samplers())} samplers](docs/samplers.md)**" in TEXT
    assert f"**[{len(own)} learners](docs/learners.md)**" in TEXT
    assert f"**[{n_backbones} backbones](docs/backbones.md)**" in TEXT
