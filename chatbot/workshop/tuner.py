"""Measures once which threads, batch and attention suit a model on this PC, when nobody waits for anything.

Only for models that the CPU runs through llama.cpp, and after an answer: the first one is never delayed. A
question ends the measurement at once; the next quiet moment begins it anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from chatbot.database import Database
from chatbot.engines.base import EngineSpec
from chatbot.engines.host import EngineHost, LoadedModel
from chatbot.errors import Cancelled, ChatbotError
from chatbot.hardware.detect import detect
from chatbot.jobs import Jobs
from chatbot.memory.facts import ModelFacts
from chatbot.types import Tuned

QUIET_SECONDS = 20.0
"""After an answer; a person who reads it and asks on does so later, or ends the measurement."""
AGAIN_SECONDS = 300.0
"""Before what was given up, or went wrong, is tried once more."""

log = logging.getLogger(__name__)


def quiet(loaded: LoadedModel, now: float) -> bool:
    """Whether that model has answered and rests since."""
    return loaded.last_used > loaded.loaded_at and now - loaded.last_used >= QUIET_SECONDS


class Tuner:
    """What was measured on this PC, and when to measure; every method may be called from any thread."""

    def __init__(
        self, database: Database, machine: Callable[[], str], engines: EngineHost, jobs: Jobs
    ) -> None:
        self._database = database
        self._machine = machine
        self._engines = engines
        self._jobs = jobs
        self._not_before = 0.0

    def kept(self, facts: ModelFacts) -> Tuned | None:
        """What suits such a model here; None before that was measured, and for a folder's models."""
        from chatbot.memory import tuning

        if facts.format != "gguf":
            return None
        return tuning.kept(self._database, self._machine(), tuning.shape(facts), tuning.build())

    def keep(self, spec: EngineSpec, tuned: Tuned) -> None:
        """From the next load on, models like that one run so."""
        from chatbot.memory import tuning
        from chatbot.memory.headers import read_model

        shape = tuning.shape(read_model(Path(spec.path)))
        tuning.keep(self._database, self._machine(), shape, tuning.build(), tuned)

    def measure_when_quiet(self) -> Tuned | None:
        """Measure the loaded model, unless that was done, or something goes on, or memory is short."""
        loaded, now = self._engines.loaded, time.time()
        if loaded is None or not quiet(loaded, now) or now < self._not_before:
            return None
        if self._engines.busy or self._jobs.list(active=True) or not self._wanted(loaded.spec):
            return None
        self._not_before = now + AGAIN_SECONDS
        return self.measure()

    def measure(self, report: Callable[[], None] = lambda: None) -> Tuned | None:
        """Measure the loaded model now, also when that was done; None where it could not be.

        `report` is asked twice a second, and may raise Cancelled.
        """
        try:
            return self._engines.tune(report)
        except Cancelled:
            raise
        except ChatbotError as error:  # the usual way is always there
            log.info("not measured: %s", error)
            return None

    def _wanted(self, spec: EngineSpec) -> bool:
        from chatbot.memory import room, tuning
        from chatbot.memory.headers import read_model

        if spec.backend != "llama_cpp" or spec.gpu_layers:
            return False
        try:
            facts, hardware = read_model(Path(spec.path)), detect()
        except ChatbotError:  # its file is gone
            return False
        free = hardware.ram_available - room.spare(hardware)
        return self.kept(facts) is None and tuning.room(facts) <= free
