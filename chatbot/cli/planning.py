"""`python -m chatbot models plan`: how a model would run on this PC, and what else could be had from it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chatbot.cli.owner import run, told
from chatbot.cli.terminal import Json, language, show
from chatbot.settings import Paths, load_settings
from chatbot.types import Backend

if TYPE_CHECKING:
    from chatbot.memory.alternatives import Alternative, Variant
    from chatbot.memory.facts import ModelFacts
    from chatbot.types import MemoryPlan

_FLOATS = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
_WELL = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")


def plan(
    path_or_id: str,
    context: Annotated[int | None, typer.Option(help="Tokens of context.")] = None,
    kv_type: Annotated[str | None, typer.Option(help="f16, q8_0 or q4_0.")] = None,
    batch: Annotated[int | None, typer.Option(help="Tokens per prefill batch.")] = None,
    backend: Annotated[
        Backend | None,
        typer.Option(help="transformers, or llama_cpp: a folder as the GGUF it would become."),
    ] = None,
    gpu_layers: Annotated[
        int | None, typer.Option(help="Layers on the GPU, the output counted; -1 for all.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, bf16 or fp16; or the GGUF type it would be made into."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads that compute.")] = None,
    file: Annotated[
        str | None, typer.Option(help="One GGUF file of a repository of the hub.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What a model would need on this PC, part by part, and what else is possible."""
    from chatbot.memory.plan import Wishes

    wishes = Wishes(context, kv_type, batch, backend, gpu_layers, precision, threads)
    said: list[str] = []

    def work() -> dict[str, Any]:
        found, others, figures = _planned(_facts(path_or_id, wishes, file), wishes)
        said.extend(_lines(found, others))
        return figures

    show(told(work), as_json, lambda _: "\n".join(said))


def _facts(path_or_id: str, wishes: Any, file: str | None) -> ModelFacts:
    """Of a path, a listed model, or a repository of the hub, of which only headers are read."""
    from chatbot.memory.headers import read_or_draw
    from chatbot.models.remote import facts_for_plan, is_repository

    path = Path(path_or_id).expanduser()
    if path.exists():
        return read_or_draw(path)
    rows = run("models list")["models"]
    listed = next((m["path"] for m in rows if m["id"] == path_or_id), None)
    if listed is None and is_repository(path_or_id):
        asked = wishes.precision or ""
        kind = asked.upper() if asked.lower() not in _FLOATS else ""
        if not kind and wishes.backend == "llama_cpp":
            kind = "F16"
        return facts_for_plan(path_or_id, kind, file)
    return read_or_draw(Path(listed or path_or_id))


def _planned(
    facts: ModelFacts, wishes: Any
) -> tuple[MemoryPlan, tuple[Alternative, ...], dict[str, Any]]:
    """The plan, its alternatives, and both as JSON."""
    from chatbot.hardware.detect import detect, fingerprint, installed
    from chatbot.memory.alternatives import Case, alternatives
    from chatbot.memory.calibration import recorded_factors
    from chatbot.memory.plan import to_dict
    from chatbot.memory.room import allowed
    from chatbot.memory.speed import kept_in, tokens_per_second
    from chatbot.ownership import owner_of
    from chatbot.workshop.planner import beside_search

    paths = Paths.default()
    everything = detect(paths.data)
    machine = fingerprint(everything)
    hardware = allowed(everything, os.environ.get("CUDA_VISIBLE_DEVICES"))
    facts, wishes, variants = _as_wished(facts, wishes)
    factors = recorded_factors(paths.database, machine)
    case = Case(hardware, facts, wishes, installed(), factors)
    if not owner_of(paths):  # a running Hearth holds its search models already
        settings = load_settings(paths.settings)
        case = replace(case, beside=beside_search(settings, None, hardware))
    found = case.plan()
    others = alternatives(case, found, variants)
    figures = to_dict(found) | {
        "alternatives": [one.to_dict() for one in others],
        "tokens_per_second": tokens_per_second(found, kept_in(paths.database, machine)),
        "estimated": facts.estimated,
    }
    return found, others, figures


def _as_wished(facts: ModelFacts, wishes: Any) -> tuple[ModelFacts, Any, list[Variant]]:
    """The model in the form that the wishes ask for, and the forms it could be made into."""
    from chatbot.memory.alternatives import Variant
    from chatbot.memory.headers import as_drawn
    from chatbot.memory.outline import MIXES, outlined

    asked = wishes.precision or ""
    kind = _FLOATS.get(asked.lower(), asked.upper())
    to_gguf = facts.format == "hf" and (
        wishes.backend == "llama_cpp"
        or wishes.kv_type in ("q8_0", "q4_0")
        or (kind in MIXES and asked.lower() not in _FLOATS)
    )
    facts = as_drawn(facts) if to_gguf else facts
    exact = facts.format == "hf" or facts.quantisation in _FLOATS.values()
    variants = []
    if exact and facts.tensors:
        shape = as_drawn(facts)
        variants = [Variant(facts.name, outlined(shape, one), ready=False) for one in _WELL]
    if to_gguf or (facts.format == "gguf" and exact and kind in MIXES):
        made = outlined(facts, kind or "F16", gguf=True)
        return made, replace(wishes, backend="llama_cpp", precision=None), variants
    if facts.format == "gguf" and kind == facts.quantisation:
        wishes = replace(wishes, precision=None)
    return facts, wishes, variants


def _lines(found: MemoryPlan, others: tuple[Alternative, ...]) -> list[str]:
    from chatbot.memory.explain import explain

    return [
        explain(found, language()),
        *(f"  - {one.words(language())}" for one in others),
    ]
