"""Only loopback names and the token's holder get an answer from the HTTP routes."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from chatbot.api import guard
from chatbot.api.guard import Guard, host_name


async def hello(request: Request) -> PlainTextResponse:
    await request.body()
    return PlainTextResponse("hello")


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(guard, "_token", lambda: "right-token")
    app = Starlette(
        routes=[
            Route("/open", hello),
            Route("/closed", guard.with_token(hello), methods=["GET", "POST"]),
        ],
        middleware=[Middleware(Guard)],
    )
    return TestClient(app, base_url="http://127.0.0.1:8501")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "",
        "127.0.0.1:80:80",
        "evil.example:8501",
        "0.0.0.0",
        "127.0.0.1:x",
        "127.0.0.1/",
        "[::2]",
    ],
)
@pytest.mark.parametrize("path", ["/open", "/closed"])
def test_foreign_hosts_are_refused_on_every_route(client, host, path):
    response = client.get(path, headers={"Host": host, "Authorization": "Bearer right-token"})
    assert response.status_code == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8501", "localhost", "LOCALHOST:1", "[::1]:8501"]
)
def test_loopback_names_pass(client, host):
    assert client.get("/open", headers={"Host": host}).text == "hello"
    assert host_name(host) in guard.ALLOWED_HOSTS


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", "right-token-and-more", "Basic right-token"]
)
def test_without_the_token_there_is_401(client, given):
    headers = {"Authorization": given} if given is not None else {}
    assert client.get("/closed", headers=headers).status_code == 401


def test_the_token_opens(client):
    assert client.get("/closed", headers={"Authorization": "Bearer right-token"}).text == "hello"


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "chunked"])
@pytest.mark.parametrize(("extra", "status"), [(0, 200), (1, 413)])
def test_oversized_bodies_are_refused(client, told, extra, status):
    body = b"x" * (guard.BODY_LIMIT + extra)
    response = client.post(
        "/closed",
        content=body if told else iter([body[:1000], body[1000:]]),
        headers={"Authorization": "Bearer right-token"},
    )
    assert response.status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000", ""])
def test_pages_of_another_origin_are_refused_on_every_route(client, origin):
    for path in ("/open", "/closed"):
        headers = {"Origin": origin, "Authorization": "Bearer right-token"}
        assert client.get(path, headers=headers).status_code == 403


def test_its_own_pages_pass(client):
    assert client.get("/open", headers={"Origin": "http://127.0.0.1:8501"}).text == "hello"


def test_the_policy_lets_nothing_call_elsewhere(client):
    policy = client.get("/open").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http:" not in policy
    assert "*" not in policy.replace("localhost:*", "").replace("127.0.0.1:*", "")
