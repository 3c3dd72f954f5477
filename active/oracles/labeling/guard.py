"""Who may ask what: the token, the Host header, the method, and the headers of every response.

The page shows private images. Other pages in the same browser, other users of the machine, and names that an attacker points
at it (DNS rebinding) must not reach them. No route ever sees a request that the guard refuses.
"""

import hmac
import ipaddress
import socket
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
          "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'")
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin"}
TOKEN_HEADER = "X-Page-Token"
LARGEST_BODY = 2**22


class Guard:
    """An ASGI application around another one."""

    def __init__(self, app: ASGIApp, token: str, host: str, port: int):
        self._app, self._token, self._port = app, token, port
        self._hosts = allowed_hosts(host)
        self.cookie = f"page_{port}"  # all ports of a host share cookies, and there may be several runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        refusal = self._refusal(scope["method"], headers, given)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered.update(HEADERS)
                if given and not refusal:
                    answered.append("Set-Cookie", f"{self.cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, method: str, headers: Headers, given: str) -> PlainTextResponse | None:
        """Return the response to a request that is refused, None for one that is let through."""
        if len(headers.getlist("host")) != 1 or not self._is_ours(headers["host"]):
            return PlainTextResponse("this page has another address", 421)
        if method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("method not allowed", 405, {"Allow": "GET, HEAD, POST"})
        own = given or headers.get(TOKEN_HEADER) or self._in_cookie(headers)
        if not hmac.compare_digest(own.encode(), self._token.encode()):
            return PlainTextResponse("open the address that the run has printed: it has a token, new at each start", 403)
        return self._refusal_of_post(headers) if method == "POST" else None

    def _refusal_of_post(self, headers: Headers) -> PlainTextResponse | None:
        """Return the response to a change that another page may have sent with this page's cookie, or that is too large."""
        if headers.get("origin", f"http://{headers['host']}") != f"http://{headers['host']}":
            return PlainTextResponse("only the page itself may change anything", 403)
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return PlainTextResponse("answers are JSON", 415)
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdecimal()) or int(length) > LARGEST_BODY:
            return PlainTextResponse("a request has a length, of 4 MiB at most", 413)
        return None

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.lower().rpartition(":")
        if not port.isdecimal():
            name, port = host.lower(), "80"  # browsers leave port 80 out
        if port != str(self._port):
            return False
        return name in self._hosts or ("*" in self._hosts and _is_address(name))

    def _in_cookie(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return found.value if found else ""


def allowed_hosts(host: str) -> Collection[str]:
    """Return the names in a Host header under which a page bound to a host may be requested; "*" is any address.

    A page that listens everywhere may be requested by addresses and by the machine's name, but not by a foreign name that
    points here.
    """
    if is_loopback(host):
        return {"localhost", "127.0.0.1", "[::1]", shown_host(host)}
    if host in ("0.0.0.0", "::", ""):
        return {"*", "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    return {shown_host(host)}


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a host."""
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def shown_host(host: str) -> str:
    """Return a host as written in an address."""
    return f"[{host.lower()}]" if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
