"""Who may talk to Hearth: loopback host names only, and a token for everything that is not the UI."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatbot.services import services

ALLOWED_HOSTS = ("localhost", "127.0.0.1", "::1")
BODY_LIMIT = 2 * 1024 * 1024

# Nothing that an answer or a document says may make the browser call anywhere else.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:;"
    " connect-src 'self' ws://localhost:* ws://127.0.0.1:* data: blob:;"
    " form-action 'self'; frame-ancestors 'self'; object-src 'none'; base-uri 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)

Endpoint = Callable[[Request], Awaitable[Response]]


class Guard:
    """ASGI middleware: refuses foreign Host names on every route, adds the content security policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if host_name(Headers(scope=scope).get("host", "")) not in ALLOWED_HOSTS:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await JSONResponse({"error": "host not allowed"}, 403)(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_policy)


def host_name(header: str) -> str:
    """The name in a Host header without its port; empty for anything malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # a malformed port raises
    except ValueError:
        return ""
    plain = parts.netloc == header and "@" not in header
    return parts.hostname or "" if plain else ""


def with_token(endpoint: Endpoint) -> Endpoint:
    """The endpoint for callers with the API token; 401 for everyone else, 413 for oversized bodies."""

    async def guarded(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(given, services().token.encode()):
            return JSONResponse(
                {"error": {"message": "missing or wrong API token", "type": "unauthorized"}}, 401
            )
        if int(request.headers.get("content-length") or 0) > BODY_LIMIT:
            return JSONResponse({"error": {"message": "body too large"}}, 413)
        return await endpoint(request)

    return guarded
