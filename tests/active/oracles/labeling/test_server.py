"""What the labeling page can be asked, and what it takes. Rows 11, 25 and 34 of the faults table."""

import io
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from active.oracles.labeling.board import Asked, Board
from active.oracles.labeling.server import Server
from dassl.utils.errors import UserError
from tests.active.oracles.labeling.client import GUESSES, NAMES, PATHS, Client, given
from tests.utils.test_files import full_disk


@pytest.mark.parametrize(("number", "size"), [(0, (40, 20)), (1, (800, 1600)), (2, (300, 200))])
def test_an_image_leaves_as_pixels_alone(client, board, number, size):
    """Row 35: it is served by number, upright, in a format that browsers read, without comment, location or color profile."""
    number = [own["number"] for own in board.question()["images"]][number]
    status, headers, body = client.ask(f"/images/{number}")
    shown = Image.open(io.BytesIO(body))
    assert status == 200 and shown.size == size and shown.format in ("PNG", "JPEG")
    assert headers["Content-Type"] == f"image/{shown.format.lower()}"
    assert b"where I live" not in body and b"profile" not in body and not shown.getexif()
    assert max(Image.open(io.BytesIO(client.ask(f"/images/{number}?size=small")[2])).size) <= 256


def test_what_is_none_of_the_query_is_not_there(client):
    """Row 35: no file path is an address of the page."""
    for path in ("/images/4", "/images/-1", "/images/a.png", "/images/..%2Fclasses.txt", "/images/0?size=huge",
                 "/..%2f..%2fpage.py", "/../page.py", "/static/page.js", "/labeled", "/labeled?answer=3",
                 "/labeled?answer=unsure%203", "/state?since=x", f"/images/{'9' * 5000}", f"/state?since={'9' * 5000}"):
        assert client.ask(path)[0] in (400, 404), path


def test_a_file_that_is_damaged_by_now_is_said(client, root):
    (root / PATHS[0]).write_bytes(b"no image")
    status, content = client.json("/images/1")
    assert status == 422 and "cannot decode" in content["error"] and PATHS[0] in content["error"]


def test_an_answer_is_on_the_disk_before_it_is_taken(client, journal, board):
    """Each answer is one line with who, when and what. Taking one back is a line too."""
    status, content = client.answer(1, "unsure 2")
    assert status == 200 and not content["conflicts"]
    assert client.answer(1, None, content["number"])[0] == 200
    assert client.answer(1, 1)[0] == 200
    lines = journal.read()
    assert [(line["who"], line["path"], line["answer"]) for line in lines] == [
        ("Ann", "a.png", "!unsure kingfisher"), ("Ann", "a.png", ""), ("Ann", "a.png", NAMES[1])]
    assert all(line["time"][:2] == "20" and line["time"][10] == "T" for line in lines)


def test_a_second_other_answer_is_a_conflict_that_is_shown(client, journal):
    """Row 25: the page shows by whom, when and what. The first answer stands until somebody has seen and replaced it."""
    number = client.answer(1, 0)[1]["number"]
    status, content = client.answer(1, 2, who="Bob")
    there = content["conflicts"][0]
    assert status == 409 and (there["answer"], there["who"], there["number"]) == (0, "Ann", number) and there["time"]
    assert [line["answer"] for line in journal.read()] == ["heron"]
    assert client.answer(1, 0, who="Bob")[0] == 200, "the same answer is none"
    assert client.answer(1, 2, number, who="Bob")[0] == 200
    assert [(line["who"], line["answer"]) for line in journal.read()] == [("Ann", "heron"), ("Bob", "kingfisher")]


def test_of_many_answers_those_without_a_conflict_are_taken(client, board):
    client.answer(1, 0)
    status, content = client.json("/answers", {"who": "Bob", "round": 3, "answers": [
        {"image": number, "answer": "none", "seen": 0} for number in (1, 2, 3)]})
    assert status == 409 and [own["image"] for own in content["conflicts"]] == [1]
    assert {own["image"]: own["answer"] for own in board.state(-1)["answers"]} == {1: 0, 2: "none", 3: "none"}


