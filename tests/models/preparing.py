"""What the tests of preparing share: small model folders, a listener, and what torch itself would do."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from chatbot.models.fp16 import prepare

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Heard:
    """A report that keeps what it was told."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.messages: list[str] = []

    def __call__(self, fraction: float, message: str = "", **values: Any) -> None:
        self.fractions.append(fraction)
        if message and (not self.messages or self.messages[-1] != message.format(**values)):
            self.messages.append(message.format(**values))


def prepared(source: Path, target: Path, **params: Any) -> dict[str, Any]:
    """The figures of preparing `source` into the new folder `target`; every file has the hash it says."""
    target.mkdir()
    done = prepare(Heard(), source=source, target=target, **params)
    for file in done["files"]:
        content = (target / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["size"] == len(content)
    assert {file["name"] for file in done["files"]} == {file.name for file in target.iterdir()}
    figures: dict[str, Any] = done["figures"]
    return figures


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model folder's safetensors, read by their own library."""
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether both hold the same names, shapes, types and bits."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and torch.equal(bits(one[name]), bits(other[name]))
        for name in one
    )


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def with_weights(folder: Path, target: Path, changes: Mapping[str, Any], **config: Any) -> Path:
    """A copy of that model folder with other tensors (None drops one) and settings."""
    shutil.copytree(folder, target)
    found = weights(folder) | dict(changes)
    save_file({name: t for name, t in found.items() if t is not None}, target / "model.safetensors")
    change(target / "config.json", **config)
    return target


def as_pytorch(folder: Path, target: Path, name: str, content: Any = None) -> Path:
    """A copy of that model folder whose weights are a PyTorch file of that name."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    torch.save(weights(folder) if content is None else content, target / name)
    return target


def change(file: Path, **values: Any) -> None:
    """Write those values into a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}), "utf-8")


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file's hash and time."""
    return {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in folder.iterdir()
    }
