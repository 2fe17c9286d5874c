"""A model of the hub is described from headers: a few bytes of its files, and never a weight."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.errors import BrokenModel, ChatbotError, GatedModel, HubError, ModelError, OfflineError
from chatbot.memory.headers import read_model
from chatbot.models.hub import RemoteFile, RemoteModel
from chatbot.models.remote import FIRST, SHARD, facts_for_plan, gguf_facts, is_repository
from tests.memory import building
from tests.memory.test_config import config_of
from tests.models.hub_server import HubServer, closed_after, reset_after, serving

MB = 1_000_000
WORDS = [f"▁từ{n}" for n in range(60_000)]
BIG = (
    ("token_embd.weight", (64, len(WORDS)), "F16"),
    ("output_norm.weight", (64,), "F32"),
    ("blk.0.attn_q.weight", (64, 64), "F16"),
    ("blk.0.ffn_up.weight", (4096, 4096), "Q8_0"),
    ("blk.1.attn_q.weight", (64, 64), "Q8_0"),
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as server:
        monkeypatch.delenv("HEARTH_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        yield server


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A GGUF of 26 MB whose vocabulary, before its tensors, takes more than the first piece."""
    values = building.metadata(
        tokenizer__ggml__tokens=("array", ("str", WORDS)),
        tokenizer__ggml__scores=("array", ("f32", [0.0] * len(WORDS))),
    )
    return building.gguf(values, BIG)


def sent(hub: HubServer, ending: str) -> int:
    return sum(size for path, size in hub.sent.items() if path.endswith(ending))


def header_size(data: bytes) -> int:
    weights = sum(building.size_of(shape, kind) for _, shape, kind in BIG)
    return len(data) - weights


def test_a_gguf_is_described_from_its_header_alone(
    hub: HubServer, whole: bytes, tmp_path: Path
) -> None:
    hub.add("owner/model", {"model-Q8_0.gguf": whole, "README.md": b"x"})
    facts = facts_for_plan("owner/model")
    file = tmp_path / "model-Q8_0.gguf"
    file.write_bytes(whole)
    here = read_model(file)
    assert (facts.tensors, facts.layers, facts.vocabulary) == (
        here.tensors,
        here.layers,
        here.vocabulary,
    )
    assert header_size(whole) > FIRST
    assert sent(hub, ".gguf") <= 2 * header_size(whole) + FIRST
    assert sent(hub, ".gguf") < 4 * MB < len(whole) / 5


def test_every_part_of_a_split_gguf_is_asked_for_its_header(hub: HubServer) -> None:
    tensors = (("blk.1.ffn_up.weight", (1024, 2048), "F16"),)
    parts = {}
    for number, held in enumerate((building.TENSORS, tensors)):
        counted = {
            "split__count": ("u16", 2), "split__no": ("u16", number), "split__tensors__count": ("i32", 5),
        }  # fmt: skip
        values = building.metadata(**counted)
        parts[f"m-Q4_K_M-0000{number + 1}-of-00002.gguf"] = building.gguf(values, held)
    hub.add("owner/split", {"config.json": b"{}", **parts})
    facts = facts_for_plan("owner/split", "Q4_K_M")
    assert len(facts.tensors) == 5
    assert facts.size == sum(building.size_of(s, k) for _, s, k in (*building.TENSORS, *tensors))
    assert sent(hub, ".gguf") <= 2 * FIRST + 10_000


def safetensors_of(config: dict[str, Any]) -> bytes:
    """A file with as many BF16 numbers as the config says, under names of its own."""
    from chatbot.memory.config import described

    tensors = {
        f"model.{number}.{tensor.name}": ("BF16", tensor.shape, 2 * tensor.elements)
        for number, tensor in enumerate(described(config, "x").tensors)
    }
    return building.safetensors(tensors)


def test_a_folder_on_the_hub_is_described_from_config_and_safetensors_headers(
    hub: HubServer,
) -> None:
    config = config_of("llama")
    data = safetensors_of(config)
    hub.add("owner/folder", {"config.json": json.dumps(config).encode(), "model.safetensors": data})
    facts = facts_for_plan("owner/folder")
    assert facts.format == "hf"
    assert facts.quantisation == "BF16"
    assert facts.size == 2 * facts.parameters
    assert len(data) > 5 * MB
    assert sent(hub, ".safetensors") <= SHARD
    small = facts_for_plan("owner/folder", "Q8_0")
    assert small.format == "gguf"
    assert small.size == pytest.approx(facts.parameters * 34 / 32, rel=0.01)
    assert sent(hub, ".safetensors") <= SHARD  # its type is another one: no file was asked again