def test_what_is_no_answer_is_refused(client, journal):
    """Row 35: with 400 or 404 and a reason, and nothing is written."""
    wrong = [5, {}, *({"image": image, "answer": answer, "seen": 0} for image, answer in (
        (1, 3), (9, 0), (-1, 0), (1, "unsure 3"), (1, "maybe"), (1, -1), (1, []), (0, None), (1, 1e9), (1, ""), (1, True),
        (1.7, 0), (float("inf"), 0), ("1", 0)))]
    for content in ([], {}, {"who": "", "round": 3}, {"who": "", "round": "x", "answers": []},
                    {"who": "", "round": float("inf"), "answers": []}, {"who": {}, "round": 3, "answers": []},
                    {"who": "", "round": 3, "answers": 5}, *({"who": "", "round": 3, "answers": [own]} for own in wrong)):
        status, said = client.json("/answers", content)
        assert status in (400, 404) and said["error"] and not journal.path.exists(), content


def test_names_that_are_no_unicode_are_shown(journal, root):
    """Rows 22 and 35: a file name that is not UTF-8, and such a name of a person. They used to stop the page for everybody."""
    paths = ["\udcff.png", *PATHS[1:3]]
    shutil.copy(root / PATHS[0], root / paths[0])
    board = Board(NAMES, 0.0)
    board.ask(Asked(3, paths, GUESSES[:3], frozenset(), journal), (), {})
    server = Server(board, root.joinpath, {"dataset": "Photos", "classes": NAMES, "output": "\udcff"}, "127.0.0.1", 0)
    client = Client(server)
    assert client.json("/question")[1]["images"][0]["name"] == paths[0] and client.json("/about")[1]["output"] == "\udcff"
    assert client.ask("/images/0")[0] == 200 and client.answer(0, 1, who="\ud800")[0] == 200
    assert client.json("/state?since=-1")[1]["answers"][0]["who"] == "\ud800" and journal.read()[0]["path"] == paths[0]
    server.stop()


def test_what_is_no_json_is_refused(client):
    for body in (b"", b"{", b"\xff", b"[" * 100_000):
        assert client.ask("/answers", "POST", body=body, Content_Type="application/json")[0] == 400


def test_a_round_that_is_closed_takes_nothing(client, board):
    status, content = client.json("/answers", {"who": "", "round": 2, "answers": []})
    assert status == 409 and content["error"] == "the labels of round 2 are closed"
    board.close()
    assert client.answer(1, 0)[0] == 409 and client.json("/send", {"round": 3})[0] == 409
    assert client.json("/question") == (200, {"round": None, "part": 0, "images": []})


def test_a_full_disk_is_said_and_the_answer_not_taken(client, board, journal):
    """Row 11: the page can send it again when there is room."""
    client.answer(1, 0)
    with full_disk(journal.path.stat().st_size):
        status, content = client.answer(2, 0)
    assert status == 507 and "cannot write" in content["error"] and board.state(-1)["n_answered"] == 1
    assert client.answer(2, 0)[0] == 200 and len(journal.read()) == 2


def test_news_come_when_there_are_any(client, board):
    """A request for news waits, and says what has changed since the last."""
    number = client.json("/state")[1]["number"]
    with ThreadPoolExecutor(1) as page:
        news = page.submit(client.json, f"/state?since={number}")
        time.sleep(0.2)
        assert not news.done()
        board.answer("Bob", 3, [given(2, 1)])
        state = news.result(10)[1]
    assert [(own["image"], own["answer"], own["who"]) for own in state["answers"]] == [(2, 1, "Bob")]
    assert (state["n_answered"], state["n_paid"], state["counts"]) == (1, 1, [0, 1, 0])


def test_a_taken_port_is_said(server, board, root):
    port = int(Client(server).port)
    with pytest.raises(UserError, match=rf"cannot listen at 127\.0\.0\.1, port {port} .*in use"):
        Server(board, root.joinpath, {"classes": NAMES}, "127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen at no such host"):
        Server(board, root.joinpath, {"classes": NAMES}, "no such host", 0)


def test_a_server_that_stops_leaves_no_thread_and_no_port(board, root):
    server = Server(board, root.joinpath, {"classes": NAMES}, "127.0.0.1", 0)
    port = int(Client(server).port)
    server.stop()
    assert "labeling page" not in {thread.name for thread in threading.enumerate()}
    Server(board, root.joinpath, {"classes": NAMES}, "127.0.0.1", port).stop()
