"""The models on this PC that could answer in place of one: smaller versions of it, made or to be made, and others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from chatbot.errors import ChatbotError
from chatbot.memory.facts import ModelFacts
from chatbot.memory.headers import read_model
from chatbot.memory.relief import Other
from chatbot.models.ladder import WELL, as_quantised
from chatbot.models.relations import parent_of
from chatbot.models.store import ModelStore
from chatbot.types import ModelArtifact

_FLOATS = ("F32", "F16", "BF16")


def others_than(store: ModelStore, model: ModelArtifact) -> list[Other]:
    """Every other model that could answer; those not ready or whose check failed are left out."""
    return [*_on_disk(store, model), *_to_make(store, model)]


def _on_disk(store: ModelStore, model: ModelArtifact) -> Iterator[Other]:
    family = _family(store, model)
    for other in store.list():
        if other.id == model.id or other.role != "chat" or other.format not in ("gguf", "hf"):
            continue
        verdict = (other.manifest.get("verdict") or {}).get("verdict")
        facts = _facts(other) if store.state(other) == "ready" and verdict != "fail" else None
        if facts:
            same = _family(store, other) == family
            yield Other(other.id, facts, other.name, same=same)


def _to_make(store: ModelStore, model: ModelArtifact) -> Iterator[Other]:
    """The quantisations that could be made of it, or of what it was made from."""
    source: ModelArtifact | None = model
    while source and not _can_be_quantised(source):
        source = parent_of(store, source)
    facts = _facts(source) if source else None
    if source and facts:
        for wanted in WELL:
            made = as_quantised(facts, wanted)
            yield Other(source.id, made, source.name, same=True, type=wanted)


def _can_be_quantised(model: ModelArtifact) -> bool:
    quantisation = str(model.manifest.get("quantisation", "")).upper()
    return model.format in ("gguf", "hf") and quantisation in _FLOATS


def _family(store: ModelStore, model: ModelArtifact) -> str:
    """What all versions of one model share: the one they were made from, or the repository they came from."""
    while parent := parent_of(store, model):
        model = parent
    repo = (model.manifest.get("origin") or {}).get("repo")
    return f"{repo} {model.parameters}" if repo else model.id


def _facts(model: ModelArtifact) -> ModelFacts | None:
    try:
        return read_model(Path(model.path))
    except ChatbotError:  # damaged since it was added; its card says so
        return None
