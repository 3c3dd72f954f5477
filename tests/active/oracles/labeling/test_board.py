"""What the run and its pages share: answers, conflicts, the lines of a journal. Rows 9 and 25 of the faults table."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from active.oracles.labeling.board import Asked, Board, Refused
from active.oracles.labeling.lines import Line, read_lines
from dassl.data.answers import NONE, SKIP, UNSURE
from dassl.utils.errors import DataError
from dassl.utils.journal import Journal
from tests.active.oracles.labeling.client import CODES, GUESSES, NAMES, PATHS, given, opened


def test_of_two_who_answer_at_once_one_is_told(board, journal):
    """Row 25: twenty threads answer one image; the result is one line and nineteen conflicts."""
    def give(label: int) -> list:
        return board.answer(f"person {label}", 3, [given(1, label)])[1]

    board._classnames = [str(label) for label in range(20)]
    with ThreadPoolExecutor(20) as people:
        conflicts = list(people.map(give, range(20)))
    assert len(journal.read()) == 1 and sorted(map(len, conflicts)) == [0] + [1] * 19


def test_the_run_waits_for_all_answers_and_takes_corrections_along(board):
    """The last image's answer ends the wait. By then an image of an earlier round may have been corrected."""
    with ThreadPoolExecutor(1) as run:
        answers = run.submit(board.wait)
        for image, code in ((0, 2), (1, 0), (2, SKIP), (3, NONE)):
            assert not answers.done()
            board.answer("", 3, [given(image, code, board.labeled(0)[0]["number"] if image == 0 else 0)])
        assert answers.result(10) == {"d.png": 2, "a.png": 0, "b c.jpg": SKIP, "<b>.tiff": NONE}


def test_the_last_answer_can_be_taken_back_until_it_is_sent_off(journal):
    board = opened(journal, grace=3600.0)
    with ThreadPoolExecutor(1) as run:
        answers = run.submit(board.wait)
        number, _ = board.answer("", 3, [given(image, 0) for image in (1, 2, 3)])
        assert board.is_complete
        board.answer("", 3, [given(3, None, number)])
        assert not board.is_complete
        board.answer("", 3, [given(3, 1)])
        board.send(3)
        assert answers.result(10)["<b>.tiff"] == 1


def test_what_is_sent_off_takes_no_further_answer(journal):
    """Otherwise an answer taken back before the run wakes up would be missing when it goes on."""
    board = opened(journal, grace=3600.0)
    number, _ = board.answer("", 3, [given(image, 0) for image in (1, 2, 3)])
    board.send(3)
    with pytest.raises(Refused, match="the labels of round 3 are closed"):
        board.answer("", 3, [given(3, None, number)])
    assert board.wait()["<b>.tiff"] == 0


def test_answers_that_were_given_together_are_so_after_a_stop(journal):
    """As before the stop, one undo takes all of them back."""
    first = opened(journal)
    first.answer("Ann", 3, [given(1, 0), given(3, 0)])
    first.answer("Bob", 3, [given(2, 0)])
    again = opened(journal, lines=read_lines(journal, CODES, PATHS[:3], PATHS[3:]))
    number = {own["name"]: own["number"] for own in again.state(-1)["answers"]}
    assert number["a.png"] == number["<b>.tiff"] != number["b c.jpg"]


def test_the_progress_of_the_run_is_news(board):
    """While people label there is none to report."""
    board.progress("training", 5, 200, "epoch")
    assert board.state(-1)["doing"]["kind"] == "asking"
    board.close()
    board.progress("training", 34, 200, "epoch")
    assert board.state(-1)["doing"] == {"kind": "working", "text": "training", "done": 34, "total": 200, "unit": "epoch"}


def test_examples_are_the_newest_of_a_class(board):
    board.answer("", 3, [given(2, 0)])
    assert [own["name"] for own in board.labeled(0)] == ["b c.jpg", "d.png"]


def test_lines_of_before_are_taken_again(journal):
    """What was taken back, given again, corrected: the state is that of before the stop."""
    lines = [Line("t", *own) for own in (
        ("Ann", "a.png", 0), ("Ann", "a.png", None), ("Bob", "d.png", 2), ("", "b c.jpg", UNSURE))]
    journal.append([line.written(NAMES) for line in lines])
    assert read_lines(journal, CODES, PATHS[:3], PATHS[3:]) == lines
    board = opened(journal, lines=lines)
    assert {own["name"]: own["answer"] for own in board.state(-1)["answers"]} == {
        "a.png": None, "b c.jpg": "unsure", "<b>.tiff": None}
    assert board.close() == {"d.png": 2, "b c.jpg": UNSURE}


@pytest.mark.parametrize(("line", "fault"), [
    ({"time": "", "who": "", "path": "a.png", "answer": "stork"}, "has the unknown answer 'stork'"),
    ({"time": "", "who": "", "path": "e.png", "answer": "heron"}, "answers an image that was not asked: e.png"),
    ({"time": "", "who": "", "path": "d.png", "answer": ""}, "answers an image that was not asked: d.png"),
    ({"time": "", "who": "", "path": "a.png"}, "is damaged"), ([], "is damaged"),
    ({"time": 1, "who": "", "path": "a.png", "answer": ""}, "is damaged")])
def test_a_line_that_does_not_fit_is_named(journal, line, fault):
    """Row 25: the error has the file and the line number."""
    journal.append([{"time": "", "who": "", "path": "a.png", "answer": "heron"}, line])
    with pytest.raises(DataError, match=rf"round_003_answers\.jsonl line 2 {fault}"):
        read_lines(journal, CODES, PATHS[:3], PATHS[3:])


def test_a_question_shows_scores_where_there_are_some(tmp_path):
    """Only images that have a score show one. Without scores, images are shown as before."""
    board = Board(NAMES, 0.0)
    board.ask(Asked(3, PATHS[:2], GUESSES[:2], frozenset(), Journal(tmp_path / "lines"), {PATHS[1]: 0.25}), (), {})
    first, second = board.question()["images"]
    assert "score" not in first and second["score"] == 0.25 and second.keys() - first.keys() == {"score"}


def test_what_is_paid_is_told_through_all_of_a_round(tmp_path):
    """It is also shown in a part that replaces skipped images, and in training until the record has it. Audits are free."""
    board = Board(NAMES, 0.0)
    for part, (paths, codes) in enumerate(((PATHS[:3], (0, SKIP, 2)), (PATHS[3:], (0,)))):
        audit = frozenset(PATHS[2:3])
        board.ask(Asked(0, paths, GUESSES[: len(paths)], audit, Journal(tmp_path / f"{part}"), part=part), (), {})
        numbers = [own["number"] for own in board.question()["images"]]
        board.answer("", 0, [given(number, code) for number, code in zip(numbers, codes, strict=True)])
        found = [(board.state(0)["n_paid"], board.state(0)["counts"])]
        board.close()
        found.append((board.state(0)["n_paid"], board.state(0)["counts"]))
        assert found == [(part + 1, [part + 1, 0, 0])] * 2
