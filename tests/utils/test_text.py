"""Text from files on a terminal and in a log. Row 22 of the faults table."""

from pathlib import Path

import pytest

from dassl.utils.errors import DataError, UserError, listed
from dassl.utils.text import harmless, printable

FORGED = "cat\n2026-01-01 00:00:00,000 INFO active.loop: round 9: accuracy 100.00 %"


@pytest.mark.parametrize(("text", "shown"), [
    ("\x1b[2Jcat", "\\x1b[2Jcat"), ("a\rb", "a\\rb"), ("\u202egpj.cat", "\\u202egpj.cat"), ("\u2028x", "\\u2028x"),
    ("\x9b31m", "\\x9b31m"), ("latin1 \udce9", "latin1 \\udce9"), ("\x07", "\\x07"),
    ("é 猫 \N{GRINNING FACE}\ta\\b", "é 猫 \N{GRINNING FACE}\ta\\b")])
def test_what_moves_the_cursor_or_turns_text_round_is_shown_as_an_escape(text, shown):
    """ESC and CSI, carriage return, line separators, bidi controls, lone surrogates; other text stays."""
    assert harmless(text) == shown


def test_a_line_that_a_name_holds_cannot_pass_for_a_message():
    """It is indented, as in the lists of messages. The blank line before a table stays."""
    assert harmless(FORGED) == FORGED.replace("\n", "\n  ")
    assert harmless("title:\n  a\n  b\n\nend") == "title:\n  a\n  b\n\n  end"
    assert harmless(harmless(FORGED)) == harmless(FORGED)


def test_every_error_for_people_is_harmless():
    """It does not matter where it is printed."""
    assert str(UserError(f"no such class {FORGED}")) == f"no such class {harmless(FORGED)}"
    assert "\x1b" not in str(DataError(listed("two", ["\x1b[31m", "b"])))


@pytest.mark.parametrize("name", ["a\nb", "\x1b[0m", "\u202e", "latin1 \udce9"])
def test_a_name_is_one_line(name):
    assert printable(name).isprintable() and printable("two words é") == "two words é"


@pytest.mark.parametrize(("path", "shown"), [("a b", "a b"), ("a\nb", r"'a\nb'"), ("\udce9", r"'\udce9'"), ("\0", r"'\x00'")])
def test_a_path_in_a_message_is_one_line(path, shown):
    """Line breaks and bytes that are not text are escapes (row 22)."""
    assert printable(path) == shown and printable(Path(path)) == shown
