"""When memory ran out under a model: what would help is worked out, kept, and begun where it takes time."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from chatbot.database import Database
from chatbot.errors import ChatbotError, OutOfMemory
from chatbot.models.store import ModelStore
from chatbot.types import MemoryPlan
from chatbot.workshop.planner import Planner

if TYPE_CHECKING:
    from chatbot.memory.incidents import Incident
    from chatbot.memory.relief import Cure

# Imported where they are needed, for the sake of a quick start: chatbot.memory, models.lighter.

log = logging.getLogger(__name__)


class Rescue:
    """Knows what helps when memory ran out, and remembers when it did."""

    def __init__(
        self,
        database: Database,
        models: ModelStore,
        planner: Planner,
        without_model: str,
    ) -> None:
        """`without_model` is the model id that stands for quotations."""
        self._database = database
        self._models = models
        self._planner = planner
        self._without_model = without_model

    def advise(self, error: OutOfMemory, plan: MemoryPlan | None) -> None:
        """Add to the error the plan that failed and what would help, and keep it."""
        from chatbot.memory.incidents import Incidents
        from chatbot.memory.relief import quotes

        cures = [quotes(self._without_model)]
        try:
            if plan:
                cures = [*self._cures(error, plan), *cures]
        except ChatbotError as why:  # the model was damaged or removed meanwhile
            log.warning("nothing smaller could be worked out: %s", why.code)
        error.add(plan=asdict(plan) if plan else None, cures=[cure.to_dict() for cure in cures])
        try:
            error.add(incident=Incidents(self._database).note(error))
        except ChatbotError as why:  # disk full: the answer tells of it all the same
            log.warning("memory ran out, and that could not be kept: %s", why.code)

    def chosen(self, error: OutOfMemory, cure: Cure) -> None:
        """Keep what is tried now."""
        from chatbot.memory.incidents import Incidents

        if number := error.values.get("incident"):
            Incidents(self._database).cured(number, cure)

    def last(self) -> Incident | None:
        """The newest time; None when memory never ran out."""
        from chatbot.memory.incidents import Incidents

        return Incidents(self._database).last()

    def _cures(self, error: OutOfMemory, plan: MemoryPlan) -> tuple[Cure, ...]:
        from chatbot.memory.relief import relieve
        from chatbot.models.lighter import others_than
        from chatbot.models.relations import base_of

        model = self._models.get(error.values["model_id"])
        base = base_of(self._models, model) if model.format == "adapter" else model
        return relieve(
            plan,
            self._planner.case(Path((base or model).path), model.id),
            model.id,
            place=error.values["place"],
            phase=error.values["phase"],
            others=others_than(self._models, base or model),
        )
