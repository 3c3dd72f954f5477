"""A page's requests as no browser would send them, and boards to send them to."""

import http.client
import json

from active.oracles.labeling.board import Asked, Board, Given
from active.oracles.labeling.server import Server
from dassl.data.answers import words
from dassl.utils.journal import Journal

NAMES = ["heron", "<img src=x onerror=alert(1)>", "kingfisher"]
CODES = {name: label for label, name in enumerate(NAMES)} | words(NAMES)
PATHS = ["a.png", "b c.jpg", "<b>.tiff", "d.png"]
GUESSES = [[(0, 0.7), (2, 0.2), (1, 0.1)]] * 4


def opened(journal: Journal, *, lines=(), earlier=(), grace: float = 0.0) -> Board:
    """Return a board that asks for the first three images in round 3; d.png was asked before."""
    board = Board(NAMES, grace)
    board.ask(Asked(3, PATHS[:3], GUESSES[:3], frozenset(), journal), lines, dict(earlier) or {PATHS[3]: 0})
    return board


def given(image: int, code: int | None, seen: int = 0) -> Given:
    """Return an answer from a page on which the image had no answer yet."""
    return Given(image, code, seen)


class Client:
    """Sends requests as no browser would."""

    def __init__(self, server: Server):
        address, self.token = server.address.removeprefix("http://").split("/?token=")
        self.host, self.port = address.split(":")

    def ask(self, path: str, method: str = "GET", content=None, body: bytes | None = None, **headers: str):
        """Return status, headers and body; a header of the value "" is left out."""
        given = {"Host": f"{self.host}:{self.port}", "X-Page-Token": self.token}
        if content is not None:
            body, given["Content-Type"] = json.dumps(content).encode(), "application/json"
        if body is not None:
            given["Content-Length"] = str(len(body))
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=20)
        connection.putrequest(method, path, skip_host=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        found = response.status, response.headers, response.read()
        connection.close()
        return found

    def json(self, path: str, content=None):
        status, _, body = self.ask(path, "POST" if content is not None else "GET", content)
        return status, json.loads(body)

    def answer(self, image: int, answer, seen: int = 0, who: str = "Ann"):
        return self.json("/answers", {"who": who, "round": 3, "answers": [{"image": image, "answer": answer, "seen": seen}]})
