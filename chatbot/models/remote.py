"""What a model on the hub is, from its config.json and the first bytes of its files; never its weights.

A safetensors header is asked for by its length, a GGUF header in growing pieces until it is whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.config import described
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.folder import (
    declared_tensors,
    has_head,
    header_length,
    key_for_code,
    main_type,
    read_config,
)
from chatbot.memory.footprint import PRECISIONS
from chatbot.memory.gguf import GgufHeader, read_start
from chatbot.memory.headers import assembled, read_or_draw
from chatbot.memory.outline import outlined
from chatbot.models.fetching import file_of_type, needed, quantisations, small_json
from chatbot.models.hub import REPOSITORY, Hub

if TYPE_CHECKING:
    from chatbot.models.hub import RemoteFile, RemoteModel

FIRST = 256_000
"""Bytes of a GGUF asked for at first: its geometry; vocabulary and tensors come after it."""
MOST = 64_000_000
"""No vocabulary makes a header this long."""
SHARD = 64_000
"""Bytes of a safetensors file asked for at first: nearly every shard's whole header."""


def facts_for_plan(
    source: str, precision: str = "", backend: str = "", file: str | None = None
) -> ModelFacts:
    """What to plan for: a path on this PC, also of a folder with only config.json, or a repository of the hub.

    `precision` names a GGUF type, such as Q4_K_M, that the model would be made into, or that is chosen among
    a repository's; fp32, bf16 and fp16 are left to the plan. Of a hub's GGUF files without one, the smallest.
    With `backend` llama_cpp a folder is planned as the F16 file it would become. Of the hub only headers are
    read. Raises OfflineError, HubError, GatedModel, ModelError, BrokenModel, SettingsError.
    """
    kind = "" if precision in PRECISIONS else precision.upper()
    path = Path(source)
    if path.exists() or not is_repository(source):
        facts = read_or_draw(path)
        if kind and facts.format == "gguf":
            return facts if facts.quantisation == kind else outlined(facts, kind, gguf=True)
        if facts.format == "hf" and (kind or backend == "llama_cpp"):
            return outlined(read_config(path), kind or "F16", gguf=True)
        return facts
    with Hub() as hub:
        model = hub.model(source)
        choices = quantisations(model)
        if kind and choices and not file:
            file = file_of_type(model, kind)
        if file or (choices and all(one.path != "config.json" for one in model.files)):
            return facts_on_hub(hub, model, file or choices[0].file)
        if kind or backend == "llama_cpp":
            drawn = described(small_json(hub, model, "config.json"), model.repo)
            return outlined(drawn, kind or "F16", gguf=True)
        return facts_on_hub(hub, model)


def is_repository(source: str) -> bool:
    """Whether it is named as the hub names repositories, and nothing on this PC begins like it."""
    owner, _, name = source.partition("/")
    return bool(name and REPOSITORY.fullmatch(source)) and not Path(owner).exists()


class Reading(Protocol):
    """The one thing that is asked of a hub here."""

    def read(self, model: RemoteModel, path: str, start: int = 0, length: int = ...) -> bytes: ...


def facts_on_hub(hub: Hub, model: RemoteModel, file: str | None = None) -> ModelFacts:
    """The model of that repository; `file` chooses one GGUF (the first part of a split one).

    Raises BrokenModel, ModelError for what cannot be used, HubError and GatedModel.
    """
    files = needed(model, file)
    parts = [one for one in files if one.path.lower().endswith(".gguf")]
    if parts:
        return gguf_facts(hub, model, sorted(parts, key=lambda one: one.path))
    config = small_json(hub, model, "config.json")
    if key := key_for_code(config):
        raise ModelError(
            N_("it asks for program code of its own ({part}), and Hearth never runs a model's code."),
            name=model.repo,
            part=f"config.json: {key}",
        )  # fmt: skip
    facts = described(config, model.repo)
    shards = [one for one in files if one.path.endswith(".safetensors")]
    tensors = tuple(t for one in shards for t in _safetensors(hub, model, one)) or facts.tensors
    return replace(
        facts,
        path=model.repo,
        files=tuple(one.path for one in shards),
        quantisation=main_type(tensors),
        tensors=tensors,
        tied=not has_head(tensors) if shards else facts.tied,
        estimated=facts.estimated and not shards,
    )


def gguf_facts(hub: Reading, model: RemoteModel, parts: list[RemoteFile]) -> ModelFacts:
    """The model in these GGUF files, all the parts of one, from their headers."""
    paths: list[Path] = [_named(model, part) for part in parts]
    return assembled(paths, [_header(hub, model, part) for part in parts])


def _header(hub: Reading, model: RemoteModel, file: RemoteFile) -> GgufHeader:
    start, length = b"", FIRST
    while True:
        piece = hub.read(model, file.path, len(start), length)
        start += piece
        header = read_start(start, file.size, PurePosixPath(file.path).name)
        if header.complete:
            return header
        if not piece or len(start) >= min(MOST, file.size):
            raise BrokenModel(
                N_("the file ends before its header does; the copy is incomplete."), name=file.path
            )
        length = len(start)


def _safetensors(hub: Reading, model: RemoteModel, file: RemoteFile) -> list[Tensor]:
    named = _named(model, file)
    start = hub.read(model, file.path, 0, SHARD)
    end = 8 + header_length(start[:8], file.size, named)
    if len(start) < end:
        start += hub.read(model, file.path, len(start), end - len(start))
    return declared_tensors(start[8:end], file.size, named)


def _named(model: RemoteModel, file: RemoteFile) -> Path:
    """What the file would be called on this disk, for messages and for the names of parts."""
    return Path(model.repo) / PurePosixPath(file.path).name
