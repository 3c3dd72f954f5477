"""Who may ask the labeling page, and what a browser may do with its responses. Row 35 of the faults table."""

import re

import pytest
from starlette.datastructures import Headers

from active.oracles.labeling.guard import Guard, allowed_hosts, is_loopback
from active.oracles.labeling.server import STATIC

ROUTES = ["/", "/page.js", "/about", "/question", "/state", "/labeled?answer=0", "/images/0", "/nothing"]


def test_every_request_needs_the_token(client):
    """Row 35: this includes requests for missing pages. A wrong token, a wrong cookie and an empty one are refused."""
    without = [{"X_Page_Token": ""}, {"X_Page_Token": "x"}, *({"X_Page_Token": "", "Cookie": cookie} for cookie in (
        f"page_{client.port}=x", f"page_{client.port}=", f"page_1={client.token}", "\x80;;="))]
    for path in ROUTES:
        for headers in without:
            status, sent, body = client.ask(path, **headers)
            assert status == 403 and client.token.encode() not in body and "Set-Cookie" not in sent
    assert client.ask("/?token=x", X_Page_Token="")[0] == 403
    assert client.ask("/answers", "POST", {"round": 3}, X_Page_Token="")[0] == 403


def test_the_printed_address_sets_a_cookie_for_the_rest(client):
    """No script can read the cookie, and it is not sent with requests from other sites."""
    status, headers, body = client.ask(f"/?token={client.token}", X_Page_Token="")
    assert status == 200 and b"<!DOCTYPE html>" in body
    assert headers["Set-Cookie"] == f"page_{client.port}={client.token}; HttpOnly; SameSite=Strict; Path=/"
    assert client.ask("/state", X_Page_Token="", Cookie=headers["Set-Cookie"].split(";")[0])[0] == 200


def test_another_host_is_not_this_page(client):
    """Row 35: in DNS rebinding, somebody else's name points to this machine, and the page is requested by that name."""
    for host in ("evil.example:{}", "127.0.0.1", "127.0.0.1:1", "evil.example", "127.0.0.1.evil:{}", "127.0.0.1:{}@evil", ""):
        assert client.ask("/state", Host=host.format(client.port))[0] in (400, 421), host


@pytest.mark.parametrize(("host", "is_ours"), [
    ("127.0.0.1", True), ("127.0.0.1:80", True), ("localhost", True), ("[::1]", True), ("127.0.0.1:81", False), ("80", False),
    ("evil.example", False), ("127.0.0.1:", False), ("[::1", False)])
def test_a_browser_leaves_out_port_80(host, is_ours):
    """On that port the page used to answer nobody."""
    refusal = Guard(None, "token", "127.0.0.1", 80)._refusal("GET", Headers({"host": host, "x-page-token": "token"}), "")
    assert (refusal is None) == is_ours


def test_localhost_is_this_page(client):
    assert client.ask("/about", Host=f"localhost:{client.port}")[0] == 200


def test_what_is_read_is_read_by_get_alone(client):
    """Other methods are refused."""
    for path in ROUTES:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST"):
            assert client.ask(path, method, {} if method == "POST" else None)[0] in (404, 405), (method, path)


@pytest.mark.parametrize("path", ["/answers", "/send"])
def test_nothing_changes_by_get(client, board, path):
    before = board.changes.number
    assert client.ask(f"{path}?round=3")[0] == 405 and board.changes.number == before


@pytest.mark.parametrize(("headers", "status"), [
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "http://127.0.0.1:1"}, 403), ({"Origin": "null"}, 403),
    ({"Content_Type": "text/plain"}, 415), ({"Content_Type": "application/x-www-form-urlencoded"}, 415)])
def test_another_page_cannot_answer_with_this_one_s_cookie(client, board, headers, status):
    """Row 35: other ports of this machine are of the same site."""
    content = {"who": "", "round": 3, "answers": [{"image": 1, "answer": 0, "seen": 0}]}
    assert client.ask("/answers", "POST", content, **headers)[0] == status
    assert not board.is_complete and board.state(-1)["n_answered"] == 0


def test_a_request_that_is_too_large_is_not_read(client):
    assert client.ask("/answers", "POST", {}, Content_Length=str(2**30))[0] == 413


def test_every_response_says_what_a_browser_may_do_with_it(client):
    """Row 35: no inline scripts, outside parts, type guessing, copies on disk or frames. This also holds for refusals."""
    for path, headers in (("/", {}), ("/images/0", {}), ("/nothing", {}), ("/", {"X_Page_Token": ""}), ("/", {"Host": "x"})):
        sent = client.ask(path, **headers)[1]
        assert sent["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in sent["Content-Security-Policy"] and "frame-ancestors 'none'" in sent["Content-Security-Policy"]
        assert (sent["X-Content-Type-Options"], sent["Cache-Control"]) == ("nosniff", "no-store")


def test_the_page_has_no_outside_part_and_nothing_inline():
    """No script writes HTML either: names are text."""
    text = "\n".join(file.read_text() for file in STATIC.iterdir())
    assert set(re.findall(r"\w+://[^\s\"'`)]+|[\"'(`]//", text)) == {"http://www.w3.org/2000/svg"}, "the name of a format"
    page = (STATIC / "index.html").read_text()
    assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:|data:", page) and page.count("<script") == 1
    assert '<script type="module" src="page.js"></script>' in page
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", text)


@pytest.mark.parametrize(("host", "expected"), [
    ("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False), ("::", False),
    ("10.0.0.1", False), ("box.example", False)])
def test_what_only_this_machine_reaches(host, expected):
    """There is a warning for every other address."""
    assert is_loopback(host) == expected and ("localhost" in allowed_hosts(host)) == (expected or host in ("0.0.0.0", "::"))
