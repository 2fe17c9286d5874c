"""The command line: `python -m chatbot …`; every page's work has a command.

Beside a running Hearth it speaks to it through the loopback port; without one it is the owner for its
duration. `--json` prints one JSON object on stdout; logs go to stderr. Exit codes: 0 done, 1 an error
(its message on stderr), 2 wrong usage, 3 some documents or rows were refused.
"""

from __future__ import annotations

import io
import json
import locale
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from chatbot.errors import ChatbotError, OwnerMissing, OwnerSilent
from chatbot.i18n import preferred_language
from chatbot.settings import Paths
from chatbot.types import Backend, Language, Scope, SearchMode

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask your own documents, on your own PC.",
)
documents = typer.Typer(no_args_is_help=True, help="Add, list and remove documents.")
models = typer.Typer(no_args_is_help=True, help="Models on this PC.")
jobs = typer.Typer(no_args_is_help=True, help="Long work.")
evaluate = typer.Typer(no_args_is_help=True, help="How good the search is.")
for name, group in (
    ("documents", documents),
    ("models", models),
    ("jobs", jobs),
    ("evaluate", evaluate),
):
    app.add_typer(group, name=name)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Collection = Annotated[str | None, typer.Option(help="Only this collection.")]
Compare = Annotated[
    SearchMode | None, typer.Option(help="Another mode, and what differs in pairs.")
]


@app.callback()
def _speak_utf8() -> None:
    # A pipe on Windows would else get its code page, which has no Vietnamese.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")


@app.command()
def ask(
    question: str,
    collection: Collection = None,
    model: Annotated[str | None, typer.Option(help="Model id; 'extractive' quotes only.")] = None,
    documents: Annotated[
        Scope, typer.Option(help="Answer from documents only, also, none.")
    ] = "only",
    as_json: Json = False,
) -> None:
    """Answer a question from your documents."""
    result = _run("ask", question=question, collection=collection, model=model, documents=documents)
    _print(result, as_json, _answer_text)


@app.command()
def search(
    query: str,
    collection: Collection = None,
    mode: SearchMode = "hybrid",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 8,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="pdf, office, text, …, or a kind such as 'Thông tư'."),
    ] = None,
    issued_after: Annotated[str | None, typer.Option(help="Only issued after this day.")] = None,
    in_force_on: Annotated[str | None, typer.Option(help="Only in force on this day.")] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let the cross-encoder of the settings order them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the passages that speak to a query; days as 2024-12-31."""
    result = _run(
        "search",
        query=query,
        collection=collection,
        mode=mode,
        limit=limit,
        type=type_,
        issued_after=issued_after,
        in_force_on=in_force_on,
        rerank=rerank,
    )
    _print(result, as_json, _search_text)


@app.command()
def hardware(as_json: Json = False) -> None:
    """What this PC has, what of it is free, and which backend follows."""
    from chatbot.hardware.detect import detect
    from chatbot.memory.recommend import recommend, recommend_text

    found = detect(Paths.default().data)
    result = {
        "device": found.device,
        "gpus": [asdict(gpu) for gpu in found.gpus],
        "ram": {"total": found.ram_total, "available": found.ram_available},
        "swap": {"total": found.swap_total, "used": found.swap_used},
        "cpu": {
            "name": found.cpu_name,
            "cores": found.cores,
            "physical": found.cores_physical,
            "flags": list(found.cpu_flags),
            "load": found.cpu_load,
        },
        "disk": {"total": found.disk_total, "free": found.disk_free},
        "system": found.system,
        "plan": asdict(best) if (best := recommend(found)) else None,
        "reason": recommend_text(found, "en" if as_json else _language()),
    }
    _print(result, as_json, lambda r: json.dumps(r, indent=1, ensure_ascii=False))


@documents.command("add")
def documents_add(
    paths: list[Path],
    collection: Annotated[str, typer.Option(help="The collection to add to.")] = "documents",
    as_json: Json = False,
) -> None:
    """Add files and folders."""
    result = _run("documents add", paths=[str(p.resolve()) for p in paths], collection=collection)
    _print(result, as_json, _documents_text)
    if any(row["error"] for row in result["documents"]):
        raise typer.Exit(3)


@documents.command("watch")
def documents_watch(
    folder: Path,
    collection: Annotated[str, typer.Option(help="The collection to read it into.")] = "documents",
    as_json: Json = False,
) -> None:
    """Link a folder: Hearth keeps the library in step with it while it runs."""
    result = _run("documents watch", path=str(folder.resolve()), collection=collection)
    _print(result, as_json, _sync_text)


@documents.command("sync")
def documents_sync(
    remove_missing: Annotated[
        bool, typer.Option(help="Move the documents of files that are gone to the trash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every linked folder with the library now."""
    _print(_run("documents sync", remove_missing=remove_missing), as_json, _sync_text)


