"""Predicted against measured: every load of a model is kept, and what they agree on corrects the plans.

A load counts once it has read a whole prompt batch, for only then are its buffers in use. The factor is
the median of measured ÷ predicted over the newest loads of a backend, for main memory and the GPU apart.
It is applied only when at least five loads agree, and never beyond fixed bounds.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from chatbot.database import Database
from chatbot.hardware.nvidia import nvidia_gpus
from chatbot.memory.footprint import CELLS, Place
from chatbot.types import CardShare, GenerationStats, Growth, MemoryPlan

ENOUGH = 5
NEWEST = 20
AGREE = 0.05
"""Half of the loads may lie at most this far from the median."""
LEAST, MOST = 0.95, 1.3
"""Too little said costs a load that fails, too much only a shorter context."""
WORTH = 0.01
NOTICEABLE = 64 << 20
"""Bytes below which a share is mostly runtime, and its ratio noise."""
KEPT = 500

_COLUMNS = "id, at, model, plan, ram, gpu, gpu_runtime, read, kept"


@dataclass(frozen=True, slots=True)
class Load:
    """One load: the plan it followed and the bytes its process grew by."""

    id: int
    at: float
    model: str
    plan: MemoryPlan
    ram: int
    gpu: int | None
    gpu_runtime: bool
    read: int
    kept: int

    @property
    def complete(self) -> bool:
        """Whether a whole batch was read, so that measured and predicted are the same thing."""
        return self.read >= self.plan.batch

    @property
    def on_gpu(self) -> bool:
        return any(part.startswith("gpu_") for part in self.plan.parts)

    @property
    def predicted(self) -> int:
        """Bytes the plan said, where they were measured too."""
        places: list[Place] = ["ram", "gpu"] if self.gpu is not None else ["ram"]
        return sum(self.predicted_in(place) for place in places)

    @property
    def measured(self) -> int:
        return self.ram + (self.gpu or 0)

    @property
    def error(self) -> float:
        """Predicted ÷ measured − 1: above zero the plan said too much."""
        return self.predicted / max(self.measured, 1) - 1

    def measured_in(self, place: Place) -> int | None:
        return self.ram if place == "ram" else self.gpu

    def predicted_in(self, place: Place) -> int:
        """Bytes the plan said for that place, with as much of the context in use as there was."""
        parts = {
            name.removeprefix("gpu_"): size
            for name, size in self.plan.parts.items()
            if name.startswith("gpu_") == (place == "gpu")
        }
        if place == "gpu" and not self.gpu_runtime:
            parts.pop("runtime", None)
        growing: Place = "gpu" if self.on_gpu and self.plan.backend == "transformers" else "ram"
        more = self.plan.growth * self._filled() if place == growing else 0
        return sum(parts.values()) + int(more)

    def ratio(self, place: Place) -> float | None:
        """Measured ÷ what the formulas alone say; None where either is missing or too small to tell."""
        measured, predicted = self.measured_in(place), self.predicted_in(place)
        plain = predicted / self.plan.learnt.get(place, 1.0)
        return measured / plain if measured and plain >= NOTICEABLE else None

    def _filled(self) -> float:
        """The share of the context's growth that was in use."""
        first = max(self.plan.batch, CELLS)
        return min(max((self.kept - first) / max(self.plan.context - first, 1), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Correction:
    """What loads of one backend taught about one place: the factor on the plan's bytes there."""

    backend: str
    place: Place
    factor: float
    loads: int
    agree: bool

    @property
    def applied(self) -> bool:
        return self.agree and abs(self.factor - 1) >= WORTH


class Calibration:
    """The loads of this PC and what they taught; every method may be called from any thread."""

    def __init__(self, database: Database, machine: str) -> None:
        """`machine` is this PC's fingerprint: loads elsewhere are kept, but not its own."""
        self._database = database
        self._machine = machine

    def note(
        self,
        began: float,
        model: str,
        plan: MemoryPlan,
        pid: int,
        growth: Growth,
        stats: GenerationStats | None = None,
    ) -> None:
        """Keep what the load that was finished at `began` takes by now; `stats` are of its last answer."""
        told = [card.used_by_hearth for card in nvidia_gpus({pid})]
        driver = sum(bytes_ for bytes_ in told if bytes_)
        gpu = driver or growth.gpu
        if not any(part.startswith("gpu_") for part in plan.parts):
            gpu = None
        read = stats.prompt_tokens - stats.cached_tokens if stats else 0
        kept = stats.prompt_tokens + stats.answer_tokens if stats else 0
        row = self._database.row(
            "SELECT id FROM loads WHERE at = ? AND model = ? AND machine = ?",
            (began, model, self._machine),
        )
        if row is None:
            values = (
                began,
                self._machine,
                model,
                json.dumps(asdict(replace(plan, evicts=(), notes=()))),
                growth.ram,
                gpu,
                bool(driver),
                read,
                kept,
            )
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO loads (at, machine, model, plan, ram, gpu, gpu_runtime, read, kept)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
                connection.execute(
                    "DELETE FROM loads WHERE id <= (SELECT max(id) FROM loads) - ?", (KEPT,)
                )
        else:
            self._database.execute(
                "UPDATE loads SET ram = max(ram, ?), gpu = max(coalesce(gpu, ?), ?),"
                " read = max(read, ?), kept = max(kept, ?) WHERE id = ?",
                (growth.ram, gpu, gpu, read, kept, row["id"]),
            )

    def loads(self, limit: int = NEWEST) -> list[Load]:
        """The newest loads on this PC, the newest first."""
        rows = self._database.rows(
            f"SELECT {_COLUMNS} FROM loads WHERE machine = ? ORDER BY at DESC LIMIT ?",
            (self._machine, limit),
        )
        return [_load(row) for row in rows]

    def load_at(self, began: float) -> Load | None:
        """The load that was finished at that moment."""
        row = self._database.row(f"SELECT {_COLUMNS} FROM loads WHERE at = ?", (began,))
        return _load(row) if row else None

    def corrections(self) -> list[Correction]:
        """What the loads of this PC taught, by backend and place."""
        return learnt(self.loads(4 * NEWEST))

    def factors(self) -> dict[str, float]:
        """What `plan` is given: factors by 'backend/place', only those that are applied."""
        return _factors(self.corrections())


def learnt(loads: Iterable[Load]) -> list[Correction]:
    """What these loads, the newest first, agree on."""
    ratios: dict[tuple[str, Place], list[float]] = {}
    for load in loads:
        for place in get_args(Place):
            ratio = load.ratio(place) if load.complete else None
            of_place = ratios.setdefault((load.plan.backend, place), [])
            if ratio is not None and len(of_place) < NEWEST:
                of_place.append(ratio)
    return [_correction(*key, found) for key, found in ratios.items() if found]


def recorded(file: Path, machine: str, limit: int = NEWEST) -> list[Load]:
    """The newest loads in that database, only read, also while another process owns it."""
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'loads'").fetchone():
            return []  # written by an earlier Hearth
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM loads WHERE machine = ? ORDER BY at DESC LIMIT ?",
            (machine, limit),
        ).fetchall()
    return [_load(row) for row in rows]


def recorded_factors(file: Path, machine: str) -> dict[str, float]:
    """What `plan` is given, from that database, only read."""
    return _factors(learnt(recorded(file, machine, 4 * NEWEST)))


def to_dict(load: Load) -> dict[str, Any]:
    """The load as `hardware --json` prints it: bytes, and the error as a share."""
    plan = load.plan
    return {
        "at": load.at,
        "model": load.model,
        "backend": plan.backend,
        "device": plan.device,
        "context": plan.context,
        "kv_type": plan.kv_type,
        "predicted": load.predicted,
        "measured": load.measured,
        "error": load.error,
        "complete": load.complete,
    }


def _factors(corrections: Iterable[Correction]) -> dict[str, float]:
    return {f"{c.backend}/{c.place}": c.factor for c in corrections if c.applied}


def _correction(backend: str, place: Place, ratios: list[float]) -> Correction:
    middle = statistics.median(ratios)
    spread = statistics.median(abs(ratio - middle) for ratio in ratios)
    agree = len(ratios) >= ENOUGH and spread <= AGREE * middle
    return Correction(backend, place, min(max(middle, LEAST), MOST), len(ratios), agree)


def _load(row: Mapping[str, Any] | sqlite3.Row) -> Load:
    return Load(
        id=row["id"],
        at=row["at"],
        model=row["model"],
        plan=_plan(json.loads(row["plan"])),
        ram=row["ram"],
        gpu=row["gpu"],
        gpu_runtime=bool(row["gpu_runtime"]),
        read=row["read"],
        kept=row["kept"],
    )


def _plan(kept: dict[str, Any]) -> MemoryPlan:
    """The plan as far as this Hearth knows its fields; the sentences about the day it was made are not kept."""
    known = {field.name for field in fields(MemoryPlan)} - {"evicts", "notes"}
    plan = {key: value for key, value in kept.items() if key in known}
    return MemoryPlan(
        **{**plan, "cards": tuple(CardShare(**card) for card in plan.get("cards", ()))}
    )
