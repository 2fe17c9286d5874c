"""The one loaded model, and the engine that needs none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from chatbot.engines.base import EngineSpec
from chatbot.engines.worker import EngineWorker, Exhausted, Line, Observer, States
from chatbot.types import EngineInfo, Tuned


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The model in memory now: times are seconds since the epoch, `pid` its process."""

    spec: EngineSpec
    info: EngineInfo
    loaded_at: float
    last_used: float
    pid: int
    load_seconds: float


class EngineHost:
    """Owns the model workers, so that never two models are in memory, and the extractive worker.

    All model workers share one line. Loading, answering and unloading each take a turn in it, so
    nobody's answer is cut off by a load or an unload: those wait until the answers before them end.
    A worker that lost its place to another model loads again by itself when it is asked.
    """

    def __init__(
        self,
        observe: Observer | None = None,
        exhausted: Exhausted | None = None,
        tuned: Callable[[EngineSpec, Tuned], None] | None = None,
        states: States = lambda: ("", 0),
    ) -> None:
        """`observe` hears after each load and each answer of a model what its process takes.

        `exhausted` hears when memory ran out under one, and may add to the error what would help;
        `tuned` what a measurement of the loaded model found; `states` tells where what was read is kept.
        """
        self._observe = observe
        self._exhausted = exhausted
        self._tuned = tuned
        self._states = states
        self._line = Line()
        self._lock = threading.Lock()
        self._workers: dict[EngineSpec, EngineWorker] = {}
        self._extractive = EngineWorker(EngineSpec(backend="extractive", name="Hearth"))

    def use(self, spec: EngineSpec) -> EngineWorker:
        """The worker of this model, loaded; any other model is unloaded first.

        Returns at once when the model is in memory, also while it answers. Two callers asking at
        once cause one load. Raises what `EngineWorker.load` raises.
        """
        worker = self.worker(spec)
        if worker is not self._extractive:
            worker.load()
        return worker

    def worker(self, spec: EngineSpec) -> EngineWorker:
        """The worker of this model, loaded or not."""
        if spec.backend == "extractive":
            return self._extractive
        with self._lock:
            worker = self._workers.get(spec)
            if worker is None:
                worker = EngineWorker(
                    spec,
                    self._line,
                    self._make_room,
                    self._observe,
                    self._exhausted,
                    self._tuned,
                    self._states,
                )
                self._workers[spec] = worker
            return worker

    def extractive(self) -> EngineWorker:
        """The engine that quotes; always there."""
        return self._extractive

    @property
    def loaded(self) -> LoadedModel | None:
        """What is in memory now; None without a model, also after its process died."""
        for worker in self._all():
            pid = worker.pid
            if pid is not None:
                return LoadedModel(
                    worker.spec,
                    worker.info,
                    worker.loaded_at,
                    worker.last_used,
                    pid,
                    worker.load_seconds,
                )
        return None

    @property
    def held(self) -> list[EngineSpec]:
        """The models that are in memory, or being loaded now."""
        return [worker.spec for worker in self._all() if worker.holds_files]

    @property
    def busy(self) -> bool:
        """Whether a model is loading, answering or has questions waiting."""
        return not self._line.idle

    def tune(self, report: Callable[[], None] = lambda: None) -> Tuned | None:
        """Measure what suits the loaded model on this PC; `report` and None as `EngineWorker.tune` says."""
        loaded = self.loaded
        return self.worker(loaded.spec).tune(report) if loaded else None

    def unload(self) -> None:
        """Give the model's memory back, once the answers that run or wait are written."""
        with self._line.turn():
            self._make_room(None)

    def unload_idle(self, minutes: float) -> bool:
        """Unload when nobody used the model for that long; True when it did. 0 keeps it."""
        loaded = self.loaded
        if not minutes or not loaded or self.busy:
            return False
        if time.time() - loaded.last_used < minutes * 60:
            return False
        self.unload()
        return True

    def forget(self, conversations: Collection[str] | None) -> None:
        """Keep nothing more on disk of these conversations; None: of all."""
        for worker in self._all():
            worker.forget(conversations)

    def close(self) -> None:
        """End every process now; for the end of Hearth."""
        for worker in (*self._all(), self._extractive):
            worker.close()

    def _all(self) -> list[EngineWorker]:
        with self._lock:
            return list(self._workers.values())

    def _make_room(self, wanted: EngineWorker | None) -> None:
        # Runs in a turn of the line, so no other worker is answering.
        for worker in self._all():
            if worker is not wanted:
                worker.free()
