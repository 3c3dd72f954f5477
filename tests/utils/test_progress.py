"""Progress of long loops: a line in the log now and then where there is no terminal."""

import logging

import pytest

from dassl.utils import progress as module
from dassl.utils.progress import Progress, listen, progress


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Replace the time that the loop reads, held as the only element of a list."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_a_line_comes_every_thirty_seconds(clock, caplog):
    """They go to log.txt too, so that anyone who looks at a job of hours sees its progress."""
    with caplog.at_level(logging.INFO):
        for _ in progress(range(100), "features of DTD train", total=100, unit="img"):
            clock[0] += 1.0
    assert [record.getMessage() for record in caplog.records] == [
        "features of DTD train: 30 of 100 img after 30 s", "features of DTD train: 60 of 100 img after 60 s",
        "features of DTD train: 90 of 100 img after 90 s"]


def test_a_line_says_what_is_shown_beside(clock, caplog):
    with caplog.at_level(logging.INFO), Progress("training", 200, "epoch") as shown:
        clock[0] = 31.0
        shown.update(50, loss="0.123")
    assert caplog.messages == ["training: 50 of 200 epoch after 31 s, loss 0.123"]


def test_a_terminal_has_a_bar_and_no_lines(clock, caplog, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO), Progress("training", 2, "epoch") as shown:
        clock[0] = 100.0
        shown.update()
        assert not shown.bar.disable and shown.bar.n == 1
    assert caplog.messages == []


def test_items_come_as_they_are():
    assert list(progress(iter("abc"), "letters", total=3, unit="letter")) == ["a", "b", "c"]


def test_listeners_hear_of_every_loop_until_they_are_taken_off():
    """They hear from its start on, and of no loop that begins after they are removed."""
    heard = []
    silence = listen(lambda *told: heard.append(told))
    with Progress("training", 200, "epoch") as shown:
        shown.update(34)
    silence()
    list(progress("ab", "letters", total=2, unit="letter"))
    assert heard == [("training", 0, 200, "epoch"), ("training", 34, 200, "epoch")]
