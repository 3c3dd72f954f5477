"""docs/backbones.md against the code that writes it."""

import re

import open_clip
import pytest

from benchmarks.backbones import row
from dassl.utils.environment import PROJECT

FILE = (PROJECT / "docs" / "backbones.md").read_text()
LINES = [line for line in FILE.splitlines() if line.startswith("|")]
COLUMNS, *ROWS = ([cell.strip() for cell in line[1:-1].split("|")] for line in LINES if not line.startswith("|:"))
CAN = [name for name in COLUMNS if name not in ("name", "image", "D", "image tower", "text tower")]


def table() -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, cells, strict=True)) for cells in ROWS]


def smallest_of_each_kind() -> list[dict[str, str]]:
    """Return the model with the fewest parameters among those that differ only in size."""
    by_size = sorted(table(), key=lambda own: -int(own["image tower"]) - int(own["text tower"]))
    return list({tuple(own[column] for column in CAN): own for own in by_size}.values())


def test_every_model_of_open_clip_s_is_in_the_table():
    """The table must be complete for the open_clip version that the file names. Another version may have more."""
    version = re.search(r"open_clip ([\d.]+):", FILE)[1]
    if open_clip.__version__ != version:
        pytest.skip(f"the table is of open_clip {version}, and {open_clip.__version__} is installed")
    assert [own["name"] for own in table()] == open_clip.list_models()


@pytest.mark.parametrize("expected", smallest_of_each_kind(), ids=lambda own: own["name"])
def test_a_row_says_what_the_model_does(expected):
    """One of each kind, built and run again."""
    assert {column: str(value) for column, value in row(expected["name"]).items()} == expected


def test_the_head_counts_the_rows():
    """95 of 100 models and more are classified by, headed and tuned by a context; all ViTs but one take image prompts."""
    rows, numbers = table(), [int(number) for number in re.findall(r"(\d+) (?:models|take|deep|image|changes)", FILE)]
    image = [own["image prompts"] for own in rows]
    context, deep = (sum(own["text prompts"] in kinds for own in rows) for kinds in (("deep", "context"), ("deep",)))
    both = sum(own["LoRA"] == "yes" and own["text prompts"] == "deep" for own in rows)
    assert numbers == [len(rows), context, deep, image.count("yes"), both]
    assert context >= 0.95 * len(rows) and image.count("relative positions") == 1
