"""What a model on the hub is, from its config.json and the first bytes of its files; never its weights.

A safetensors header is asked for by its length, a GGUF header in growing pieces until it is whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from chatbot.errors import BrokenModel, ModelError
from chatbot.i18n import N_
from chatbot.memory.config import described
from chatbot.memory.facts import ModelFacts, Tensor
from chatbot.memory.folder import (
    DTYPES,
    declared_tensors,
    has_head,
    header_length,
    key_for_code,
    main_type,
)
from chatbot.memory.gguf import GgufHeader, read_start
from chatbot.memory.headers import assembled
from chatbot.memory.outline import outlined
from chatbot.models.fetching import file_of_type, needed, quantisations, small_json
from chatbot.models.hub import Hub, names_repository

if TYPE_CHECKING:
    from chatbot.models.hub import RemoteFile, RemoteModel

FIRST = 256_000
"""Bytes of a GGUF asked for at first: its geometry; vocabulary and tensors come after it."""
MOST = 64_000_000
"""No vocabulary makes a header this long."""
SHARD = 64_000
"""Bytes of a safetensors file asked for at first: nearly every shard's whole header."""


def facts_for_plan(repo: str, kind: str = "", file: str | None = None) -> ModelFacts:
    """What to plan for of a repository of the hub, from headers alone.

    Of GGUF files the one of type `kind` (Q4_K_M where none is named, else the smallest), or `file`; of a
    repository without them the folder, or with `kind` the GGUF that it would become.
    Raises OfflineError, HubError, GatedModel, ModelError, BrokenModel, SettingsError.
    """
    with Hub() as hub:
        model = hub.model(repo)
        choices = quantisations(model)
        if choices and not file and (kind or not any(f.path == "config.json" for f in model.files)):
            usual = next((one for one in choices if one.type == "Q4_K_M"), choices[0])
            file = file_of_type(model, kind) if kind else usual.file
        if kind and not file:
            return outlined(described(_config(hub, model), model.repo), kind, gguf=True)
        return facts_on_hub(hub, model, file)


def is_repository(source: str) -> bool:
    """Whether it is named as the hub names repositories, and nothing on this PC begins like it."""
    return names_repository(source) and not Path(source.partition("/")[0]).exists()


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
    stored = tuple(tensor for one in shards for tensor in _safetensors(hub, model, one))
    tensors, estimated = facts.tensors, facts.estimated
    if stored:
        tensors, estimated = _agreeing(tensors, stored), False
    return replace(
        facts,
        path=model.repo,
        quantisation=main_type(tensors),
        tensors=tensors,
        tied=not has_head(tensors),
        estimated=estimated,
    )


def _agreeing(drawn: tuple[Tensor, ...], stored: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The drawn tensors, whose names GGUF rules know, where they hold as many numbers as the stored ones."""
    numbers = sum(tensor.elements for tensor in stored)
    kind = main_type(stored)
    width = DTYPES[kind]
    alike = abs(sum(tensor.elements for tensor in drawn) - numbers) <= numbers / 1000
    if not alike or abs(sum(tensor.size for tensor in stored) - width * numbers) > numbers / 100:
        return stored
    return tuple(replace(tensor, type=kind, size=width * tensor.elements) for tensor in drawn)


def _config(hub: Hub, model: RemoteModel) -> dict[str, Any]:
    config = small_json(hub, model, "config.json")
    if key := key_for_code(config):
        raise ModelError(
            N_("it asks for program code of its own ({part}), and Hearth never runs a model's code."),
            name=model.repo,
            part=f"config.json: {key}",
        )  # fmt: skip
    return config


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
