"""What the command line can ask of an owner: each a function of the services and named parameters → a JSON-able dict.

The same functions serve `python -m chatbot …` when it is the owner itself and when it speaks to a
running one through `POST /api/command`; `run` checks names and kinds of the parameters for both.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import date, timedelta
from inspect import signature
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from chatbot.api import model_commands
from chatbot.chat.answer import summary
from chatbot.errors import Cancelled, ChatbotError, NotFoundError, SettingsError
from chatbot.evaluation.exchange import export_questions, import_questions
from chatbot.evaluation.retrieval import difference_table
from chatbot.evaluation.runs import Configuration
from chatbot.jobs import error_of
from chatbot.library.documents import failure_text, warning_text
from chatbot.library.links import LinkedFolder
from chatbot.library.listing import KINDS
from chatbot.library.register import Standing
from chatbot.services import Services
from chatbot.text import fold
from chatbot.types import (
    ConversationSettings,
    Document,
    Job,
    Language,
    Scope,
    SearchFilter,
    SearchMode,
    SearchResult,
)

Result = dict[str, Any]

MOST_RESULTS = 100


def run(services: Services, name: str, params: dict[str, Any]) -> Result:
    """Do one command. Raises NotFoundError and SettingsError for what no command understands."""
    command = COMMANDS.get(name)
    if command is None:
        raise NotFoundError(name)
    return command(services, **_checked(command, params))


def ask(
    services: Services,
    question: str,
    collection: str | None = None,
    model: str | None = None,
    documents: Scope = "only",
) -> Result:
    """Answer one question outside the history."""
    services.wait_until_read()
    settings = ConversationSettings(model=model, scope=documents, filter=_filter(collection))
    conversation = services.incognito.create(settings)
    try:
        message = services.answers.ask(conversation.id, question).last()
    finally:
        services.incognito.purge(conversation.id)
    if message.error:
        raise ChatbotError.from_json(message.error)
    return summary(message)


def search(
    services: Services,
    query: str,
    collection: str | None = None,
    mode: SearchMode = "hybrid",
    limit: int = 8,
    type: str | None = None,  # noqa: A002  as the command line names it
    issued_after: str | None = None,
    in_force_on: str | None = None,
    rerank: bool = False,
) -> Result:
    """The best passages for a query, of documents of that type and those dates (ISO); articles they point to."""
    if not 1 <= limit <= MOST_RESULTS:
        raise SettingsError(f"limit = {limit}")
    media_types, kinds = _type(services, type)
    wanted = replace(
        _filter(collection),
        media_types=media_types,
        kinds=kinds,
        issued_from=_day(issued_after, 1),
        in_force_on=_day(in_force_on),
    )
    services.wait_until_read()
    found = services.search.find(query, wanted, limit=limit, mode=mode, rerank=rerank)
    return {
        "results": [_result(r) for r in found.results],
        "referred": [_result(r) for r in services.search.referred(found.results)],
        **({"question": found.question} if found.question else {}),
    }


def documents_add(services: Services, paths: list[str], collection: str = "documents") -> Result:
    """Add files and folders and wait until each is read or refused."""
    files = [Path(path) for path in paths]
    if missing := [str(file) for file in files if not file.exists()]:
        raise NotFoundError(", ".join(missing))
    added = services.add_documents(files, collection)
    services.wait_until_read(threading.TIMEOUT_MAX)
    rows = [replace(services.store.get(found.id), name=found.name) for found in added]
    return {"documents": [document_row(row) for row in rows]}


def documents_watch(services: Services, path: str, collection: str = "documents") -> Result:
    """Link a folder, take in what is there, and wait until it is read."""
    done = _synced(services, [services.folders.link(Path(path), collection)])
    services.folders.look()  # and watch it from now on
    return done


def documents_sync(services: Services, remove_missing: bool = False) -> Result:
    """Compare every linked folder with the library; with `remove_missing` what is gone goes to the trash."""
    return _synced(services, services.folders.list(), remove_missing=remove_missing)


def documents_unwatch(services: Services, path: str, remove: bool = False) -> Result:
    """End a link; its documents stay, or go to the trash."""
    folder = services.folders.at(Path(path))
    removed = services.folders.unlink(folder.id, remove=remove)
    return {"unlinked": folder.path, "removed": list(removed)}


def documents_list(services: Services, collection: str | None = None) -> Result:
    """Every document, of one collection or all."""
    documents = services.store.list(collection)
    standing = services.register.standing([d.id for d in documents])
    return {"documents": [{**document_row(d), **_facts(d, standing)} for d in documents]}


def documents_remove(services: Services, id: str) -> Result:  # noqa: A002  as clients name it
    """Erase one document: file, text, vectors."""
    document = services.store.get(id)
    services.ingest.purge(document.id)
    return {"removed": document.id, "document": document.name}


def documents_export(services: Services, path: str, collection: str | None = None) -> Result:
    """Write a collection, or all documents, into one file: {file, documents, passages, vectors, size}."""
    job = services.jobs.wait(services.export_documents(Path(path), collection).id)
    return {"file": path, **_done(job)}


def documents_import(services: Services, path: str, collection: str | None = None) -> Result:
    """Take in an exported file and wait until all of it is searched: {documents, doubles, unread, without_vectors}."""
    job = services.jobs.wait(services.import_documents(Path(path), collection).id)
    done = _done(job)
    services.wait_until_read(threading.TIMEOUT_MAX)
    return done


def _done(job: Job) -> Result:
    if error := error_of(job):
        raise error
    if job.state == "cancelled":
        raise Cancelled
    done: Result = json.loads(job.message)
    return done


def documents_check(services: Services) -> Result:
    """Whether the search index holds exactly what the database holds."""
    services.index.wait_ready(600)
    return services.index_status()


def documents_rebuild(services: Services) -> Result:
    """Build the search index anew from the database."""
    services.index.rebuild()
    services.index.wait_ready(3600)
    return services.index_status()


def evaluate_questions(
    services: Services,
    mode: SearchMode = "hybrid",
    compare: SearchMode | None = None,
    rerank: bool = False,
) -> Result:
    """Ask the person's own questions; `compare` adds another mode's figures and the paired differences."""
    services.wait_until_read()
    chosen = [Configuration(mode, rerank), *([Configuration(compare)] if compare else [])]
    job = services.jobs.wait(services.evaluate(chosen).id)
    if error := error_of(job):
        raise error
    if job.state != "done":
        raise Cancelled
    first, *others = (services.quality.runs.get(each) for each in job.params["runs"])
    result = {
        "mode": mode,
        "embedder": first.embedder,
        "lost": len(services.quality.questions.cases()[1]),
        **first.figures,
    }
    for other in others:
        compared = services.quality.runs.compare(first.id, other.id)
        result["compared"] = {"mode": compare, **other.figures}
        result["difference"] = difference_table(compared.differences)
    return result


def evaluate_import(services: Services, path: str) -> Result:
    """Add the questions of a CSV or JSONL file, and say which rows cannot be used."""
    file = Path(path)
    if not file.is_file():
        raise NotFoundError(path)
    services.wait_until_read()
    found = import_questions(services.quality.questions, services.store, file.read_bytes())
    bad = [{"line": row.line, "error": row.text("en")} for row in found.bad]
    return {"added": found.added, "known": found.known, "bad": bad}


def evaluate_export(services: Services) -> Result:
    """The person's questions as CSV text."""
    return {"csv": export_questions(services.quality.questions, services.store)}


