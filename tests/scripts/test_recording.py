"""A terminal recording: what a command printed, when, and how it is drawn."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from dassl.utils.environment import PROJECT
from scripts.documenting.recording import COLUMNS, PAUSE, picture, recorded, shortened

TEXT = "{http://www.w3.org/2000/svg}text"


def test_lines_come_with_their_times():
    """Lines of both streams keep their order. A failing command gives no recording."""
    code = "import sys, time; print('one', flush=True); time.sleep(0.3); print('two', file=sys.stderr, flush=True)"
    (first, one), (second, two) = recorded([sys.executable, "-c", code])
    assert (one, two) == ("one", "two") and second - first >= 0.25
    with pytest.raises(subprocess.CalledProcessError):
        recorded([sys.executable, "-c", "raise SystemExit(3)"])


def test_long_pauses_are_shortened():
    assert shortened([(9.0, "a"), (9.5, "b"), (9.5, "c"), (60.0, "d")]) == [
        (PAUSE, "a"), (PAUSE + 0.5, "b"), (PAUSE + 0.5, "c"), (2 * PAUSE + 0.5, "d")]


def test_the_picture_holds_every_character():
    """Markup is text, spaces stay, a long line continues in the next row, and each row has its time."""
    lines = [(0.5, "<b> & 'c'"), (1.0, ""), (1.25, "x" * (COLUMNS + 3)), (2.0, "   1  2")]
    root = ElementTree.fromstring(picture("run --flag", lines))
    rows = [(row.text or "", row.get("style", "")) for row in root.iter(TEXT)]
    assert [text for text, _ in rows] == ["$ run --flag", "<b> & 'c'", "", "x" * COLUMNS, "xxx", "   1  2"]
    times = ("0.50", "1.00", "1.25", "1.25", "2.00")
    assert [style for _, style in rows] == ["", *(f"animation-delay: {own}s" for own in times)]


def test_the_recording_is_of_the_quickstart_as_it_is():
    """Its accuracies are those in the README, which a test of the quickstart checks."""
    drawn = (PROJECT / "docs" / "pictures" / "quickstart.svg").read_text("utf-8")
    readme = (PROJECT / "README.md").read_text("utf-8").splitlines()
    said = [line for line in readme if line.startswith(("round ", "zero-shot "))]
    assert len(said) >= 3 and all(line.partition(" (")[0] in drawn for line in said)
