"""Where the lines of a run go."""

import io
import logging
import sys
from pathlib import Path

import pytest

from dassl.utils.errors import UserError
from dassl.utils.logging import setup_logging, warnings_on_stderr

OURS, THEIRS = logging.getLogger("dassl.some.module"), logging.getLogger("some_library")


def lines(folder: Path) -> list[str]:
    return (folder / "log.txt").read_text("utf-8").splitlines()


def test_an_info_line_goes_to_the_terminal_as_it_is_and_to_the_file_with_time_and_source(tmp_path, capsys):
    """The file and its folder are made, in UTF-8."""
    setup_logging(tmp_path / "run")
    OURS.info("round %d: café", 0)
    assert capsys.readouterr().out == "round 0: café\n"
    assert [line.split(" ", 2)[2] for line in lines(tmp_path / "run")] == ["INFO dassl.some.module: round 0: café"]


def test_a_debug_line_of_the_project_goes_to_the_file_alone(tmp_path, capsys):
    """Losses and the merged config are for log.txt, as the config's comments promise."""
    setup_logging(tmp_path)
    OURS.debug("epoch 5/10, loss 0.1")
    assert capsys.readouterr().out == ""
    assert lines(tmp_path)[0].endswith("epoch 5/10, loss 0.1")


def test_of_other_packages_the_terminal_shows_warnings_alone(tmp_path, capsys):
    """Their INFO lines go to the file, their DEBUG lines nowhere."""
    setup_logging(tmp_path)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        THEIRS.log(level, logging.getLevelName(level))
    assert capsys.readouterr().out == "WARNING\n"
    assert [line.split()[2] for line in lines(tmp_path)] == ["INFO", "WARNING"]


def test_a_handler_that_a_library_s_first_line_made_doubles_none(tmp_path, capfd):
    """Such as one that a plug-in imports: `logging.info` makes a handler for standard error where there is none."""
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []
    made = []
    try:
        logging.info("a library says something")
        assert len(root.handlers) == 1
        setup_logging(tmp_path)
        OURS.info("once")
        made = root.handlers
        assert logging.StreamHandler not in map(type, made)
    finally:
        for handler in made:
            handler.close()
        root.handlers = kept
    assert "once" not in capfd.readouterr().err


def test_a_second_setup_moves_the_lines_and_doubles_none(tmp_path, capsys):
    """Two runs in one process each have their own file."""
    for run in ("a", "b"):
        setup_logging(tmp_path / run)
        OURS.info(run)
    assert capsys.readouterr().out == "a\nb\n"
    assert [len(lines(tmp_path / run)) for run in ("a", "b")] == [1, 1]


def test_a_continued_run_goes_on_in_its_file(tmp_path):
    """What the file held before is kept."""
    for start in range(2):
        setup_logging(tmp_path)
        OURS.info("start %d", start)
    assert len(lines(tmp_path)) == 2


def test_file_handlers_of_others_are_kept(tmp_path):
    """A caller's own log goes on."""
    theirs = logging.FileHandler(tmp_path / "theirs.txt")
    logging.getLogger().addHandler(theirs)
    setup_logging(tmp_path)
    OURS.info("line")
    assert "line" in (tmp_path / "theirs.txt").read_text()


def test_a_name_that_the_terminal_cannot_show_does_not_stop_the_run(tmp_path, monkeypatch):
    """Rows 22 and 30 of the faults table: it is escaped on a terminal of another encoding, also if it is not UTF-8."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's: what they keep must be text for some of its plug-ins
    file = setup_logging(tmp_path)
    OURS.info("é 猫 \udce9")
    file.close()
    terminal.flush()
    assert terminal.buffer.getvalue() == b"\xe9 \\u732b \\udce9\n"
    assert lines(tmp_path)[0].endswith("é 猫 \\udce9")


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    """Row 11 of the faults table."""
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=f"cannot write {tmp_path}/run/log.txt"):
        setup_logging(tmp_path / "run")


def test_a_name_cannot_forge_a_line_or_send_an_escape(tmp_path, capsys):
    """Row 22: class names, paths and ids come from files of anybody."""
    setup_logging(tmp_path)
    OURS.warning("class %s", "cat\x1b[2J\n2026-01-01 00:00:00,000 INFO active.loop: finished\r\u202e")
    shown = "class cat\\x1b[2J\n  2026-01-01 00:00:00,000 INFO active.loop: finished\\r\\u202e\n"
    assert capsys.readouterr().out == shown
    assert [line.startswith("20") for line in lines(tmp_path)] == [True, False]


def test_commands_whose_output_is_a_result_say_warnings_once_on_stderr(capsys):
    """They are printed unchanged, without escapes. INFO lines are not printed, and nothing is left behind afterwards."""
    before = list(logging.getLogger().handlers)
    with warnings_on_stderr():
        for name in ("a\x1b[31m.jpg", "a\x1b[31m.jpg", "b.jpg"):
            OURS.warning("cannot decode %s", name)
        OURS.info("no validation split")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines() == ["cannot decode a\\x1b[31m.jpg", "cannot decode b.jpg"]
    assert logging.getLogger().handlers == before