def jobs_list(services: Services) -> Result:
    """Long work, the latest first."""
    return {"jobs": [asdict(j) for j in services.jobs.list()]}


def jobs_show(services: Services, id: str) -> Result:  # noqa: A002  as clients name it
    """One piece of long work, its steps and the tail of its log."""
    return asdict(services.jobs.job(id))


def jobs_cancel(services: Services, id: str) -> Result:  # noqa: A002  as clients name it
    """End a piece of long work."""
    services.jobs.cancel(id)
    return {"cancelled": id}


def jobs_pause(services: Services, id: str) -> Result:  # noqa: A002  as clients name it
    """End a piece of long work for now."""
    services.jobs.pause(id)
    return {"paused": id}


def jobs_again(services: Services, id: str) -> Result:  # noqa: A002  as clients name it
    """Go on with work that was paused, cancelled or went wrong; finished steps stay done."""
    services.jobs.again(id)
    return {"waiting": id}


COMMANDS: dict[str, Callable[..., Result]] = {
    "ask": ask,
    "search": search,
    "documents add": documents_add,
    "documents watch": documents_watch,
    "documents sync": documents_sync,
    "documents unwatch": documents_unwatch,
    "documents list": documents_list,
    "documents remove": documents_remove,
    "documents export": documents_export,
    "documents import": documents_import,
    "documents check": documents_check,
    "documents rebuild": documents_rebuild,
    **model_commands.COMMANDS,
    "evaluate questions": evaluate_questions,
    "evaluate import": evaluate_import,
    "evaluate export": evaluate_export,
    "jobs list": jobs_list,
    "jobs show": jobs_show,
    "jobs cancel": jobs_cancel,
    "jobs pause": jobs_pause,
    "jobs again": jobs_again,
}


