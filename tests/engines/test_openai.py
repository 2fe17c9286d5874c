"""A remote endpoint: what is sent, what goes wrong, and that cancelling hangs up."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest

from chatbot.engines.base import EngineSpec
from chatbot.engines.openai import OpenAI
from chatbot.errors import OfflineError, RemoteError
from chatbot.types import GenerationOptions, Turn
from tests.engines.chat_server import ChatServer
from tests.engines.conftest import GREEDY
from tests.tiny_models import RECITED


@pytest.fixture
def engine(spec_of):
    made = OpenAI(spec_of("openai"))
    yield made
    made.close()


def ask(engine: OpenAI, text: str, **options) -> str:
    turns = [Turn("system", "Be exact."), Turn("user", text)]
    return "".join(d.text for d in engine.stream(turns, replace(GREEDY, **options)))


def test_the_protocol_is_spoken(engine: OpenAI, chat_server: ChatServer) -> None:
    options = GenerationOptions(temperature=0.5, top_p=0.9, max_tokens=30, seed=7, stop=("never",))
    ask(engine, "Xin chào", **{name: getattr(options, name) for name in ("seed", "stop", "top_p")})
    body, headers = chat_server.requests[-1], chat_server.headers[-1]
    assert headers["Authorization"] == "Bearer s3cret"
    assert body["model"] == "tiny"
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["messages"] == [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": "Xin chào"},
    ]
    assert (body["seed"], body["stop"], body["top_p"]) == (7, ["never"], 0.9)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("[refuse]", "401 Incorrect API key provided"),
        ("[drop]", ""),
        ("[garbage]", ""),
    ],
)
def test_what_the_server_does_wrong_is_an_error_without_the_key(
    engine: OpenAI, order: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RemoteError) as raised:
        ask(engine, order)
    assert said in raised.value.values["detail"]
    assert raised.value.values["address"].startswith("127.0.0.1:")
    assert "s3cret" not in str(raised.value) + caplog.text
    assert ask(engine, "again") == RECITED


def test_nobody_there(engine: OpenAI) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = OpenAI(EngineSpec("openai", "tiny", url=f"http://127.0.0.1:{port}/v1"))
    with pytest.raises(RemoteError):
        ask(nobody, "?")
    nobody.close()


def test_a_wrong_path_is_said(chat_server: ChatServer) -> None:
    lost = OpenAI(EngineSpec("openai", "tiny", url=chat_server.url + "/v2"))
    with pytest.raises(RemoteError, match="404"):
        ask(lost, "?")
    lost.close()


def test_cancelling_hangs_up_even_while_the_server_is_silent(
    engine: OpenAI, chat_server: ChatServer
) -> None:
    chat_server.hung_up.clear()
    asked = len(chat_server.requests)
    stream = engine.stream(
        [Turn("user", "[silent]")], GREEDY, lambda: len(chat_server.requests) > asked
    )
    deltas = list(stream)
    assert deltas[-1].stats.finish == "cancelled"
    assert chat_server.hung_up.wait(5)


def test_offline_forbids_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_OFFLINE", "1")
    for url in (
        "https://api.example.com/v1",
        "http://192.168.1.5:8000/v1",
        "http://127.0.0.1.evil/v1",
    ):
        with pytest.raises(OfflineError):
            OpenAI(EngineSpec("openai", "x", url=url))
    for url in ("http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://[::1]:1/v1"):
        OpenAI(EngineSpec("openai", "x", url=url)).close()


def test_the_key_is_not_shown_with_the_spec() -> None:
    assert "s3cret" not in repr(EngineSpec("openai", "x", key="s3cret"))
