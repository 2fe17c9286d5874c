"""How fast a planned model will write here: what must be read for each token, divided by how fast that is read.

Those are the weights (of a mixture of experts the ones it asks) and the cache of what was said so far. A busy
PC writes slower.
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
"""Share of the memory's speed that decoding reaches where nothing else is known; the second is general knowledge."""
OF_A_CORE_EXACT, OF_A_CORE_QUANTISED = 0.54, 0.31
"""Share of the speed at which one core reads memory that it reaches with F16, and unpacking Q4_K_M, weights;
measured by benchmarks/speed_estimate.py."""
OF_ALL_CORES = 0.8
"""What many cores together reach at most of what they read; general knowledge."""
QUANTISED_CACHE = 0.83
"""Measured: a cache in q8_0 with the flash attention that it needs on a CPU, against f16 without."""
EXACT = ("F32", "F16", "BF16", "FP32", "FP16")


def tokens_per_second(plan: MemoryPlan, speeds: Speeds | None, filled: float = 0.0) -> float | None:
    """About how many tokens a second this plan writes; None before the PC was measured.

    `filled` is how much of the context is in use, 0 to 1.
    """
    if speeds is None or plan.backend not in ("llama_cpp", "transformers"):
        return None
    reads = plan.reads or {
        "ram": plan.parts.get("weights", 0),
        "gpu": plan.parts.get("gpu_weights", 0),
    }
    seconds = 0.0
    for place, cache in (("ram", "kv"), ("gpu", "gpu_kv")):
        bytes_ = reads.get(place, 0) + filled * plan.parts.get(cache, 0)
        if not bytes_:
            continue
        exact = plan.precision.upper() in EXACT
        rate = _rate(speeds, plan.threads, exact=exact, on_gpu=place == "gpu")
        if not rate:
            return None
        if place == "ram" and plan.backend == "llama_cpp" and plan.kv_type != "f16":
            rate *= QUANTISED_CACHE
        seconds += bytes_ / rate
    return 1 / seconds if seconds else None


def of_weights(
    bytes_: float, speeds: Speeds, threads: int, *, exact: bool, on_gpu: bool
) -> float | None:
    """The same for so many bytes of weights in one memory; None where that memory was not measured."""
    rate = _rate(speeds, threads, exact=exact, on_gpu=on_gpu)
    return rate / bytes_ if rate else None


def _rate(speeds: Speeds, threads: int, *, exact: bool, on_gpu: bool) -> float | None:
    """Bytes of weights a second."""
    if on_gpu:
        return speeds.gpu_memory * REACHED_ON_GPU if speeds.gpu_memory else None
    if not speeds.core_memory:  # measured by an earlier Hearth
        return speeds.memory * REACHED
    of_a_core = OF_A_CORE_EXACT if exact else OF_A_CORE_QUANTISED
    return min(speeds.memory * OF_ALL_CORES, speeds.core_memory * of_a_core * threads)


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