@documents.command("unwatch")
def documents_unwatch(
    folder: Path,
    remove: Annotated[bool, typer.Option(help="Move its documents to the trash.")] = False,
    as_json: Json = False,
) -> None:
    """End the link of a folder; its documents stay."""
    result = _run("documents unwatch", path=str(folder.resolve()), remove=remove)
    _print(result, as_json, lambda r: str(r["unlinked"]))


@documents.command("list")
def documents_list(collection: Collection = None, as_json: Json = False) -> None:
    """Every document and its state."""
    _print(_run("documents list", collection=collection), as_json, _documents_text)


@documents.command("remove")
def documents_remove(document_id: str, as_json: Json = False) -> None:
    """Erase one document from this PC."""
    _print(_run("documents remove", id=document_id), as_json, lambda r: str(r["document"]))


@documents.command("export")
def documents_export(
    file: Path,
    collection: Annotated[str | None, typer.Option(help="Only this collection.")] = None,
    as_json: Json = False,
) -> None:
    """Write documents, their text and vectors into one file that another PC opens."""
    result = _run("documents export", path=str(file.resolve()), collection=collection)
    _print(result, as_json, _plain)


@documents.command("import")
def documents_import(
    file: Path,
    collection: Annotated[
        str | None, typer.Option(help="Into this collection, not those of the file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take in a file that `documents export` wrote, here or on another PC."""
    result = _run("documents import", path=str(file.resolve()), collection=collection)
    _print(result, as_json, _plain)


@documents.command("check")
def documents_check(as_json: Json = False) -> None:
    """Compare the search index with the database."""
    _print(_run("documents check"), as_json, _plain)


@documents.command("rebuild")
def documents_rebuild(as_json: Json = False) -> None:
    """Build the search index anew from the database."""
    _print(_run("documents rebuild"), as_json, _plain)


@models.command("list")
def models_list(as_json: Json = False) -> None:
    """Models on this PC."""
    _print(_run("models list"), as_json, _models_text)


@models.command("plan")
def models_plan(
    path_or_id: str,
    context: Annotated[int | None, typer.Option(help="Tokens of context.")] = None,
    kv_type: Annotated[str | None, typer.Option(help="f16, q8_0 or q4_0.")] = None,
    batch: Annotated[int | None, typer.Option(help="Tokens per prefill batch.")] = None,
    backend: Annotated[Backend | None, typer.Option(help="llama_cpp or transformers.")] = None,
    as_json: Json = False,
) -> None:
    """What a model would need on this PC, part by part."""
    from chatbot.hardware.detect import detect, installed
    from chatbot.memory import plan as planning
    from chatbot.memory.headers import read_model

    def work() -> dict[str, Any]:
        path = Path(path_or_id)
        if not path.exists():
            rows = _run("models list")["models"]
            path = Path(next((m["path"] for m in rows if m["id"] == path_or_id), path_or_id))
        wishes = planning.Wishes(context, kv_type, batch, backend)
        hardware = detect(Paths.default().data)
        return planning.to_dict(planning.plan(hardware, read_model(path), wishes, installed()))

    _print(_told(work), as_json, lambda r: str(r["reason"]))


@models.command("import")
def models_import(
    path: Path,
    copy: Annotated[bool, typer.Option(help="Copy the files instead of linking them.")] = False,
    as_json: Json = False,
) -> None:
    """Take a GGUF file or a model folder into the list."""
    result = _run("models import", path=str(path.resolve()), copy=copy)
    _print(result, as_json, lambda r: str(r["id"]))


@models.command("load")
def models_load(
    model_id: str,
    context: Annotated[int | None, typer.Option(help="Tokens of context.")] = None,
    anyway: Annotated[bool, typer.Option(help="Load even if the plan says no.")] = False,
    as_json: Json = False,
) -> None:
    """Load a model in the running Hearth."""
    result = _run("models load", needs_owner=True, id=model_id, context=context, anyway=anyway)
    _print(result, as_json, _plain)


@models.command("unload")
def models_unload(as_json: Json = False) -> None:
    """Free the loaded model's memory in the running Hearth."""
    _print(_run("models unload", needs_owner=True), as_json, _plain)


@models.command("remove")
def models_remove(model_id: str, as_json: Json = False) -> None:
    """Take a model off the list; a copied one is deleted, a linked one stays where it is."""
    _print(_run("models remove", id=model_id), as_json, _plain)


@jobs.command("list")
def jobs_list(as_json: Json = False) -> None:
    """Long work, the latest first."""
    _print(_run("jobs list"), as_json, _jobs_text)


@jobs.command("cancel")
def jobs_cancel(job_id: str, as_json: Json = False) -> None:
    """End a piece of long work."""
    _print(_run("jobs cancel", id=job_id), as_json, _plain)


@evaluate.command("retrieval")
def evaluate_retrieval(
    dataset: Path,
    mode: SearchMode = "hybrid",
    embedder: Annotated[str | None, typer.Option(help="Another embedder than the default.")] = None,
    strip_accents: Annotated[bool, typer.Option(help="Ask without accents.")] = False,
    limit: Annotated[int | None, typer.Option(help="Only so many questions.")] = None,
    compare: Compare = None,
    reranker: Annotated[
        str, typer.Option(help="A cross-encoder that orders the first results.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Measure the search on a BEIR-layout folder."""
    from chatbot.evaluation.retrieval import evaluate as measure

    def work() -> dict[str, Any]:
        return measure(
            dataset,
            mode=mode,
            embedder=embedder,
            strip_accents=strip_accents,
            limit=limit,
            compare=compare,
            reranker=reranker,
        )

    _print(_told(work), as_json, _plain)


@evaluate.command("questions")
def evaluate_questions(
    mode: SearchMode = "hybrid",
    compare: Compare = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Let the cross-encoder of the settings order them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the search with your own questions on your own documents."""
    result = _run("evaluate questions", mode=mode, compare=compare, rerank=rerank)
    _print(result, as_json, _plain)


@evaluate.command("import")
def evaluate_import(file: Path, as_json: Json = False) -> None:
    """Add questions from a CSV or JSONL file: question, document, page, article, quote."""
    result = _run("evaluate import", path=str(file.resolve()))
    _print(result, as_json, _imported_text)
    if result["bad"]:
        raise typer.Exit(3)


@evaluate.command("export")
def evaluate_export(file: Path, as_json: Json = False) -> None:
    """Write your questions and their right passages to a CSV file."""
    table = _run("evaluate export")["csv"]
    _told(lambda: {"bytes": _write(file, table)})
    _print({"file": str(file.resolve())}, as_json, lambda r: str(r["file"]))


# --- reaching the owner ---------------------------------------------------------------------


def _run(command: str, *, needs_owner: bool = False, **params: Any) -> dict[str, Any]:
    """Run a command in the Hearth that owns the data folder, or as the owner."""
    from chatbot.services import owner_of

    owner = owner_of(Paths.default())
    if owner and owner.get("address"):
        return _told(lambda: _call(owner["address"], owner["token"], command, params))
    if needs_owner:
        return _told(_refuse)
    return _told(lambda: _run_here(command, params))


def _refuse() -> dict[str, Any]:
    raise OwnerMissing


def _run_here(command: str, params: dict[str, Any]) -> dict[str, Any]:
    from chatbot.api import commands
    from chatbot.services import close_services, open_services

    try:
        return commands.run(open_services(), command, params)
    finally:
        close_services()


def _call(address: str, token: str, command: str, params: dict[str, Any]) -> dict[str, Any]:
    import httpx

    try:
        response = httpx.post(
            f"{address}/api/command",
            json={"name": command, "params": params},
            headers={"Authorization": f"Bearer {token}"},
            timeout=None,  # noqa: S113 - a command may be an hour's work
            trust_env=False,
        )
        body: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise OwnerSilent(str(error), address=address) from error
    if "result" in body:
        result: dict[str, Any] = body["result"]
        return result
    problem = body["error"]
    if "code" in problem:
        raise ChatbotError.from_dict(problem)
    raise OwnerSilent(problem["message"], address=address)


def _told(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`; an error becomes its message on stderr and exit code 1."""
    try:
        return work()
    except ChatbotError as error:
        if "--json" in sys.argv:
            described = {**error.to_dict(), "message": error.text("en")}
            print(json.dumps({"error": described}, ensure_ascii=False), file=sys.stderr)
        else:
            print(error.text(_language()), file=sys.stderr)
        raise typer.Exit(1) from None


def _write(file: Path, text: str) -> int:
    try:
        return file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ChatbotError(f"{file}: {error.strerror}") from error


def _language() -> Language:
    return preferred_language((locale.getlocale()[0] or "en").replace("_", "-"))


# --- words on the terminal ------------------------------------------------------------------


def _print(result: dict[str, Any], as_json: bool, as_text: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(result, ensure_ascii=False) if as_json else as_text(result))


def _plain(result: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in result.items())


def _place(row: dict[str, Any]) -> str:
    page = f", p. {row['page']}" if row.get("page") else ""
    return f"{row['document']}{page}" + (f" · {row['path']}" if row["path"] else "")


def _answer_text(result: dict[str, Any]) -> str:
    lines = [result["answer"], ""]
    lines += [f"[{source['number']}] {_place(source)}" for source in result["sources"]]
    return "\n".join(lines)


def _search_text(result: dict[str, Any]) -> str:
    blocks = [f"{_place(r)}  ({r['score']:.2f})\n{r['text'].strip()}" for r in result["results"]]
    return "\n\n".join(blocks)


def _documents_text(result: dict[str, Any]) -> str:
    lines = []
    for row in result["documents"]:
        said = row["error"] or row["warning"] or f"{row['passages']} passages"
        lines.append(f"{row['id']}  {row['state']:8} {row['document']}  {said}")
    return "\n".join(lines)


def _sync_text(result: dict[str, Any]) -> str:
    lines = [f"{f['path']}  {f['state']}  {f['files']} files" for f in result["folders"]]
    for kind in ("added", "changed", "missing", "removed", "unreadable"):
        lines += [f"  {kind:10} {path}" for path in result[kind]]
    lines += [f"  renamed    {pair['from']} → {pair['to']}" for pair in result["renamed"]]
    lines += [f"  refused    {row['error']}" for row in result["documents"] if row["error"]]
    if result["missing"]:
        lines.append("  (documents sync --remove-missing moves what is missing to the trash)")
    return "\n".join(lines)


def _models_text(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{'*' if m['id'] == result['loaded'] else ' '} {m['id']}  {m['format']}  "
        f"{m['size'] / 1e9:.1f} GB  {m['path']}"
        for m in result["models"]
    )


def _imported_text(result: dict[str, Any]) -> str:
    lines = [f"{result['added']} added, {result['known']} already there"]
    return "\n".join([*lines, *(f"line {row['line']}: {row['error']}" for row in result["bad"])])


def _jobs_text(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{j['id']}  {j['state']:9} {j['title']}  {j['message']}" for j in result["jobs"]
    )


if __name__ == "__main__":
    app()
