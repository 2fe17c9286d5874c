"""A model goes to the person's own repository: private, whole, with a card that tells nothing of this PC."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatbot.errors import BrokenModel, HubError, OfflineError
from chatbot.models import making
from chatbot.models import push as step
from chatbot.models.card import model_card
from chatbot.models.push import push
from tests.models.hub_server import HubServer, serving, status

WEIGHTS = bytes(range(256)) * 1000
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"# the base's card"}


def quiet(fraction: float, message: str = "", **values: Any) -> None:
    assert 0 <= fraction <= 1
    message.format(**values)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.token)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        yield server


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client in this process, which conftest has set offline, may go out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "mô hình"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def manifest(home: Path) -> dict[str, Any]:
    return {
        "name": "Tiny Q",
        "format": "hf",
        "role": "chat",
        "architecture": "llama",
        "parameters": 1234567,
        "context": 2048,
        "quantisation": "F16",
        "files": [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "modified_ns": 0}
            for name, content in FILES.items()
        ],
        "origin": {"repo": "student/base", "revision": "c" * 40, "endpoint": "https://huggingface.co", "licence": "mit"},
        "made": {"step": "prepare", "parent": "x", "at": 1.0,
                 "params": {"source": str(home / "secret place"), "precision": "f16"},
                 "figures": {"saturated": 3, "hardware": {"gpu": "My GPU"}, "seconds": 1.5}},
        "verdict": {"verdict": "pass", "checks": [
            {"name": "distance", "verdict": "pass", "measured": {"relative": 0.00012}, "limit": {"relative": 0.001}}]},
    }  # fmt: skip


def test_a_model_is_sent_in_a_child_and_comes_out_whole(hub, home):
    done = making.run("push", quiet, online=True, source=home, repo="tiny", manifest=manifest(home))
    assert done["repo"] == "student/tiny"
    repo = hub.repos["student/tiny"]
    assert repo.private
    assert done["commit"] == repo.head
    sent = repo.commits[-1][1]
    assert sent["model.safetensors"] == WEIGHTS
    assert sent["config.json"] == FILES["config.json"]
    assert sent["README.md"] == model_card(manifest(home)).encode()


def test_what_was_sent_is_not_sent_again(hub, home, online, monkeypatch):
    monkeypatch.setattr(step, "LARGE", 1000)
    hub.faults += [status(400)]
    with pytest.raises(HubError):
        push(quiet, source=home, repo="student/tiny", manifest=manifest(home))
    repo = hub.repos["student/tiny"]
    assert set(repo.commits[-1][1]) == {".gitattributes", "README.md", "config.json"}
    push(quiet, source=home, repo="student/tiny", manifest=manifest(home), private=False)
    assert repo.private, "an existing repository keeps its visibility"
    commits, puts = len(repo.commits), [s for s in hub.seen if s.method == "PUT"]
    assert repo.commits[-1][1]["model.safetensors"] == WEIGHTS
    push(quiet, source=home, repo="student/tiny", manifest=manifest(home))
    assert len(repo.commits) == commits
    assert [s for s in hub.seen if s.method == "PUT"] == puts


def test_a_public_repository_only_when_asked(hub, home, online):
    push(quiet, source=home, repo="student/open", manifest=manifest(home), private=False)
    assert not hub.repos["student/open"].private


def test_a_changed_file_is_not_sent(hub, home, online):
    (home / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"\0")
    with pytest.raises(BrokenModel, match="no longer what it was"):
        push(quiet, source=home, repo="student/tiny", manifest=manifest(home))
    assert hub.seen == []


@pytest.mark.parametrize("token", [None, "hf_cannotWriteHere"])
def test_without_a_token_that_may_write_it_says_so(hub, home, online, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    else:
        monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="access token") as caught:
        push(quiet, source=home, repo="student/tiny", manifest=manifest(home))
    assert "hf_cannot" not in str(caught.value)
    assert hub.repos == {}


def test_nothing_is_sent_when_offline(hub, home, monkeypatch):
    monkeypatch.setenv("HEARTH_OFFLINE", "1")
    with pytest.raises(OfflineError):
        push(quiet, source=home, repo="student/tiny", manifest=manifest(home))
    assert hub.seen == []


def test_the_card_tells_what_the_manifest_says_and_nothing_of_this_pc(home):
    card = model_card(manifest(home))
    assert card.startswith("---\n")
    for said in ('license: "mit"', 'base_model: "student/base"', "saved in 16 bits", "precision f16",
                 "1,234,567", "**pass**", "0.00012", "saturated"):  # fmt: skip
        assert said in card
    for secret in (str(home), "secret place", "My GPU"):
        assert secret not in card


def test_a_bare_manifest_makes_a_card_too():
    card = model_card({"name": "x", "format": "gguf", "files": []})
    assert "# x" in card
    assert "base_model" not in card
