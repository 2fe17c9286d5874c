"""What a page elsewhere, or a program without the token, can make the running app do: nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.browser.conftest import RunningApp, running

MARKER = "zqxjkvb"
FOREIGN_HOSTS = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example:8501",
    "0.0.0.0",
    "192.168.1.10:8501",
    "[::ffff:127.0.0.1]",
    "127.1",
    "user@127.0.0.1",
)
FOREIGN_ORIGINS = (
    "http://evil.example",
    "https://127.0.0.1.evil.example",
    "null",
    "file://",
    "http://localhost:3000",
    "http://127.0.0.1",
    "http://[",
    "moz-extension://0b1c",
)
WRONG_TOKENS = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    "Bearer {token}x",
    "Basic {token}",
    "{token}",
    "Bearer \xff\xfe",
)
COMMAND = {"name": "jobs list", "params": {}}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    data = tmp_path_factory.mktemp("dữ liệu") / "data"
    with running(data) as started:
        yield started


class Visitor:
    """Sends requests byte by byte as written here, with no client's good manners."""

    def __init__(self, app: RunningApp) -> None:
        self.host = app.address.removeprefix("http://")
        self.token = app.token

    def send(self, request: bytes) -> bytes:
        name, _, port = self.host.partition(":")
        with socket.create_connection((name, int(port)), timeout=30) as connection:
            connection.sendall(request)
            answer = b""
            while (piece := connection.recv(65536)) and len(answer) < 100_000:
                answer += piece
                if answer.startswith(b"HTTP/1.1 101"):
                    break
            return answer

    def status(
        self,
        method: str = "GET",
        path: str = "/v1/models",
        body: bytes = b"",
        **headers: str | None,
    ) -> int:
        answer = self.send(self.request(method, path, body, **headers))
        return int(answer.split(b" ", 2)[1]) if answer else 0

    def request(self, method: str, path: str, body: bytes = b"", **headers: str | None) -> bytes:
        """None leaves a header out; {token} stands for the right token."""
        sent: dict[str, str | None] = {
            "host": self.host,
            "authorization": "Bearer {token}",
            "connection": "close",
            "content_length": str(len(body)) if body else None,
        }
        sent |= headers
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [
            f"{name.replace('_', '-')}: {value}".replace("{token}", self.token)
            for name, value in sent.items()
            if value is not None
        ]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body

    def command(self, body: object, **headers: str | None) -> int:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content_type": "application/json", **headers}
        return self.status("POST", "/api/command", raw, **headers)

    def websocket(self, **headers: str | None) -> int:
        upgrade: dict[str, str | None] = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec_websocket_version": "13",
            "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
            "origin": f"http://{self.host}",
        }
        return self.status("GET", "/_stcore/stream", **(upgrade | headers))


@pytest.fixture
def visitor(app: RunningApp) -> Visitor:
    return Visitor(app)


def test_the_legitimate_ones_pass(visitor: Visitor):
    own = f"http://{visitor.host}"
    by_name = visitor.host.replace("127.0.0.1", "localhost")
    answers = [
        visitor.status(),
        visitor.status(host=by_name),
        visitor.status(origin=own),
        visitor.status(authorization="bearer {token}"),
        visitor.status(path="/", authorization=None),
        visitor.status(path="/_stcore/health", authorization=None),
        visitor.command(COMMAND),
        visitor.command(COMMAND, content_type="application/json; charset=utf-8"),
    ]
    assert answers == [200] * len(answers)
    assert visitor.websocket() == 101
    assert visitor.websocket(host=by_name, origin=f"http://{by_name}") == 101


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_foreign_host_is_refused_on_every_route_with_the_right_token(visitor, host):
    assert visitor.status(host=host) in (400, 403)
    assert visitor.status(path="/", host=host) in (400, 403)
    assert visitor.command(COMMAND, host=host) in (400, 403)
    assert visitor.websocket(host=host) in (400, 403)


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_foreign_page_is_refused_on_every_route_with_the_right_token(visitor, origin):
    assert visitor.status(origin=origin) == 403
    assert visitor.command(COMMAND, origin=origin) == 403
    assert visitor.command(COMMAND, origin=origin, content_type="text/plain") == 403
    assert visitor.websocket(origin=origin) == 403
    preflight = visitor.send(
        visitor.request(
            "OPTIONS",
            "/api/command",
            origin=origin,
            access_control_request_method="POST",
            access_control_request_headers="authorization",
        )
    )
    assert preflight.startswith(b"HTTP/1.1 403")
    assert b"access-control-allow" not in preflight.lower()


@pytest.mark.parametrize("authorization", [None, *WRONG_TOKENS])
def test_without_the_right_token_nothing_is_told_or_done(visitor, authorization):
    assert visitor.status(authorization=authorization) == 401
    assert visitor.command(COMMAND, authorization=authorization) == 401


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_form_can_send_is_no_command(visitor, content_type):
    assert visitor.command(COMMAND, content_type=content_type) == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_do_nothing(visitor, method):
    assert visitor.status(method, "/api/command") == 405


