"""Which models belong together: what was made from what, and which base an adapter belongs to."""

from __future__ import annotations

from pathlib import Path

from chatbot.errors import ChatbotError, NotFoundError
from chatbot.models.store import ModelStore, in_files
from chatbot.types import ModelArtifact


def parent_of(store: ModelStore, model: ModelArtifact) -> ModelArtifact | None:
    """The model it was made from, where that is still here and as it was."""
    made = model.manifest.get("made") or {}
    try:
        parent = store.get(str(made.get("parent")))
    except NotFoundError:
        return None
    return parent if store.state(parent) == "ready" else None


def children_of(store: ModelStore, model_id: str) -> list[ModelArtifact]:
    """The models made from it."""
    return [
        model
        for model in store.list()
        if (model.manifest.get("made") or {}).get("parent") == model_id
    ]


def base_name(adapter: ModelArtifact) -> str:
    """The hub's name of the model that the adapter says it was trained on; '' where it names none."""
    from chatbot.models.hub import names_repository

    name = str((adapter.manifest.get("adapter") or {}).get("base", ""))
    return name if names_repository(name) else ""


def is_lora_file(model: ModelArtifact) -> bool:
    """Whether it is an adapter as a file for llama.cpp, whose base is a GGUF."""
    return model.format == "adapter" and in_files(model.manifest)


def bases_of(store: ModelStore, adapter: ModelArtifact) -> list[tuple[ModelArtifact, bool]]:
    """Every model on this PC of the form it needs, those first that the adapter fits, and whether it does."""
    from chatbot.memory.adapter import fits
    from chatbot.memory.headers import read_model

    change = read_model(Path(adapter.path))
    form = "gguf" if is_lora_file(adapter) else "hf"
    found = []
    for model in store.list():
        if model.format != form or model.role != "chat" or store.state(model) != "ready":
            continue
        name = str((model.manifest.get("origin") or {}).get("repo", ""))
        try:
            suited = fits(change, read_model(Path(model.path)), name)
        except ChatbotError:  # damaged since it was added; its card says so
            continue
        found.append((model, suited))
    return sorted(found, key=lambda pair: not pair[1])


def choose_base(store: ModelStore, adapter: ModelArtifact, base: ModelArtifact) -> None:
    """Have the adapter run beside that base from now on. Raises ModelError where it is made for another."""
    from chatbot.memory.adapter import check_fit
    from chatbot.memory.headers import read_model

    name = str((base.manifest.get("origin") or {}).get("repo", ""))
    check_fit(read_model(Path(adapter.path)), read_model(Path(base.path)), name)
    store.note(adapter.id, base=base.id)


def base_of(store: ModelStore, adapter: ModelArtifact) -> ModelArtifact | None:
    """The base that an adapter runs with unmerged, as the person chose it; None when it has none."""
    try:
        return store.get(str(adapter.manifest.get("base")))
    except NotFoundError:
        return None
