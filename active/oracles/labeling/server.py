"""The page's server: a few routes over a board, on a thread of the run's process.

It uses Starlette and uvicorn, which are small, widely used and pure Python, for routes, HTTP and its limits. The server lives
in the process of the run, not in a separate one: the answers have one owner, the run's lock on its folder covers them too, and
there is no second process that could outlive the first. While people label, the run's own thread sleeps.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from operator import index
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from active.oracles.labeling.board import Board, Given, Refused
from active.oracles.labeling.guard import Guard, shown_host
from active.oracles.labeling.pictures import SIDES, picture
from dassl.data.answers import UNSURE, code_of
from dassl.data.places import Place
from dassl.utils.errors import DataError, UserError

STATIC = Path(__file__).with_name("static")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PATIENCE = 20.0  # seconds that a page waits for news in one request, unless the server stops
FAREWELL = 1.0  # seconds that pages have at the end to fetch the last news
LONGEST_NAME = 100


class _Ascii(JSONResponse):
    """JSON as ASCII text: file names need not be Unicode, and UTF-8 has no lone surrogates."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class Pages:
    """The routes: what a page may ask of a board. `about` holds what never changes; `place` says where an image is."""

    def __init__(self, board: Board, place: Callable[[str], Place], about: dict[str, Any]):
        self._board, self._place, self._about = board, place, about
        self._n_classes = len(about["classes"])
        self.last_read, self.patience = float("-inf"), PATIENCE

    def app(self) -> Starlette:
        """Return the application."""
        files = [Route(f"/{'' if file.name == 'index.html' else file.name}", _file(file)) for file in sorted(STATIC.iterdir())
                 if file.suffix in TYPES]
        return Starlette(routes=[
            *files, Route("/about", self._about_run), Route("/question", self._question), Route("/state", self._state),
            Route("/labeled", self._labeled), Route("/images/{number}", self._image),
            Route("/answers", self._answers, methods=["POST"]), Route("/send", self._send, methods=["POST"])],
            exception_handlers={Refused: _refused, UserError: _failed})

    def _about_run(self, request: Request) -> Response:
        return _Ascii(self._about)

    def _question(self, request: Request) -> Response:
        return _Ascii(self._board.question())

    async def _state(self, request: Request) -> Response:
        """Answer once there is news, or after a while without any."""
        since = _integer(request.query_params.get("since", "-1"))
        self.last_read = time.monotonic()
        await self._board.changes.after(since, self.patience)
        self.last_read = time.monotonic()
        return _Ascii(self._board.state(since))

    def _labeled(self, request: Request) -> Response:
        return _Ascii(self._board.labeled(self._code(request.query_params.get("answer", ""))))

    def _image(self, request: Request) -> Response:
        size = request.query_params.get("size", "large")
        if size not in SIDES:
            raise Refused(404, f"an image has the sizes {', '.join(SIDES)}")
        path = self._board.path(_integer(request.path_params["number"]))
        try:
            content, media_type = picture(self._place(path), size)
        except DataError as error:
            raise Refused(422, str(error)) from error
        return Response(content, media_type=media_type)

    async def _answers(self, request: Request) -> Response:
        content = await _json(request)
        try:
            who, round = content["who"][:LONGEST_NAME].strip(), index(content["round"])
            given = [Given(index(own["image"]), self._code(own["answer"]), index(own["seen"])) for own in content["answers"]]
        except (AttributeError, KeyError, TypeError) as error:
            raise Refused(400, f"these are not answers: {type(error).__name__}") from error
        number, conflicts = await run_in_threadpool(self._board.answer, who, round, given)
        return _Ascii({"number": number, "conflicts": conflicts}, 409 if conflicts else 200)

    async def _send(self, request: Request) -> Response:
        content = await _json(request)
        if not isinstance(content.get("round"), int):
            raise Refused(400, "of which round?")
        self._board.send(content["round"])
        return _Ascii({})

    def _code(self, answer: int | str | None) -> int | None:
        """Return the code of an answer in the form of records, where a label may be text; raises Refused for anything else."""
        if answer is None:
            return None
        try:
            code = code_of(int(answer) if str(answer).isdecimal() else str(answer))
        except ValueError as error:
            raise Refused(400, f"{answer!r} is not an answer") from error
        label = code if code >= 0 else UNSURE - 1 - code  # below 0 for answers without a class
        if label >= self._n_classes:
            raise Refused(400, f"there is no class {label}")
        return code


def _file(file: Path) -> Callable[[Request], Response]:
    content, media_type = file.read_bytes(), TYPES[file.suffix]
    return lambda request: Response(content, media_type=media_type)


async def _json(request: Request) -> dict[str, Any]:
    try:
        content = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise Refused(400, "this is not JSON") from error
    if not isinstance(content, dict):
        raise Refused(400, "this is not a JSON object")
    return content


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise Refused(400, f"{text!r} is not a number") from error


def _refused(request: Request, error: Refused) -> Response:
    return _Ascii({"error": str(error)}, error.status)


def _failed(request: Request, error: UserError) -> Response:
    """Answer that the page's data could not be written to the disk. It is not logged: the log may have no room either."""
    return _Ascii({"error": str(error)}, 507)


class Server:
    """A server on a thread. It listens from the start, and ends with the process at the latest."""

    def __init__(self, board: Board, place: Callable[[str], Place], about: dict[str, Any], host: str, port: int):
        self._board, self._pages, self._socket = board, Pages(board, place, about), _bound(host, port)
        port, self._token = self._socket.getsockname()[1], secrets.token_urlsafe(24)
        name = socket.gethostname() if host in ("0.0.0.0", "::", "") else shown_host(host)
        self.address = f"http://{name}:{port}/?token={self._token}"
        # No signal handlers, since only main threads may have them; no log of requests, since these contain the token.
        self._server = uvicorn.Server(uvicorn.Config(
            Guard(self._pages.app(), self._token, host, port), http="h11", loop="asyncio", ws="none", lifespan="off",
            log_config=None, log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=2))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="labeling page", daemon=True)
        os.register_at_fork(after_in_child=self._socket.close)  # else a loader's process would hold the port after a kill
        self._thread.start()

    def stop(self) -> None:
        """Let the open pages read the last news, and stop."""
        if time.monotonic() - self._pages.last_read < PATIENCE + FAREWELL:
            time.sleep(FAREWELL)
        self._pages.patience = 0.0
        self._server.should_exit = True
        with self._board.changes.condition:
            self._board.changes.made()  # so that no request keeps waiting
        self._thread.join()
        self._socket.close()


def _bound(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises UserError if there is no such host or the port is taken."""
    try:
        family, *_, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        raise UserError(f"the labeling page cannot listen at {host}, port {port} (ACTIVE.PAGE.HOST, ACTIVE.PAGE.PORT; port 0 "
                        f"is a free one): {getattr(error, 'strerror', None) or error}") from error
