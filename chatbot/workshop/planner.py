"""How models would run now: the plan asked with everything that this Hearth knows of its PC."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatbot.engines.base import EngineSpec
from chatbot.engines.host import EngineHost
from chatbot.errors import ChatbotError
from chatbot.hardware.detect import installed
from chatbot.models.store import ModelStore
from chatbot.settings import Settings
from chatbot.types import Evicted, Hardware, MemoryPlan, ModelArtifact, Tuned

if TYPE_CHECKING:
    from chatbot.memory.alternatives import Alternative, Case
    from chatbot.memory.facts import ModelFacts
    from chatbot.memory.room import Beside

# Imported where they are needed, for the sake of a quick start: chatbot.memory, models.lighter.


@dataclass(frozen=True, slots=True)
class Planner:
    """Puts the case of a model to the plan; every function is asked anew each time."""

    models: ModelStore
    engines: EngineHost
    hardware: Callable[[], Hardware]
    corrections: Callable[[], Mapping[str, float]]
    tuned: Callable[[ModelFacts], Tuned | None]
    planned: Callable[[EngineSpec], MemoryPlan | None]
    search: Callable[[], tuple[Settings, int | None]]
    """The settings, and the process that holds the search's models."""

    def case(self, path: Path, model_id: str = "", **wishes: Any) -> Case:
        """What is asked: what is loaded counts as free, for it would make room. Raises BrokenModel, ModelError."""
        from chatbot.memory.alternatives import Case
        from chatbot.memory.beside import after_ending
        from chatbot.memory.headers import read_model
        from chatbot.memory.plan import Wishes
        from chatbot.memory.room import allowed

        facts = read_model(path)
        hardware = allowed(self.hardware(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        evicts: tuple[Evicted, ...] = ()
        if loaded := self.engines.loaded:
            spec = loaded.spec
            hardware, gone = after_ending(hardware, spec.title, loaded.pid, self.planned(spec))
            evicts = (gone,) if spec.model_id != model_id else ()
        return Case(
            hardware,
            facts,
            Wishes(**wishes, measured=self.tuned(facts)),
            installed(),
            self.corrections(),
            beside_search(*self.search(), hardware),
            evicts,
        )

    def alternatives(
        self, case: Case, found: MemoryPlan, model: ModelArtifact
    ) -> tuple[Alternative, ...]:
        """What else could be had from that model, also from its other files on this PC."""
        from chatbot.memory.alternatives import Variant, alternatives
        from chatbot.models.lighter import others_than

        same = [other for other in others_than(self.models, model) if other.same]
        ready = {other.facts.quantisation for other in same if not other.type}
        ready.add(case.facts.quantisation)
        variants = [
            Variant(other.model_id, other.facts, ready=not other.type)
            for other in same
            if not other.type or other.type not in ready
        ]
        return alternatives(case, found, variants)


def beside_search(settings: Settings, pid: int | None, hardware: Hardware) -> Beside:
    """What the search's models will still take; `pid` is the process that holds what they took."""
    from chatbot.library.embedders import SURFACE, local_folder
    from chatbot.memory.beside import search_models

    folders = {}
    for name in (settings.embedder, settings.reranker):
        if name not in ("", SURFACE):
            try:
                folders[Path(name).name] = local_folder(name, allow_download=False)
            except ChatbotError:  # not here, so search does without it
                continue
    on_gpu = installed().transformers_gpu and hardware.device != "cpu"
    return search_models(folders, pid, hardware, on_gpu=on_gpu)