def _checked(command: Callable[..., Result], params: dict[str, Any]) -> dict[str, Any]:
    kinds = get_type_hints(command)
    known = dict(list(signature(command).parameters.items())[1:])
    if unknown := params.keys() - known.keys():
        raise SettingsError(", ".join(sorted(unknown)))
    for name, parameter in known.items():
        if name in params and not _fits(params[name], kinds[name]):
            raise SettingsError(f"{name} = {str(params[name])[:60]}")
        if name not in params and parameter.default is parameter.empty:
            raise SettingsError(f"{name} = ?")
    return params


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value out of JSON is of that kind: a class, a list, a Literal or a union of them."""
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if isinstance(kind, UnionType) or get_origin(kind) is Union:  # Literal | None is the latter
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(one, *get_args(kind)) for one in value)
    return type(value) is kind  # so that True is no int


def _synced(
    services: Services, folders: list[LinkedFolder], *, remove_missing: bool = False
) -> Result:
    """What became of these folders: paths by kind, the rows of what was taken in, how each folder stands."""
    reports = [services.folders.sync(folder.id) for folder in folders if not folder.paused]
    removed: list[str] = []
    for folder in folders if remove_missing else ():
        removed += [file.path for file in services.folders.missing(folder.id)]
        services.folders.remove_missing(folder.id)
    ids = [document_id for report in reports for document_id in report.documents]
    if ids or services.jobs.list(active=True, kind="ingest"):
        services.wait_until_read(threading.TIMEOUT_MAX)
    chosen = {folder.id for folder in folders}
    return {
        "added": [path for r in reports for path in r.added],
        "changed": [path for r in reports for path in r.changed],
        "renamed": [{"from": old, "to": new} for r in reports for old, new in r.renamed.items()],
        "missing": [path for r in reports for path in r.missing if path not in set(removed)],
        "removed": removed,
        "unreadable": [path for r in reports for path in r.unreadable],
        "unreachable": [report.folder for report in reports if not report.reachable],
        "documents": [document_row(services.store.get(d)) for d in services.store.named(ids)],
        "folders": [_folder(f) for f in services.folders.list() if f.id in chosen],
    }


def _folder(folder: LinkedFolder) -> Result:
    return {
        "path": folder.path,
        "collection": folder.collection,
        "state": folder.state,
        "files": folder.files,
        "missing": folder.missing,
        "synced_at": folder.synced_at,
    }


def document_row(document: Document, language: Language = "en") -> Result:
    """One document as the command line prints it; `error` and `warning` null or a sentence."""
    return {
        "id": document.id,
        "document": document.name,
        "collection": document.collection,
        "state": document.state,
        "pages": document.pages,
        "passages": document.passages,
        "language": document.language,
        "error": failure_text(document, language),
        "warning": warning_text(document, language),
    }


def _facts(document: Document, standing: Mapping[str, Standing]) -> Result:
    """What the document says of itself, and what else in the library changes it."""
    said = document.validity
    names = ("number", "kind", "body", "title", "issued", "effective", "expires")
    facts = {name: fact.value if (fact := getattr(said, name)) else None for name in names}
    changes = standing[document.id].changes if document.id in standing else ()
    return {
        **facts,
        "relations": [{"relation": r.kind, "number": r.number} for r in said.relations],
        "changed_by": [
            {"relation": c.relation, "number": c.number, "document": c.document} for c in changes
        ],
    }


def _type(services: Services, wanted: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The media types of a kind of file ('pdf'), or the kind of official document ('Thông tư')."""
    if wanted is None:
        return (), ()
    for name, media_types in KINDS.items():
        if name == wanted:
            return media_types, ()
    official = services.register.kinds()
    kinds = tuple(kind for kind in official if fold(kind) == fold(wanted))
    if not kinds:
        raise SettingsError(f"type = {wanted[:60]} ({', '.join([*KINDS, *official])})")
    return (), kinds


def _day(wanted: str | None, later: int = 0) -> str:
    """An ISO day, so many days later. Raises SettingsError."""
    if wanted is None:
        return ""
    try:
        return (date.fromisoformat(wanted) + timedelta(days=later)).isoformat()
    except (ValueError, OverflowError) as error:
        raise SettingsError(wanted[:60]) from error


def _filter(collection: str | None) -> SearchFilter:
    return SearchFilter(collections=(collection,) if collection else ())


def _result(result: SearchResult) -> Result:
    return {
        "document": result.document,
        "page": result.passage.page,
        "path": result.passage.path,
        "text": result.passage.text,
        "score": round(result.score, 4),
    }
