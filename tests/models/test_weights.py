"""Weights are written and read one tensor at a time, bit for bit, and in bounded memory."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from chatbot.errors import BrokenModel, DiskFullError
from chatbot.memory.facts import Tensor
from chatbot.memory.headers import read_model
from chatbot.models import weights as module
from chatbot.models.weights import Weights, Writer, kind_of
from tests.memory.building import folder as model_folder
from tests.models.preparing import same

KINDS = {
    "wide": torch.randn(700, 900),
    "half": torch.randn(7).half(),
    "brain": torch.tensor(3.5, dtype=torch.bfloat16),
    "nothing": torch.empty(0, 4),
    "mask": torch.tensor([True, False, True]),
    "places": torch.arange(5),
    "double": torch.randn(3, dtype=torch.float64),
}


def described(tensors: dict[str, torch.Tensor]) -> list[Tensor]:
    return [
        Tensor(name, tuple(t.shape), kind_of(t.dtype), t.numel() * t.element_size())
        for name, t in tensors.items()
    ]


@pytest.mark.parametrize("shard", [5_000_000_000, 1_000_000, 20])
def test_what_is_written_is_what_was_given(tmp_path: Path, shard: int) -> None:
    with Writer(tmp_path, described(KINDS), shard) as writer:
        for tensor in writer.tensors:
            writer.put(tensor.name, KINDS[tensor.name].reshape(-1).split(1000))
    found = {}
    for file in tmp_path.glob("*.safetensors"):
        found |= load_file(file)
    assert same(found, KINDS)
    reader = Weights(tmp_path)
    assert same({name: reader.tensor(name) for name in KINDS}, KINDS)
    for file in writer.files:
        content = (tmp_path / file.name).read_bytes()
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert file.modified_ns == (tmp_path / file.name).stat().st_mtime_ns
    assert {file.name for file in writer.files} == {file.name for file in tmp_path.iterdir()}


def test_shards_are_called_and_indexed_as_on_the_hub(tmp_path: Path) -> None:
    with Writer(tmp_path, described(KINDS), shard=1_000_000) as writer:
        for tensor in writer.tensors:
            writer.put(tensor.name, [KINDS[tensor.name]])
    assert writer.files[-1].name == "model.safetensors.index.json"
    index = json.loads((tmp_path / writer.files[-1].name).read_text("utf-8"))
    assert index["metadata"]["total_size"] == sum(t.size for t in writer.tensors)
    assert set(index["weight_map"]) == set(KINDS)
    assert set(index["weight_map"].values()) == {file.name for file in writer.files[:-1]}
    assert writer.files[0].name.startswith("model-00001-of-0000")


def test_the_file_says_how_it_is_meant_and_no_device(tmp_path: Path) -> None:
    from safetensors import safe_open

    with Writer(tmp_path, described(KINDS)) as writer:
        for tensor in writer.tensors:
            writer.put(tensor.name, [KINDS[tensor.name]])
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_pieces_are_bounded(tmp_path: Path) -> None:
    save_file({"a": torch.randn(1_000_000)}, tmp_path / "model.safetensors")
    blocks = list(Weights(tmp_path).blocks("a"))
    assert len(blocks) == 4
    assert max(b.numel() * b.element_size() for b in blocks) <= module.PIECE


def test_another_order_or_size_than_announced_is_an_error(tmp_path: Path) -> None:
    tensors = described({"a": torch.zeros(4), "b": torch.zeros(4)})
    with (
        pytest.raises(ValueError, match="b is not the tensor"),
        Writer(tmp_path, tensors) as writer,
    ):
        writer.put("b", [torch.zeros(4)])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="a has another size"), Writer(tmp_path, tensors) as writer:
        writer.put("a", [torch.zeros(3)])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="a was not written"), Writer(tmp_path, tensors):
        pass


def test_a_full_disk_is_said_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._Hashed, "write", full)
    tensors = described({"a": torch.zeros(30_000_000)})
    with pytest.raises(DiskFullError), Writer(tmp_path, tensors) as writer:
        writer.put("a", torch.zeros(30_000_000).split(1000))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.randn(1_000_000)}, tmp_path / "model.safetensors")
    reader = Weights(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(3_000_000)
    with pytest.raises(BrokenModel, match="changed while they were read"):
        list(reader.blocks("a"))


def test_a_cut_shard_is_refused_before_work(tmp_path: Path) -> None:
    model_folder(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BrokenModel, match=r"model\.safetensors"):
        Weights(tmp_path)
    with pytest.raises(BrokenModel):
        read_model(tmp_path)


MEASURED = """
import sys, torch
from pathlib import Path
from chatbot.hardware.process import peak
from chatbot.models.weights import Weights, Writer
torch.zeros(1 << 20).half()
before = peak()
weights = Weights(Path(sys.argv[1]))
with Writer(Path(sys.argv[2]), weights.tensors) as writer:
    for tensor in writer.tensors:
        writer.put(tensor.name, weights.blocks(tensor.name))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_copying_takes_the_memory_of_some_blocks(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    save_file({"a": torch.ones(60_000_000)}, tmp_path / "model.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path), str(tmp_path / "out")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(done.stdout) < 60 << 20  # of 240 MB