def test_what_is_stored_goes_before_what_is_drawn(hub: HubServer) -> None:
    config = json.dumps({**building.CONFIG, "model_type": "tomorrow"}).encode()
    hub.add("owner/odd", {"config.json": config, "model.safetensors": building.safetensors(building.WEIGHTS)})  # fmt: skip
    facts = facts_for_plan("owner/odd")
    assert {tensor.name for tensor in facts.tensors} == set(building.WEIGHTS)
    assert not facts.estimated


def test_a_gated_repository_is_told_as_such(hub: HubServer) -> None:
    hub.add("owner/gated", {"config.json": json.dumps(building.CONFIG).encode(),
                            "model.safetensors": building.safetensors(building.WEIGHTS)}, gated="manual")  # fmt: skip
    with pytest.raises(GatedModel):
        facts_for_plan("owner/gated")


def test_program_code_is_refused_before_anything_else_is_read(hub: HubServer) -> None:
    config = {**building.CONFIG, "auto_map": {"AutoModel": "code.Model"}}
    hub.add("owner/code", {"config.json": json.dumps(config).encode(),
                           "model.safetensors": building.safetensors(building.WEIGHTS)})  # fmt: skip
    with pytest.raises(ModelError):
        facts_for_plan("owner/code")
    assert sent(hub, ".safetensors") == 0


def test_offline_nothing_is_asked(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_OFFLINE", "1")
    with pytest.raises(OfflineError):
        facts_for_plan("owner/model")
    assert not hub.seen


@pytest.mark.parametrize("fault", [closed_after(0.001), reset_after(0.001)])
def test_a_connection_that_breaks_is_asked_again(hub: HubServer, whole: bytes, fault: Any) -> None:
    hub.add("owner/model", {"model-Q8_0.gguf": whole})
    hub.faults.append(fault)
    assert len(facts_for_plan("owner/model").tensors) == len(BIG)


def test_a_hub_that_always_breaks_off_is_given_up(hub: HubServer, whole: bytes) -> None:
    hub.add("owner/model", {"model-Q8_0.gguf": whole})
    hub.faults.extend([reset_after(0.001)] * 20)
    with pytest.raises(HubError):
        facts_for_plan("owner/model")


def test_a_header_that_never_ends_ends_the_asking(hub: HubServer) -> None:
    endless = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + building.text("k") + struct.pack("<IIQ", 9, 8, 1 << 20)  # fmt: skip
    hub.add("owner/bad", {"bad-Q8_0.gguf": endless + bytes(3 * MB)})
    with pytest.raises(BrokenModel):
        facts_for_plan("owner/bad")


@pytest.mark.parametrize(
    "name",
    ["owner/model", "./owner/model", "/root/x", "model", "a/b/c", "C:\\x", "x/..", "~/model"],
)
def test_only_names_of_repositories_are_asked_for(name: str) -> None:
    assert is_repository(name) is (name == "owner/model")


def test_what_begins_like_a_folder_here_is_not_sent_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert not is_repository("models/secret-client")


@dataclass
class Stored:
    """A hub of one file, which counts what was asked of it."""

    data: bytes
    asked: int = 0

    def read(self, _model: RemoteModel, _path: str, start: int = 0, length: int = 4 * MB) -> bytes:
        self.asked += 1
        return self.data[start : start + length]


MODEL = RemoteModel("owner/model", "0" * 40, (), "", False, "", "", (), "", 0, "")
SEED = building.gguf()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_mutation_of_remote_bytes_raises_anything_but_a_refusal(data: st.DataObject) -> None:
    mutant = bytearray(SEED)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, min(len(mutant), 1200) - 1))
        if data.draw(st.booleans()):
            mutant[at] = data.draw(st.integers(0, 255))
        else:
            number = data.draw(st.sampled_from([0, 1, 0xFF, 1 << 31, (1 << 63) - 1, (1 << 64) - 1]))
            mutant[at : at + 8] = struct.pack("<Q", number)
    size = data.draw(st.sampled_from([len(mutant), 0, 100, 1 << 40]))
    stored = Stored(bytes(mutant[: data.draw(st.integers(0, len(mutant)))]))
    file = RemoteFile("m.gguf", size)
    with contextlib.suppress(ChatbotError):
        gguf_facts(stored, MODEL, [file])
    assert stored.asked <= 3


def test_the_command_plans_a_repository_that_is_not_here(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("llama")
    hub.add("owner/folder", {"config.json": json.dumps(config).encode(),
                             "model.safetensors": safetensors_of(config)})  # fmt: skip
    monkeypatch.setenv("HEARTH_DATA", str(tmp_path / "data"))
    asked = ["models", "plan", "owner/folder", "--context", "512", "--precision", "Q8_0", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "chatbot", *asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["backend"], plan["precision"], plan["context"]) == ("llama_cpp", "Q8_0", 512)
    assert plan["total"] == sum(plan["parts"].values())
    assert sent(hub, ".safetensors") == 0
