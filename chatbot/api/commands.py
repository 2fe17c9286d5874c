"""What the command line can ask of an owner: each a function (services, params) → a JSON-able dict.

The same functions serve `python -m chatbot …` when it is the owner itself and when it speaks to a
running one through `POST /api/command`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from chatbot.chat.answer import summary
from chatbot.chat.history import error_text
from chatbot.errors import ChatbotError, NotFoundError
from chatbot.jobs import error_of
from chatbot.library.store import DocumentStore
from chatbot.services import Services
from chatbot.types import (
    ConversationSettings,
    Document,
    GenerationOptions,
    Language,
    ModelArtifact,
    SearchFilter,
    SearchResult,
)

Params = dict[str, Any]


def ask(services: Services, params: Params) -> Params:
    """Answer one question outside the history."""
    services.wait_until_read()
    settings = ConversationSettings(
        model=params.get("model"),
        scope=params.get("documents") or "only",
        filter=_filter(params),
        options=GenerationOptions(
            temperature=params.get("temperature", 0.3), seed=params.get("seed")
        ),
    )
    conversation = services.incognito.create(settings)
    try:
        message = services.answers.ask(conversation.id, params["question"]).wait()
    finally:
        services.incognito.purge(conversation.id)
    if message.state == "failed":
        raise ChatbotError(error_text(message, "en"))
    return summary(message)


def search(services: Services, params: Params) -> Params:
    """The best passages for a query."""
    services.wait_until_read()
    found = services.search.find(
        params["query"],
        _filter(params),
        limit=params.get("limit", 8),
        mode=params.get("mode", "hybrid"),
    )
    return {"results": [_result(r) for r in found.results]}


def documents_add(services: Services, params: Params) -> Params:
    """Add files and folders and wait until each is read or refused."""
    paths = [Path(p) for p in params["paths"]]
    if missing := [str(p) for p in paths if not p.exists()]:
        raise NotFoundError(", ".join(missing))
    added = services.add_documents(paths, collection=params.get("collection") or "documents")
    services.wait_until_read(threading.TIMEOUT_MAX)
    rows = [replace(services.store.get(found.id), name=found.name) for found in added]
    return {"documents": [document_row(row) for row in rows]}


def documents_list(services: Services, params: Params) -> Params:
    """Every document, of one collection or all."""
    return {
        "documents": [
            document_row(d) for d in services.store.list(collection=params.get("collection"))
        ]
    }


def documents_remove(services: Services, params: Params) -> Params:
    """Erase one document: file, text, vectors."""
    document = services.store.get(params["id"])
    services.ingest.purge(document.id)
    services.index.wait_ready(3600)
    return {"removed": document.id, "document": document.name}


def documents_check(services: Services, _params: Params) -> Params:
    """Whether the search index holds exactly what the database holds."""
    services.index.wait_ready(600)
    return services.index_status()


def documents_rebuild(services: Services, _params: Params) -> Params:
    """Build the search index anew from the database."""
    services.index.rebuild()
    services.index.wait_ready(3600)
    return services.index_status()


def models_list(services: Services, _params: Params) -> Params:
    """Every model, and which one is loaded."""
    loaded = services.engines.loaded
    return {
        "models": [_model(m) for m in services.models.list()],
        "loaded": loaded.spec.model_id if loaded else None,
    }


def models_import(services: Services, params: Params) -> Params:
    """Take a GGUF file or model folder into the list: {id, path, format}."""
    job = services.import_model_from(Path(params["path"]), link=not params.get("copy", False))
    job = services.jobs.wait(job.id)
    if error := error_of(job):
        raise error
    model = services.models.get(job.message)
    return {"id": model.id, "path": model.path, "format": model.format}


def models_load(services: Services, params: Params) -> Params:
    """Load a model and say how it runs."""
    engine = services.load_model(
        params["id"], anyway=params.get("anyway", False), **_wishes(params)
    )
    return asdict(engine.info)


def models_unload(services: Services, _params: Params) -> Params:
    """Free the loaded model's memory."""
    services.engines.unload()
    return {"loaded": None}


def models_remove(services: Services, params: Params) -> Params:
    """Take a model off the list."""
    services.remove_model(params["id"])
    return {"removed": params["id"]}


def jobs_list(services: Services, _params: Params) -> Params:
    """Long work, the latest first."""
    return {"jobs": [asdict(j) for j in services.jobs.list()]}


def jobs_cancel(services: Services, params: Params) -> Params:
    """End a piece of long work."""
    services.jobs.cancel(params["id"])
    return {"cancelled": params["id"]}


COMMANDS: dict[str, Callable[[Services, Params], Params]] = {
    "ask": ask,
    "search": search,
    "documents add": documents_add,
    "documents list": documents_list,
    "documents remove": documents_remove,
    "documents check": documents_check,
    "documents rebuild": documents_rebuild,
    "models list": models_list,
    "models import": models_import,
    "models load": models_load,
    "models unload": models_unload,
    "models remove": models_remove,
    "jobs list": jobs_list,
    "jobs cancel": jobs_cancel,
}


def document_row(document: Document, language: Language = "en") -> Params:
    """One document as the command line prints it; `error` and `warning` null or a sentence."""
    return {
        "id": document.id,
        "document": document.name,
        "collection": document.collection,
        "state": document.state,
        "pages": document.pages,
        "passages": document.passages,
        "language": document.language,
        "error": DocumentStore.error_text(document, language),
        "warning": DocumentStore.warning_text(document, language),
    }


def _filter(params: Params) -> SearchFilter:
    collection = params.get("collection")
    return SearchFilter(collections=(collection,) if collection else ())


def _result(result: SearchResult) -> Params:
    return {
        "document": result.document,
        "page": result.passage.page,
        "path": result.passage.path,
        "text": result.passage.text,
        "score": round(result.score, 4),
    }


def _wishes(params: Params) -> Params:
    names = ("context", "kv_type", "batch", "backend")
    return {name: params[name] for name in names if params.get(name) is not None}


def _model(model: ModelArtifact) -> Params:
    row = asdict(model)
    row.pop("manifest")
    return row
