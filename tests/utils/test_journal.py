"""An append-only file: what was taken is there, what was torn is not. Rows 9 and 11 of the faults table."""

import json
import logging

import pytest

from dassl.utils.errors import DataError, UserError
from dassl.utils.files import lock
from dassl.utils.journal import Journal
from tests.utils.test_files import full_disk

LINES = [{"path": "a b.png", "answer": "heron"}, {"path": "\udcff.png", "answer": ""}, {"path": "\n", "answer": "é"}]


@pytest.fixture
def journal(tmp_path) -> Journal:
    """A journal of three lines in a folder that did not exist."""
    found = Journal(tmp_path / "queries" / "answers.jsonl")
    assert found.read() == []
    found.append(LINES[:1])
    found.append(LINES[1:])
    return found


def test_what_was_appended_is_read_in_order(journal):
    """Each value is one line, whatever it holds."""
    assert Journal(journal.path).read() == LINES
    assert journal.path.read_bytes().count(b"\n") == 3


def test_a_line_that_was_torn_anywhere_is_dropped_and_the_others_stay(journal, caplog):
    """Row 9: the process was killed while writing. The file is repaired, so that the next line is whole."""
    whole = journal.path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start + 1, len(whole)):
        caplog.clear()
        journal.path.write_bytes(whole[:end])
        with caplog.at_level(logging.WARNING):
            assert Journal(journal.path).read() == LINES[:2]
        assert len(caplog.messages) == 1 and "the last line is torn and dropped" in caplog.messages[0]
        assert journal.path.read_bytes() == whole[:start]
    Journal(journal.path).append([{"path": "next"}])
    assert Journal(journal.path).read() == [*LINES[:2], {"path": "next"}]


@pytest.mark.parametrize(("number", "line"), [(1, b"{"), (2, b""), (3, b"[" * 100_000), (2, b"\xff")])
def test_any_other_damage_is_an_error_with_file_and_line(journal, number, line):
    """A kill does not leave such damage, so nothing is dropped silently."""
    lines = journal.path.read_bytes().split(b"\n")
    lines[number - 1] = line
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=rf"answers\.jsonl line {number} is damaged"):
        Journal(journal.path).read()


def test_a_full_disk_takes_nothing_and_leaves_what_was_there(journal):
    """Row 11: an answer is taken whole or not at all; it can be given again when there is room."""
    before = journal.path.read_bytes()
    with full_disk(len(before) + 20), pytest.raises(UserError, match=r"cannot write .*answers\.jsonl"):
        journal.append([{"path": "x" * 100}])
    assert journal.path.read_bytes() == before
    journal.append([{"path": "later"}])
    assert journal.read()[-1] == {"path": "later"}


def test_nothing_is_written_to_a_folder_that_has_taken_the_place_of_the_run_s(journal):
    """Row 12: another process moved the run's folder away, as `--overwrite` does."""
    folder = journal.path.parent
    with lock(folder / ".lock", wait=False):
        folder.rename(folder.with_name("old"))
        folder.mkdir()
        (folder / ".lock").touch()
        with pytest.raises(UserError, match="was moved away or replaced"):
            journal.append([{}])
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_what_json_cannot_hold_is_refused(journal):
    """Some programs would read NaN and others would not."""
    with pytest.raises(ValueError, match="JSON compliant"):
        journal.append([float("nan")])
    assert journal.read() == LINES and json.loads(journal.path.read_bytes().splitlines()[0]) == LINES[0]