BROKEN = {
    "not json": (b"{", 422),
    "a list": (b"[]", 422),
    "no name": (b"{}", 422),
    "params no object": (b'{"name": "search", "params": 7}', 422),
    "deep": (b'{"name": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 422),
    "a long number": (b'{"name": "search", "params": {"limit": ' + b"9" * 5000 + b"}}", 422),
    "not utf-8": (b'{"name": "\xff"}', 422),
    "unknown": ({"name": "rm -rf", "params": {}}, 400),
    "unknown parameter": ({"name": "jobs list", "params": {"all": True}}, 400),
    "missing parameter": ({"name": "search", "params": {}}, 400),
    "a number for a text": ({"name": "search", "params": {"query": 5}}, 400),
    "an object for a text": ({"name": "ask", "params": {"question": {"a": 1}}}, 400),
    "no such mode": ({"name": "search", "params": {"query": "a", "mode": "all"}}, 400),
    "no such scope": ({"name": "ask", "params": {"question": "a", "documents": "x"}}, 400),
    "limit 0": ({"name": "search", "params": {"query": "a", "limit": 0}}, 400),
    "limit huge": ({"name": "search", "params": {"query": "a", "limit": 10**9}}, 400),
    "limit true": ({"name": "search", "params": {"query": "a", "limit": True}}, 400),
    "no such model": (
        {"name": "ask", "params": {"question": "a", "model": "nope", "documents": "none"}},
        400,
    ),
    "no such document": ({"name": "documents remove", "params": {"id": "../../x"}}, 400),
    "no such job": ({"name": "jobs cancel", "params": {"id": "'; DROP TABLE jobs"}}, 400),
    "no such path": ({"name": "documents add", "params": {"paths": ["/no/such"]}}, 400),
    "paths no list": ({"name": "documents add", "params": {"paths": "/etc"}}, 400),
    "negative context": ({"name": "models load", "params": {"id": "x", "context": -1}}, 400),
    "half a surrogate pair": (b'{"name": "search", "params": {"query": "\\ud800"}}', 200),
    "a zero byte": (b'{"name": "search", "params": {"query": "a\\u0000b"}}', 200),
    "an empty query": ({"name": "search", "params": {"query": ""}}, 200),
}


@pytest.mark.parametrize(("body", "status"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_command_is_refused_and_never_an_error_of_the_server(visitor, body, status):
    assert visitor.command(body) == status


def test_a_body_without_a_length_is_read_only_up_to_the_limit(visitor: Visitor):
    head = visitor.request(
        "POST", "/api/command", content_type="application/json", transfer_encoding="chunked"
    )
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    try:
        answer = visitor.send(head + piece * 60)
    except ConnectionError:  # the server may hang up while we still send
        answer = b"HTTP/1.1 413"
    assert answer.startswith(b"HTTP/1.1 413")
    assert visitor.status() == 200


def test_many_at_once_leave_it_well(visitor: Visitor):
    with ThreadPoolExecutor(20) as crowd:
        answers = list(
            crowd.map(lambda _n: visitor.command(COMMAND, host="evil.example"), range(60))
        )
    assert set(answers) == {403}
    assert visitor.command(COMMAND) == 200


@pytest.mark.parametrize(
    "name", ["../../escape.pdf", "..%2f..%2fescape.pdf", "C:%5Cescape.pdf", "a.pdf:$s", "%00.pdf"]
)
def test_an_upload_past_the_pages_goes_nowhere(visitor: Visitor, app: RunningApp, name: str):
    boundary = "----hearth"
    body = (
        f"--{boundary}\r\ncontent-disposition: form-data; name=f; filename={name}\r\n\r\n"
        f"%PDF-1.7 {MARKER}\r\n--{boundary}--\r\n"
    ).encode()
    before = _files(app.data.parent)
    for path in (f"/_stcore/upload_file/session/{name}", f"/_stcore/upload_file/{name}/f"):
        status = visitor.status(
            "PUT", path, body, content_type=f"multipart/form-data; boundary={boundary}"
        )
        assert 400 <= status < 500
    assert {f for f in _files(app.data.parent) - before if "escape" in f.name} == set()


def test_neither_questions_nor_the_token_reach_the_log(visitor: Visitor, app: RunningApp):
    question = {"name": "ask", "params": {"question": f"{MARKER} là gì?"}}
    assert visitor.command(question) == 200
    assert visitor.command({"name": "models import", "params": {"path": f"/{MARKER}"}}) == 400
    logs = [app.log, *(f for f in (app.data / "logs").rglob("*") if f.is_file())]
    text = "\n".join(log.read_text(errors="replace") for log in logs)
    assert MARKER not in text
    assert visitor.token not in text


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps rights in another way")
def test_only_this_user_can_read_what_the_app_keeps(app: RunningApp):
    shared = [
        f for f in [app.data, *app.data.rglob("*")] if f.exists() and f.stat().st_mode & 0o077
    ]
    assert shared == []


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))
