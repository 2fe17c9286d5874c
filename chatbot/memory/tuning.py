"""What was measured to suit a model on this PC: kept for each machine, shape of model and build of llama.cpp."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, distribution

from chatbot.database import Database
from chatbot.memory.facts import ModelFacts
from chatbot.memory.footprint import llama_cpp_footprint
from chatbot.types import Tuned

ROOM_FOR = 768
"""Tokens of the context that the measurement makes for itself (engines/tuning.py)."""


def shape(facts: ModelFacts) -> str:
    """What makes two models equally fast: geometry and type of the weights, not what they learnt."""
    return (
        f"{facts.architecture} {len(facts.layers)} x {facts.width},"
        f" {facts.parameters} weights, {facts.quantisation}"
    )


def build() -> str:
    """Which build of llama.cpp is installed here, told without loading it; '' where none is."""
    try:
        package = distribution("llama-cpp-python")
    except PackageNotFoundError:
        return ""
    files = package.read_text("RECORD") or ""  # with the digest of each library
    return f"{package.version} {hashlib.sha256(files.encode()).hexdigest()[:12]}"


def room(facts: ModelFacts) -> int:
    """Bytes that the measurement takes for a while, beside the loaded model."""
    parts = llama_cpp_footprint(facts, ROOM_FOR).ram
    return parts["kv"] + parts["buffers"]


def keep(database: Database, machine: str, model: str, built: str, tuned: Tuned) -> None:
    """Keep it in place of what was measured before."""
    database.execute(
        "INSERT INTO tunings (machine, model, build, figures) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET figures = excluded.figures",
        (machine, model, built, json.dumps(asdict(tuned))),
    )


def kept(database: Database, machine: str, model: str, built: str) -> Tuned | None:
    """What was measured for such a model here; None before it was."""
    row = database.row(
        "SELECT figures FROM tunings WHERE machine = ? AND model = ? AND build = ?",
        (machine, model, built),
    )
    known = {field.name for field in fields(Tuned)}
    if row is None or (figures := json.loads(row["figures"])).keys() != known:
        return None  # or written by another Hearth
    return Tuned(**figures)
