"""The table of `docs/faults.md` names every fault once, each with a test that exists and carries the row's number."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (\d+) \|.*\| `(.*?)` \|$", (PROJECT / "docs" / "faults.md").read_text(), re.M)


def test_every_fault_has_its_row():
    """Numbers 1 to 51, in order."""
    assert [int(number) for number, _ in ROWS] == list(range(1, 52))


@pytest.mark.parametrize(("number", "test"), ROWS)
def test_the_named_test_is_about_its_row(number, test):
    """The docstring of the function, or of its file, has the number."""
    path, _, name = test.partition("::")
    tree = ast.parse((PROJECT / path).read_text())
    found = [ast.get_docstring(node) for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    texts = [ast.get_docstring(tree) or "", *found]
    assert not name or found, test
    assert any(int(number) in rows(text) for text in texts), test


def rows(docstring: str) -> set[int]:
    """Return the numbers that follow "Row" or "Rows" in a docstring; "9 to 12" is a range."""
    numbers: set[int] = set()
    for listed in re.findall(r"[Rr]ows? ((?:\d+(?:, | and | to )?)+)", docstring):
        found = [int(number) for number in re.findall(r"\d+", listed)]
        numbers |= set(range(found[0], found[-1] + 1)) if " to " in listed else set(found)
    return numbers
