"""`python -m chatbot models …`: fetch, make, check, carry and run models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from chatbot.cli.owner import run, run_job
from chatbot.cli.planning import plan
from chatbot.cli.terminal import Json, plain, show
from chatbot.models.chain import Keep
from chatbot.types import ModelRole

app = typer.Typer(no_args_is_help=True, help="Models on this PC.")

Source = Annotated[str, typer.Argument(help="A model's id, or a path on this PC.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Models on this PC."""
    show(run("models list"), as_json, _list_text)


@app.command()
def catalogue(
    search: Annotated[str, typer.Argument(help="Look for this name on the hub, too.")] = "",
    as_json: Json = False,
) -> None:
    """Models known to work, what fits this PC, and what the hub has under a name."""
    show(run("models catalogue", search=search), as_json, _catalogue_text)


app.command()(plan)


@app.command("import")
def import_(
    path: Path,
    copy: Annotated[bool, typer.Option(help="Copy the files instead of linking them.")] = False,
    documents: Annotated[
        bool, typer.Option("--documents", help="Take in the documents that a zip holds, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take in a GGUF file, a model or adapter folder, pickled weights (.bin, .pt) or a zip."""
    params = {"path": str(path.resolve()), "copy": copy, "documents": documents}
    result = run_job("models import", **params)
    _made(result, as_json)
    if result.get("documents") == "left":
        print("the zip also holds documents: --documents takes them in", file=sys.stderr)


@app.command()
def download(
    repo: str,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    file: Annotated[str | None, typer.Option(help="One GGUF file of the repository.")] = None,
    role: Annotated[ModelRole | None, typer.Option(help="chat, embedder or reranker.")] = None,
    as_json: Json = False,
) -> None:
    """Fetch a model of the hub at one commit; a download that was cut off goes on."""
    _made(run_job("models download", repo=repo, revision=revision, file=file, role=role), as_json)


@app.command()
def ready(
    source: Annotated[str, typer.Argument(help="A repository of the hub, an id or a path.")],
    adapter: Annotated[str | None, typer.Option(help="An adapter to merge: id or path.")] = None,
    type_: Annotated[
        str,
        typer.Option(
            "--type", help="GGUF type; auto is the best that fits, fp16 a folder for the GPU."
        ),
    ] = "auto",
    keep: Annotated[Keep, typer.Option(help="Which of the models on the way stay.")] = "checkable",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    file: Annotated[str | None, typer.Option(help="One GGUF file of the repository.")] = None,
    as_json: Json = False,
) -> None:
    """The whole way: download, merge, FP16, GGUF, quantise, each step checked."""
    params = {"source": _source(source), "adapter": _source(adapter), "type": type_, "keep": keep}
    _made(run_job("models ready", **params, revision=revision, file=file), as_json)


@app.command()
def prepare(
    source: Source,
    precision: Annotated[str, typer.Option(help="auto, f16, bf16 or keep.")] = "auto",
    form: Annotated[str, typer.Option(help="hf (a folder), pt (a state_dict) or gguf.")] = "hf",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Json = False,
) -> None:
    """Save a model in 16 bits, on the GPU where there is one."""
    params = {"precision": precision, "form": form, "device": device}
    _made(run_job("models prepare", source=_source(source), **params), as_json)


@app.command()
def merge(base: Source, adapter: Source, as_json: Json = False) -> None:
    """Merge a PEFT adapter into its base."""
    _made(run_job("models merge", source=_source(base), adapter=_source(adapter)), as_json)


@app.command()
def convert(
    source: Source,
    type_: Annotated[str, typer.Option("--type", help="auto, F16, BF16, F32 or Q8_0.")] = "auto",
    base: Annotated[str | None, typer.Option(help="Of an adapter: the base's id.")] = None,
    as_json: Json = False,
) -> None:
    """Turn a model folder into a GGUF file, or an adapter into a LoRA file for llama.cpp."""
    _made(run_job("models convert", source=_source(source), type=type_, base=base), as_json)


@app.command()
def quantise(
    source: Source,
    type_: Annotated[str, typer.Option("--type", help="Such as Q8_0, Q6_K, Q5_K_M, Q4_K_M.")],
    importance: Annotated[
        Path | None, typer.Option(help="An importance matrix for this model.")
    ] = None,
    documents: Annotated[
        bool, typer.Option("--documents", help="Keep exact what your documents need most.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a GGUF smaller; `--type auto` takes the best that fits this PC now."""
    matrix = str(importance.resolve()) if importance else None
    options = {"type": type_, "importance": matrix, "documents": documents}
    _made(run_job("models quantise", source=_source(source), **options), as_json)


@app.command()
def verify(
    source: Source,
    parent: Annotated[
        str | None, typer.Option(help="Compare with this model instead: id or path.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that a model is what it was made from, with figures; ends with 1 where it is not."""
    result = run_job("models verify", source=_source(source), parent=_source(parent))
    show(result, as_json, _verdict_text)
    if result["verdict"] != "pass":
        raise typer.Exit(1)


@app.command()
def package(
    source: Source,
    file: Path,
    library: Annotated[bool, typer.Option(help="Take the document library along.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model into one zip to carry to another PC."""
    params = {"file": str(file.resolve()), "library": library}
    show(run_job("models package", source=_source(source), **params), as_json, plain)


@app.command()
def push(
    source: Source,
    repo: str,
    public: Annotated[bool, typer.Option(help="Everyone may see it.")] = False,
    as_json: Json = False,
) -> None:
    """Upload a model to your own repository on the hub."""
    result = run_job("models push", source=_source(source), repo=repo, private=not public)
    show(result, as_json, plain)


@app.command()
def bench(source: Source, as_json: Json = False) -> None:
    """Measure how fast a model reads and writes here, and what memory it takes."""
    show(run_job("models bench", source=_source(source)), as_json, plain)


@app.command()
def load(
    model_id: str,
    context: Annotated[int | None, typer.Option(help="Tokens of context.")] = None,
    kv_type: Annotated[str | None, typer.Option(help="KV cache: f16, q8_0, q4_0.")] = None,
    batch: Annotated[int | None, typer.Option(help="Tokens read in one piece.")] = None,
    gpu_layers: Annotated[int | None, typer.Option(help="Layers on graphics cards.")] = None,
    anyway: Annotated[
        bool, typer.Option(help="Load even if the plan, or the model's check, says no.")
    ] = False,
    base: Annotated[str | None, typer.Option(help="Of an adapter: the base's id.")] = None,
    as_json: Json = False,
) -> None:
    """Load a model in the running Hearth; an adapter runs beside its base."""
    options = {"context": context, "kv_type": kv_type, "batch": batch, "gpu_layers": gpu_layers}
    options |= {"anyway": anyway, "base": base}
    result = run("models load", needs_owner=True, id=model_id, **options)
    show(result, as_json, plain)


@app.command()
def unload(as_json: Json = False) -> None:
    """Free the loaded model's memory in the running Hearth."""
    show(run("models unload", needs_owner=True), as_json, plain)


@app.command()
def remove(model_id: str, as_json: Json = False) -> None:
    """Take a model off the list; a copied one is deleted, a linked one stays where it is."""
    show(run("models remove", id=model_id), as_json, plain)


def _source(source: str | None) -> str | None:
    """A path as the owner sees it, whose working directory is another; an id as it is."""
    if source is None:
        return None
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else source


def _made(result: dict[str, Any], as_json: bool) -> None:
    show(result, as_json, lambda r: str(r["id"]))
    if result.get("verdict") == "fail":
        print(f"{result['id']}: check failed, see `models verify {result['id']}`", file=sys.stderr)


# --- words on the terminal ------------------------------------------------------------------


def _list_text(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{'*' if m['id'] == result['loaded'] else ' '} {m['id']}  {m['format']}  "
        f"{m['size'] / 1e9:.1f} GB  {m['verdict'] or '-'}  {m['path']}"
        for m in result["models"]
    )


def _catalogue_text(result: dict[str, Any]) -> str:
    lines = []
    for row in result["models"]:
        ways = row.get("ways", ())
        best = next((way for way in ways if way["type"] == row["best"]), None)
        fits = f"{best['type'] or 'fits'} {best['size'] / 1e9:.1f} GB" if best else "does not fit"
        if "recommended" not in row:  # found on the hub
            said = fits if ways else row.get("error", "?")
            lines.append(f"  {row['repo']}  {row['downloads']} downloads  {said}")
            continue
        lines.append(f"{'*' if row['recommended'] else ' '} {row['repo']}  {row['role']}  {fits}")
    return "\n".join(lines)


def _verdict_text(result: dict[str, Any]) -> str:
    lines = [f"{result['verdict']}  (parent: {result['parent'] or '-'})"]
    for check in result["checks"]:
        figures = ", ".join(f"{key} {value}" for key, value in check["measured"].items())
        lines.append(f"  {check['verdict']:8} {check['name']:24} {figures}")
    return "\n".join(lines)
