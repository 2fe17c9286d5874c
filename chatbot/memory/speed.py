"""How fast a planned model will write here: the weights are read once for each token.

So the time of a token is the bytes of weights in each memory ÷ that memory's measured speed. It is what
the memory allows: a long conversation, a busy PC or a slow processor write slower.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path

from chatbot.database import Database
from chatbot.hardware.speeds import Speeds
from chatbot.types import MemoryPlan

REACHED, REACHED_ON_GPU = 0.5, 0.7
"""Share of the memory's speed that decoding reaches: on the CPU 0.6 in F16 and 0.33 in Q4_K_M
(benchmarks/speed_estimate.py); on a GPU from general knowledge, until one is measured."""


def tokens_per_second(plan: MemoryPlan, speeds: Speeds | None) -> float | None:
    """About how many tokens a second this plan writes; None before the PC was measured.

    A mixture of experts reads a part of its weights only, and is faster than said.
    """
    if speeds is None or plan.backend not in ("llama_cpp", "transformers"):
        return None
    seconds = 0.0
    for part, speed, reached in (
        ("weights", speeds.memory, REACHED),
        ("gpu_weights", speeds.gpu_memory, REACHED_ON_GPU),
    ):
        if bytes_ := plan.parts.get(part, 0):
            if not speed:
                return None
            seconds += bytes_ / (speed * reached)
    return 1 / seconds if seconds else None


def of_weights(bytes_: float, speeds: Speeds, *, on_gpu: bool) -> float | None:
    """The same for so many bytes of weights in one memory; None where that memory was not measured."""
    speed, reached = (speeds.gpu_memory, REACHED_ON_GPU) if on_gpu else (speeds.memory, REACHED)
    return speed * reached / bytes_ if speed else None


def keep(database: Database, machine: str, speeds: Speeds) -> None:
    """Keep the figures of that PC, in place of its earlier ones."""
    database.execute(
        "INSERT INTO speeds (machine, figures) VALUES (?, ?)"
        " ON CONFLICT (machine) DO UPDATE SET figures = excluded.figures",
        (machine, json.dumps(asdict(speeds))),
    )


def kept(database: Database, machine: str) -> Speeds | None:
    """The figures of that PC; None before it was measured."""
    return _speeds(database.row("SELECT figures FROM speeds WHERE machine = ?", (machine,)))


def kept_in(file: Path, machine: str) -> Speeds | None:
    """The same from a database file, only read, also while another process owns it."""
    if not file.exists():
        return None
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'speeds'").fetchone():
            return None  # written by an earlier Hearth
        question = "SELECT figures FROM speeds WHERE machine = ?"
        return _speeds(connection.execute(question, (machine,)).fetchone())


def _speeds(row: Mapping[str, str] | sqlite3.Row | None) -> Speeds | None:
    if row is None:
        return None
    known = {field.name for field in fields(Speeds)}
    return Speeds(**{k: v for k, v in json.loads(row["figures"]).items() if k in known})
