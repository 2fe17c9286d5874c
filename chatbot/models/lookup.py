"""What a repository of the hub is, before it is fetched: its commit, what to download, and what has to follow."""

from __future__ import annotations

from dataclasses import dataclass

from chatbot.models.catalog import best_quantisation
from chatbot.models.fetching import ADAPTER, base_of, needed, quantisations, role_of
from chatbot.models.hub import Hub, RemoteModel
from chatbot.types import Hardware, ModelRole


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository at one commit; `size` is all that is fetched of it, `base` belongs to an adapter."""

    repo: str
    revision: str
    file: str | None
    size: int
    parameters: int
    role: ModelRole
    gguf: bool = False
    licence: str = ""
    gated: bool = False
    base: Remote | None = None


def look_up(
    repo: str,
    hardware: Hardware,
    *,
    revision: str | None = None,
    file: str | None = None,
    type_: str = "auto",
    role: ModelRole | None = None,
) -> Remote:
    """Ask the hub. Of several GGUF files the one of `type_` is taken; of 'auto' the best that fits, else the smallest.

    Raises OfflineError, HubError, GatedModel, and ModelError for a repository without a model.
    """
    with Hub() as hub:
        model = hub.model(repo, revision or "main")
        names = {one.path for one in model.files}
        if ADAPTER in names and not file:
            base_repo, base_revision = base_of(hub, model)
            base = _remote(hub.model(base_repo, base_revision), None, "chat")
            return _remote(model, None, "chat", base)
        choices = quantisations(model)
        if not file and len(choices) > 1 and "config.json" not in names:
            named = next((one for one in choices if one.type == type_), None)
            file = (named or best_quantisation(hub, model, hardware) or choices[0]).file
        return _remote(model, file, role or role_of(model))


def _remote(
    model: RemoteModel, file: str | None, role: ModelRole, base: Remote | None = None
) -> Remote:
    files = needed(model, file)
    return Remote(
        repo=model.repo,
        revision=model.revision,
        file=file,
        size=sum(one.size for one in files),
        parameters=model.parameters,
        role=role,
        gguf=any(one.path.lower().endswith(".gguf") for one in files),
        licence=model.licence,
        gated=bool(model.gated),
        base=base,
    )
