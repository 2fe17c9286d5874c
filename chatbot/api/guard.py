"""Who may talk to Hearth: loopback names, its own pages, and the token's holder for all that is not the UI."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    """ASGI middleware: refuses foreign hosts and origins on every route, adds the content security policy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if refusal := _refusal(Headers(scope=scope)):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refused(refusal, 403)(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self._app(scope, receive, with_policy)


def _refusal(headers: Headers) -> str:
    """Why a request is turned away at the door; empty when it may come in."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    if len(hosts) != 1 or host_name(hosts[0]) not in ALLOWED_HOSTS:
        return "host not allowed"
    # Browsers name the page that asks, also on websockets; ours is served from this very host and port.
    ours = (f"http://{hosts[0]}".lower(), f"https://{hosts[0]}".lower())
    if any(origin.lower() not in ours for origin in origins):
        return "origin not allowed"
    return ""


def host_name(header: str) -> str:
    """The name in a Host header without its port; empty for anything malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port  # a malformed port raises
    except ValueError:
        return ""
    plain = parts.netloc == header and "@" not in header
    return parts.hostname or "" if plain else ""


def refused(message: str, status: int) -> Response:
    """An error in the shape that OpenAI's clients read."""
    return JSONResponse({"error": {"message": message}}, status)


def with_token(endpoint: Endpoint) -> Endpoint:
    """The endpoint for callers with the API token; 401 for everyone else, 413 for oversized bodies."""

    async def guarded(request: Request) -> Response:
        token = await run_in_threadpool(_token)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), token.encode())
        if scheme.lower() != "bearer" or not right:
            return refused("missing or wrong API token", 401)
        try:
            return await endpoint(Request(request.scope, _limited(request.receive)))
        except _TooLarge:
            return refused("body too large", 413)

    return guarded


def _token() -> str:
    from chatbot.services import services  # opened beside the server's start: see app.py

    return services().ownership.token


class _TooLarge(Exception):
    pass


def _limited(receive: Receive) -> Receive:
    """The same messages up to the limit; counted, for a chunked body does not tell its length."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > BODY_LIMIT:
            raise _TooLarge
        return message

    return counted
