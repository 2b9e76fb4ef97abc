"""What every request must pass, and what every answer says: token, host, origin, and the policy of the page."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

_COOKIE = "cvretrieval_token"
_POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Scope = dict[str, Any]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host name."""
    return host in _LOOPBACK


class Guard:
    """ASGI middleware.

    Parameters
    ----------
    app : ASGI application
    token : str, optional
        Asked of every request: ``Authorization: Bearer``, or a cookie, which ``/?token=`` sets.
    any_host : bool
        Whether requests may name any host. Else a page of the web that has its own name resolved to this machine could
        ask as if it were the page.
    """

    def __init__(self, app: Any, *, token: str | None = None, any_host: bool = False) -> None:
        self._app = app
        self._token = token
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_with_headers(message: Scope) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        refusal = self._refusal(headers)
        if refusal is not None:
            await _answer(send_with_headers, *refusal)
        elif self._token is not None and not _is_known(headers, self._token):
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if scope["path"] == "/" and hmac.compare_digest(given.encode(), self._token.encode()):
                cookie = f"{_COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
                await _answer(send_with_headers, 303, "", (b"location", b"/"), (b"set-cookie", cookie.encode()))
            else:
                detail = "This server asks for its token: open the address that it has printed, or send it as a bearer."
                await _answer(send_with_headers, 401, detail, (b"www-authenticate", b"Bearer"))
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, headers: dict[bytes, str]) -> tuple[int, str] | None:
        host = headers.get(b"host", "")
        if not self._any_host and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return 403, f"This server answers as localhost only, not as {host!r}."
        origin = headers.get(b"origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Requests of other sites are refused."
        return None


def _is_known(headers: dict[bytes, str], token: str) -> bool:
    scheme, _, given = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        try:
            cookies = SimpleCookie(headers.get(b"cookie", ""))
        except CookieError:
            return False
        given = cookies[_COOKIE].value if _COOKIE in cookies else ""
    return hmac.compare_digest(given.encode(), token.encode())


async def _answer(send: Any, status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
    import json

    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
