"""The command line: `python -m chatbot …`; every page's work has a command.

Beside a running Hearth it speaks to it through the loopback port; without one it is the owner for its
duration. `--json` prints one JSON object on stdout; logs go to stderr. Exit codes: 0 done, 1 an error
(its message on stderr), 2 wrong usage, 3 some documents or rows were refused.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from chatbot.cli import models, this_pc
from chatbot.cli.owner import run, told
from chatbot.cli.terminal import Json, language, plain, show
from chatbot.errors import ChatbotError
from chatbot.i18n import filled
from chatbot.types import Scope, SearchMode

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ask your own documents, on your own PC.",
)
documents = typer.Typer(no_args_is_help=True, help="Add, list and remove documents.")
jobs = typer.Typer(no_args_is_help=True, help="Long work.")
evaluate = typer.Typer(no_args_is_help=True, help="How good the search is.")
for name, group in (
    ("documents", documents),
    ("models", models.app),
    ("jobs", jobs),
    ("evaluate", evaluate),
):
    app.add_typer(group, name=name)
app.command()(this_pc.hardware)

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
    result = run("ask", question=question, collection=collection, model=model, documents=documents)
    show(result, as_json, _answer_text)


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
    result = run(
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
    show(result, as_json, _search_text)


@documents.command("add")
def documents_add(
    paths: list[Path],
    collection: Annotated[str, typer.Option(help="The collection to add to.")] = "documents",
    as_json: Json = False,
) -> None:
    """Add files and folders."""
    result = run("documents add", paths=[str(p.resolve()) for p in paths], collection=collection)
    show(result, as_json, _documents_text)
    if any(row["error"] for row in result["documents"]):
        raise typer.Exit(3)


@documents.command("watch")
def documents_watch(
    folder: Path,
    collection: Annotated[str, typer.Option(help="The collection to read it into.")] = "documents",
    as_json: Json = False,
) -> None:
    """Link a folder: Hearth keeps the library in step with it while it runs."""
    result = run("documents watch", path=str(folder.resolve()), collection=collection)
    show(result, as_json, _sync_text)


@documents.command("sync")
def documents_sync(
    remove_missing: Annotated[
        bool, typer.Option(help="Move the documents of files that are gone to the trash.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every linked folder with the library now."""
    show(run("documents sync", remove_missing=remove_missing), as_json, _sync_text)


@documents.command("unwatch")
def documents_unwatch(
    folder: Path,
    remove: Annotated[bool, typer.Option(help="Move its documents to the trash.")] = False,
    as_json: Json = False,
) -> None:
    """End the link of a folder; its documents stay."""
    result = run("documents unwatch", path=str(folder.resolve()), remove=remove)
    show(result, as_json, lambda r: str(r["unlinked"]))


@documents.command("list")
def documents_list(collection: Collection = None, as_json: Json = False) -> None:
    """Every document and its state."""
    show(run("documents list", collection=collection), as_json, _documents_text)


@documents.command("remove")
def documents_remove(document_id: str, as_json: Json = False) -> None:
    """Erase one document from this PC."""
    show(run("documents remove", id=document_id), as_json, lambda r: str(r["document"]))


@documents.command("export")
def documents_export(
    file: Path,
    collection: Annotated[str | None, typer.Option(help="Only this collection.")] = None,
    as_json: Json = False,
) -> None:
    """Write documents, their text and vectors into one file that another PC opens."""
    result = run("documents export", path=str(file.resolve()), collection=collection)
    show(result, as_json, plain)


@documents.command("import")
def documents_import(
    file: Path,
    collection: Annotated[
        str | None, typer.Option(help="Into this collection, not those of the file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take in a file that `documents export` wrote, here or on another PC."""
    result = run("documents import", path=str(file.resolve()), collection=collection)
    show(result, as_json, plain)


@documents.command("check")
def documents_check(as_json: Json = False) -> None:
    """Compare the search index with the database."""
    show(run("documents check"), as_json, plain)


@documents.command("rebuild")
def documents_rebuild(as_json: Json = False) -> None:
    """Build the search index anew from the database."""
    show(run("documents rebuild"), as_json, plain)


@jobs.command("list")
def jobs_list(as_json: Json = False) -> None:
    """Long work, the latest first."""
    show(run("jobs list"), as_json, _jobs_text)


@jobs.command("cancel")
def jobs_cancel(job_id: str, as_json: Json = False) -> None:
    """End a piece of long work."""
    show(run("jobs cancel", id=job_id), as_json, plain)


@jobs.command("show")
def jobs_show(job_id: str, as_json: Json = False) -> None:
    """One piece of long work and its steps."""
    show(run("jobs show", id=job_id), as_json, _job_text)


@jobs.command("pause")
def jobs_pause(job_id: str, as_json: Json = False) -> None:
    """End a piece of long work for now, in the running Hearth."""
    show(run("jobs pause", needs_owner=True, id=job_id), as_json, plain)


@jobs.command("again")
def jobs_again(job_id: str, as_json: Json = False) -> None:
    """Go on with work that was paused, cancelled or went wrong, in the running Hearth."""
    show(run("jobs again", needs_owner=True, id=job_id), as_json, plain)


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

    show(told(work), as_json, plain)


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
    result = run("evaluate questions", mode=mode, compare=compare, rerank=rerank)
    show(result, as_json, plain)


@evaluate.command("import")
def evaluate_import(file: Path, as_json: Json = False) -> None:
    """Add questions from a CSV or JSONL file: question, document, page, article, quote."""
    result = run("evaluate import", path=str(file.resolve()))
    show(result, as_json, _imported_text)
    if result["bad"]:
        raise typer.Exit(3)


@evaluate.command("export")
def evaluate_export(file: Path, as_json: Json = False) -> None:
    """Write your questions and their right passages to a CSV file."""
    table = run("evaluate export")["csv"]
    told(lambda: {"bytes": _write(file, table)})
    show({"file": str(file.resolve())}, as_json, lambda r: str(r["file"]))


def _write(file: Path, text: str) -> int:
    try:
        return file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ChatbotError(f"{file}: {error.strerror}") from error


# --- words on the terminal ------------------------------------------------------------------


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


def _imported_text(result: dict[str, Any]) -> str:
    lines = [f"{result['added']} added, {result['known']} already there"]
    return "\n".join([*lines, *(f"line {row['line']}: {row['error']}" for row in result["bad"])])


def _jobs_text(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{j['id']}  {j['state']:9} {_title(j)}  {j['message']}" for j in result["jobs"]
    )


def _job_text(job: dict[str, Any]) -> str:
    lines = [f"{job['state']}  {_title(job)}"]
    for step in job["steps"]:
        said = filled(step["message"], step["values"], language())
        lines.append(f"  {step['state']:8} {step['name']:10} {step['progress']:4.0%}  {said}")
    return "\n".join(lines)


def _title(job: dict[str, Any]) -> str:
    return filled(job["title"], job["params"].get("values", {}), language())


if __name__ == "__main__":
    app()
