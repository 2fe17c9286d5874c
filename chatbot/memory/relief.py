"""What helps when memory ran out: ways to need less, the one that harms least first.

One pure function of hardware now, model facts, the plan that failed, and where and when it failed. Each
way truly needs less in the place that ran out, by the same plan, and fits what is free now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from chatbot.errors import ChatbotError, MemoryPhase, MemoryPlace, OutOfMemory
from chatbot.i18n import N_, filled, translate
from chatbot.memory.alternatives import Case
from chatbot.memory.facts import ModelFacts
from chatbot.memory.plan import Wishes
from chatbot.types import Language, MemoryPlan

CureKind = Literal["batch", "kv", "layers", "context", "cpu", "version", "make", "model", "quotes"]

SMALLEST_CONTEXT = 1024
SMALLEST_BATCH = 32
CONTEXT_STEP = 256
WORTH_SHARE, WORTH = 0.02, 1 << 20
"""A saving below both would only fail once more."""
_ASKED = ("context", "kv_type", "batch", "gpu_layers", "precision")
_BLOCK = 32
"""Values that a quantised cache keeps together; rows of another width cannot be quantised."""

# Reading takes its room in batches, so a smaller one helps only there, and where it is reserved at once.
_ORDER: Mapping[tuple[MemoryPhase, MemoryPlace], tuple[CureKind, ...]] = {
    ("load", "ram"): ("kv", "context", "batch"),
    ("load", "gpu"): ("batch", "kv", "layers", "context", "cpu"),
    ("prefill", "ram"): ("batch", "kv", "context"),
    ("prefill", "gpu"): ("batch", "kv", "layers", "context", "cpu"),
    ("decode", "ram"): ("kv", "context", "batch"),
    ("decode", "gpu"): ("kv", "layers", "context", "cpu"),
}

WORDS: Mapping[CureKind, str] = {
    "batch": N_("Read in smaller pieces: {new} tokens at a time instead of {old}"),
    "kv": N_("Keep what was read in 8 bits: KV cache {new} instead of {old}"),
    "layers": N_("Put fewer layers on the graphics card: {new} instead of {old}"),
    "context": N_("Use a shorter context: {new} tokens instead of {old}"),
    "cpu": N_("Run the model on the processor instead of the graphics card"),
    "version": N_("Use the smaller version “{name}” of the same model"),
    "make": N_("Make a smaller version ({type}) of this model"),
    "model": N_("Use the smaller model “{name}”"),
    "quotes": N_("Answer with quotations from the documents, without a model"),
}
NOTICES: Mapping[CureKind, str] = {
    "batch": N_(
        "Memory had run out, so this was read in smaller pieces: {new} tokens at a time instead of {old}."
    ),
    "kv": N_(
        "Memory had run out, so what was read is kept in 8 bits: KV cache {new} instead of {old}."
    ),
    "layers": N_(
        "Memory had run out, so fewer layers are on the graphics card: {new} instead of {old}."
    ),
    "context": N_("Memory had run out, so the context is shorter: {new} tokens instead of {old}."),
    "cpu": N_(
        "Memory had run out, so the model runs on the processor instead of the graphics card."
    ),
    "version": N_("Memory had run out, so the smaller version “{name}” of the same model answers."),
    "model": N_("Memory had run out, so the smaller model “{name}” answers."),
    "quotes": N_("Memory had run out, so this is quoted from the documents, without a model."),
}
"""What stays on an answer that was written so."""
LABELS: Mapping[CureKind, str] = {
    "batch": N_("Read in smaller pieces"),
    "kv": N_("Keep what was read in 8 bits"),
    "layers": N_("Fewer layers on the graphics card"),
    "context": N_("Use a shorter context"),
    "cpu": N_("Run on the processor"),
    "version": N_("Use “{name}”"),
    "make": N_("Make a smaller version ({type})"),
    "model": N_("Use “{name}”"),
    "quotes": N_("Answer with quotations"),
}
"""WORDS as short as they fit on a button; what was and what will be is said beside it."""
PRICES: Mapping[CureKind, str] = {
    "batch": N_("It reads a little slower; the answer stays the same."),
    "kv": N_("The answer hardly changes."),
    "layers": N_("It writes slower; the answer stays the same."),
    "context": N_("Less of a long conversation is remembered; what does not fit is said."),
    "cpu": N_("It writes much slower; the answer stays the same."),
    "version": N_("The same model, made smaller: its answers are a little less exact."),
    "make": N_("That takes some minutes; its answers are a little less exact."),
    "model": N_("A smaller model: its answers are simpler."),
    "quotes": N_("They are word for word, and need hardly any memory."),
}


@dataclass(frozen=True, slots=True)
class Cure:
    """One way to need less: the model and the wishes to load it with, and bytes in the place that ran out.

    `words` is a msgid that `values` fill in.
    """

    kind: CureKind
    model_id: str
    wishes: dict[str, Any] = field(default_factory=dict)
    needs: int = 0
    saves: int = 0
    words: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def text(self, language: Language) -> str:
        """What it does, without a full stop."""
        return filled(self.words, self.values, language)

    def label(self, language: Language) -> str:
        """What it does, for a button."""
        return filled(LABELS[self.kind], self.values, language)

    def price(self, language: Language) -> str:
        """What it costs the person."""
        return translate(PRICES[self.kind], language)

    def notice(self, language: Language) -> str:
        """What an answer says that was written so."""
        return filled(NOTICES[self.kind], self.values, language)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Cure:
        """The cure that `to_dict` described; unknown keys of newer versions are ignored."""
        known = {one.name for one in fields(Cure)}
        return Cure(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, slots=True)
class Other:
    """Another model that could answer: of the `same` model a smaller version, or one of its own.

    `type` is set where that version is still to be made.
    """

    model_id: str
    facts: ModelFacts
    name: str
    same: bool = False
    type: str = ""


def cures_of(error: OutOfMemory) -> tuple[Cure, ...]:
    """What would help after that error, the least harm first; empty where nobody worked it out."""
    return tuple(Cure.from_dict(one) for one in error.values.get("cures", ()))


def quotes(model_id: str) -> Cure:
    """The last way, which is always there; `model_id` is what stands for 'no model'."""
    return Cure("quotes", model_id, words=WORDS["quotes"])


def relieve(
    failed: MemoryPlan,
    case: Case,
    model_id: str,
    *,
    place: MemoryPlace,
    phase: MemoryPhase,
    others: Sequence[Other] = (),
) -> tuple[Cure, ...]:
    """Ways to need less than `failed` did, the least harm first, each with how much less it needs.

    Not among them: quotations, which need no model. `case` is the model on the PC as it is once the failed
    one is gone.
    """
    failure = _Failure(failed, place, case)
    cures = [failure.changed(kind, model_id) for kind in _ORDER[phase, place]]
    versions = [other for other in others if other.same and not other.type]
    to_make = [other for other in others if other.same and other.type]
    made = failure.best("version", versions) or failure.best("make", to_make)
    cures += [made, failure.best("model", [other for other in others if not other.same])]
    return tuple(cure for cure in cures if cure)


def need(found: MemoryPlan, place: MemoryPlace, *, pooled: bool = False) -> int:
    """Bytes that the plan takes in that place with a full context; of `pooled` memory both are one."""
    if pooled:
        return sum(found.parts.values()) + found.growth
    on_gpu = {name: size for name, size in found.parts.items() if name.startswith("gpu_")}
    parts = on_gpu if place == "gpu" else {n: s for n, s in found.parts.items() if n not in on_gpu}
    grows: MemoryPlace = "gpu" if on_gpu and found.backend == "transformers" else "ram"
    return sum(parts.values()) + (found.growth if grows == place else 0)


@dataclass(frozen=True, slots=True)
class _Failure:
    """What failed and where: it judges what would need less."""

    failed: MemoryPlan
    place: MemoryPlace
    case: Case

    def changed(self, kind: CureKind, model_id: str) -> Cure | None:
        """The smallest step of that kind that helps, everything else as it was."""
        failed = self.failed
        as_it_was = replace(
            self.case.wishes,
            context=failed.context,
            kv_type=failed.kv_type if failed.backend == "llama_cpp" else None,
            batch=failed.batch,
            gpu_layers=failed.gpu_layers,
            precision=failed.precision if failed.backend == "transformers" else None,
        )
        for old, new, change in _steps(kind, failed, self.case.facts):
            wishes = replace(as_it_was, **change)
            found = self._planned(self.case.facts, wishes)
            moved = found and found.device != failed.device and kind not in ("layers", "cpu")
            if found and not moved and found.context == wishes.context:
                asked = {key: wish for key in _ASKED if (wish := getattr(wishes, key)) is not None}
                return self._cure(kind, found, model_id, asked, old=old, new=new)
        return None

    def best(self, kind: CureKind, others: Sequence[Other]) -> Cure | None:
        """The largest of these models that helps: it can do most."""
        plans = []
        for other in others:
            context = min(self.failed.context, other.facts.context or self.failed.context)
            found = self._planned(other.facts, Wishes(context=context))
            if found and found.total < self.failed.total:
                plans.append((found, other))
        if not plans:
            return None
        found, other = max(plans, key=lambda pair: pair[0].total)
        wishes = {"context": found.context}
        return self._cure(kind, found, other.model_id, wishes, name=other.name, type=other.type)

    def _planned(self, facts: ModelFacts, wishes: Wishes) -> MemoryPlan | None:
        """The plan, where it fits and truly needs less."""
        try:
            found = replace(self.case, facts=facts, wishes=wishes).plan()
        except ChatbotError:  # its library is missing, or nothing here can run it
            return None
        needed = self._need(self.failed)
        worth = max(WORTH, int(needed * WORTH_SHARE))
        return found if found.fits and needed - self._need(found) >= worth else None

    def _cure(
        self,
        kind: CureKind,
        found: MemoryPlan,
        model_id: str,
        wishes: dict[str, Any],
        **values: str,
    ) -> Cure:
        needs = self._need(found)
        saves = self._need(self.failed) - needs
        return Cure(kind, model_id, wishes, needs, saves, WORDS[kind], values)

    def _need(self, found: MemoryPlan) -> int:
        return need(found, self.place, pooled=self.case.hardware.unified_memory)


def _steps(
    kind: CureKind, failed: MemoryPlan, facts: ModelFacts
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What was, what it could be, and the wish that makes it so; the smallest step first."""
    on_llama = failed.backend == "llama_cpp"
    if kind == "batch":
        batch = failed.batch
        while batch > SMALLEST_BATCH:
            batch = max(batch // 4, SMALLEST_BATCH)
            yield f"{failed.batch}", f"{batch}", {"batch": batch}
    elif kind == "kv" and on_llama and failed.kv_type == "f16" and _quantisable(facts):
        yield "f16", "q8_0", {"kv_type": "q8_0"}
    elif kind == "layers" and on_llama:
        for quarters in (3, 2, 1):
            layers = failed.gpu_layers * quarters // 4
            if 0 < layers < failed.gpu_layers:
                yield f"{failed.gpu_layers}", f"{layers}", {"gpu_layers": layers}
    elif kind == "context":
        context = failed.context
        while context > SMALLEST_CONTEXT:
            context = max(context // 2 // CONTEXT_STEP * CONTEXT_STEP, SMALLEST_CONTEXT)
            yield f"{failed.context}", f"{context}", {"context": context}
    elif kind == "cpu" and failed.gpu_layers:
        yield "", "", {"gpu_layers": 0, "precision": None}


def _quantisable(facts: ModelFacts) -> bool:
    lengths = [n for layer in facts.layers for n in (layer.key_length, layer.value_length) if n]
    return bool(lengths) and all(length % _BLOCK == 0 for length in lengths)
