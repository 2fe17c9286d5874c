"""A hub, or whoever answers in its place, cannot send a download into this PC or its network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from chatbot.errors import HubError, OfflineError, SettingsError
from chatbot.models.download import download
from chatbot.models.hub import Hub
from chatbot.models.outside import HUB, Endpoint, Guard
from tests.models.hub_server import HubServer, redirected_to, serving

# {port} is a server of ours that must see nothing; names lead to 127.0.0.1 in this test's DNS.
FORBIDDEN = [
    "http://127.0.0.1:{port}/x",
    "https://127.0.0.1:{port}/x",
    "http://localhost:{port}/x",
    "https://localhost:{port}/x",
    "https://LOCALHOST:{port}/x",
    "https://localhost.:{port}/x",
    "http://0.0.0.0:{port}/x",
    "https://0.0.0.0:{port}/x",
    "https://0:{port}/x",
    "https://127.1:{port}/x",
    "https://127.0.0.2:{port}/x",
    "https://2130706433:{port}/x",
    "https://0x7f000001:{port}/x",
    "https://017700000001:{port}/x",
    "https://0x7f.1:{port}/x",
    "https://[::1]:{port}/x",
    "https://[::]:{port}/x",
    "https://[::ffff:127.0.0.1]:{port}/x",
    "https://[::ffff:7f00:1]:{port}/x",
    "https://[64:ff9b::7f00:1]:{port}/x",
    "https://[2002:7f00:1::]:{port}/x",
    "https://[fe80::1]:{port}/x",
    "https://[fc00::1]:{port}/x",
    "https://huggingface.co@127.0.0.1:{port}/x",
    "https://huggingface.co:443@127.0.0.1:{port}/x",
    "https://user:secret@localhost:{port}/x",
    "https://127.0.0.1:{port}#@huggingface.co/x",
    "https://127.0.0.1:{port}\\@huggingface.co/x",
    "https://huggingface.co.rebinding.example:{port}/x",
    "https://rebinding.example:{port}/x",
    "//127.0.0.1:{port}/x",
    "//rebinding.example:{port}/x",
    "http://huggingface.co:{port}/x",
    "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/x",
    "gopher://127.0.0.1:{port}/_x",
    "data:text/plain,x",
    "javascript:alert(1)",
    "https://169.254.169.254/latest/meta-data",
    "http://169.254.169.254/latest/meta-data",
    "https://10.0.0.1/x",
    "https://172.16.0.1/x",
    "https://192.168.1.1/x",
    "https://100.64.0.1/x",
    "https://224.0.0.1/x",
    "https://metadata.google.internal/x",
]


def only_here(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
    """A DNS in which every name leads into this PC; nothing is asked outside."""
    try:
        return real_dns(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


real_dns = socket.getaddrinfo


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        monkeypatch.setattr(socket, "getaddrinfo", only_here)
        server.add("student/tiny", {"model.safetensors": b"x" * 1000})
        yield server


@pytest.fixture(scope="module")
def canary() -> Iterator[HubServer]:
    with serving() as server:
        yield server


def quiet(*_: Any, **__: Any) -> None: ...


@pytest.mark.parametrize("url", FORBIDDEN)
@pytest.mark.parametrize("where", ["at once", "by the store"])
def test_a_redirect_leads_nowhere_else(hub, canary, tmp_path, url, where):
    url = url.format(port=canary.url.rpartition(":")[2])
    if where == "at once":
        hub.redirect = url
    else:
        hub.faults += [redirected_to(url)] * 9
    with Hub() as opened:
        model = opened.model("student/tiny")
        with pytest.raises(HubError) as caught:
            opened.read(model, "model.safetensors")
        assert "secret" not in str(caught.value)
    with pytest.raises(HubError):
        download(quiet, target=tmp_path / "m", repo="student/tiny", revision=model.revision,
                 files=[asdict(f) for f in model.files], endpoint=hub.url, tries=2, first_wait=0.0)  # fmt: skip
    assert canary.seen == []
    assert not (tmp_path / "m" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("url", [u.format(port=9) for u in FORBIDDEN if "://" in u])
def test_the_public_hub_is_held_to_its_own_names(url, monkeypatch):
    import httpx

    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return
    with pytest.raises(HubError):
        Endpoint().addresses(parsed.scheme, parsed.host, parsed.port)


@pytest.mark.parametrize(
    "host", ["huggingface.co", "cdn-lfs.huggingface.co", "cas-bridge.xethub.hf.co", "cdn-lfs-us-1.hf.co"]
)  # fmt: skip
def test_the_public_hub_may_redirect_to_its_stores_unless_dns_leads_home(host, monkeypatch):
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", ("18.1.2.3", 443))]
    )
    assert Endpoint().addresses("https", host, None) == ["18.1.2.3"]
    monkeypatch.setattr(socket, "getaddrinfo", only_here)
    with pytest.raises(HubError):
        Endpoint().addresses("https", host, None)


@pytest.mark.parametrize(
    "host", ["evilhuggingface.co", "huggingface.co.evil.example", "hf.com", "s3.amazonaws.com"]
)
def test_other_hosts_are_not_the_hub(host):
    with pytest.raises(HubError):
        Endpoint().addresses("https", host, None)


class _Recorder:
    """Stands in for httpx: keeps what would be sent."""

    __name__ = "recorder"
    ConnectError = ConnectTimeout = OSError

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def HTTPTransport(self, **_: Any) -> Any:
        recorder = self

        class Transport:
            def handle_request(self, request: Any) -> Any:
                recorder.sent.append(request)

        return Transport()

    @staticmethod
    def Request(*asked: Any, **more: Any) -> Any:
        import httpx

        return httpx.Request(*asked, **more)


def test_a_second_dns_answer_cannot_move_the_connection(monkeypatch):
    import httpx

    answers = iter(["18.1.2.3", "127.0.0.1"])
    monkeypatch.delenv("HEARTH_OFFLINE")
    monkeypatch.setattr(
        socket, "getaddrinfo",
        lambda *_, **__: [(socket.AF_INET, 1, 6, "", (next(answers), 443))])  # fmt: skip
    recorder = _Recorder()
    guard = Guard(recorder, Endpoint())
    guard.handle_request(httpx.Request("GET", f"{HUB}/x"))
    [sent] = recorder.sent
    assert sent.url.host == "18.1.2.3"
    assert sent.headers["Host"] == "huggingface.co"
    assert sent.extensions["sni_hostname"] == "huggingface.co"


def test_a_proxy_of_the_environment_is_used_and_hosts_are_held_all_the_same(monkeypatch):
    import httpx

    monkeypatch.delenv("HEARTH_OFFLINE")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    recorder = _Recorder()
    guard = Guard(recorder, Endpoint())
    guard.handle_request(httpx.Request("GET", f"{HUB}/x"))
    assert recorder.sent[0].url.host == "huggingface.co"
    for url in ("https://127.0.0.1/x", "https://evil.example/x", "http://huggingface.co/x"):
        with pytest.raises(HubError):
            guard.handle_request(httpx.Request("GET", url))


def test_the_token_goes_to_the_hub_alone(hub, canary, monkeypatch):
    """A mirror that sends to a store elsewhere: the store sees no token."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(Endpoint, "addresses", lambda *_, **__: ["127.0.0.1"])
    hub.redirect = canary.url.replace("127.0.0.1", "store.example") + "/api/models"
    seen = len(canary.seen)
    with Hub() as opened:
        opened.read(opened.model("student/tiny"), "model.safetensors")
    [asked] = canary.seen[seen:]
    assert "Authorization" not in asked.headers
    assert all(s.headers["Authorization"] == f"Bearer {hub.token}" for s in hub.seen)
    canary.seen.clear()


@pytest.mark.parametrize(
    "url", ["file:///x", "ftp://x", "huggingface.co", "https://", "https://me:pw@x"]
)
def test_an_endpoint_must_be_an_address(monkeypatch, url):
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(SettingsError) as caught:
        Endpoint.from_environment()
    assert "pw" not in str(caught.value)


def test_without_the_internet_no_connection_is_made(monkeypatch):
    monkeypatch.setenv("HEARTH_OFFLINE", "1")
    with pytest.raises(OfflineError):
        Guard(_Recorder(), Endpoint())
