"""What else could be had from a model here: now, with more free memory, or from another file of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from chatbot.errors import ModelError, SettingsError
from chatbot.hardware.detect import Installed
from chatbot.i18n import GB, N_, figure, translate
from chatbot.memory import plan as planning
from chatbot.memory.facts import ModelFacts
from chatbot.memory.footprint import Place
from chatbot.memory.plan import ROOMY_CONTEXT, SMALLEST_CONTEXT, Wishes
from chatbot.memory.room import Beside
from chatbot.types import Evicted, Hardware, Language, MemoryPlan

Kind = Literal["context", "kv_type", "gpu_layers", "batch", "memory", "file"]
CONTEXTS = (2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
SMALL_BATCH = 128
MOST = 4
STEP = 100_000_000
"""Missing memory is told in tenths of a gigabyte."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that `plan` is asked with."""

    hardware: Hardware
    facts: ModelFacts
    wishes: Wishes = field(default_factory=Wishes)
    installed: Installed = field(default_factory=Installed)
    corrections: Mapping[str, float] = field(default_factory=dict)
    beside: Beside = field(default_factory=Beside)
    evicts: tuple[Evicted, ...] = ()

    def plan(self) -> MemoryPlan:
        """How the model would run. Raises what `plan` raises."""
        return planning.plan(
            self.hardware,
            self.facts,
            self.wishes,
            self.installed,
            self.corrections,
            beside=self.beside,
            evicts=self.evicts,
        )

    def wishing(self, **wishes: Any) -> Case:
        return replace(self, wishes=replace(self.wishes, **wishes))

    def with_more(self, place: Place, bytes_: int) -> Case:
        """The same PC with that much more memory free, and there."""
        here = self.hardware
        if place == "ram" or here.unified_memory:
            here = replace(
                here,
                ram_total=here.ram_total + bytes_,
                ram_available=here.ram_available + bytes_,
            )
        if place == "gpu":
            first = max(here.gpus, key=lambda gpu: (gpu.kind != "rocm", gpu.free))
            cards = (
                replace(gpu, total=gpu.total + bytes_, free=gpu.free + bytes_)
                if gpu is first
                else gpu
                for gpu in here.gpus
            )
            here = replace(here, gpus=tuple(cards))
        return replace(self, hardware=here)


@dataclass(frozen=True, slots=True)
class Variant:
    """Another file of the same model: its id, or that of the model it would be made from."""

    model: str
    facts: ModelFacts
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another way: `wishes` lead there, after `more` bytes more are free in `place`.

    `plan` is what it would be then; `model` is the id of another file, or with `ready` False of the one
    it is made from.
    """

    kind: Kind
    plan: MemoryPlan
    wishes: dict[str, Any] = field(default_factory=dict)
    more: int = 0
    place: Place = "ram"
    model: str = ""
    ready: bool = True

    def words(self, language: Language) -> str:
        """A phrase for people: what it takes, and what it gives."""
        what = " · ".join(self._gains(language))
        if self.more:
            text = N_("With {size} GB more free memory: {what}")
            if self.place == "gpu":
                text = N_("With {size} GB more free on the GPU: {what}")
            return translate(text, language).format(
                size=figure(self.more / GB, language), what=what
            )
        return what

    def _gains(self, language: Language) -> Iterator[str]:
        plan = self.plan

        def say(text: str, **values: Any) -> str:
            return translate(text, language).format(**values)

        if self.kind == "file":
            text = "{type}" if self.ready else N_("{type}, still to be made")
            yield say(text, type=plan.precision)
        if self.kind == "batch":
            yield say(N_("prompt read in pieces of {count} tokens"), count=plan.batch)
        if plan.backend == "llama_cpp" and (plan.kv_type != "f16" or self.kind == "kv_type"):
            slower = plan.kv_type != "f16" and plan.device.endswith("cpu")
            text = N_("KV cache {kind} (reads slower)") if slower else N_("KV cache {kind}")
            yield say(text, kind=plan.kv_type)
        if plan.gpu_layers and self.kind not in ("context", "kv_type"):
            partly = plan.device.endswith("cpu")
            text = N_("{layers} layers on the GPU") if partly else N_("all layers on the GPU")
            yield say(text, layers=plan.gpu_layers)
        yield say(N_("context of {count} tokens"), count=thousands(plan.context, language))

    def to_dict(self) -> dict[str, Any]:
        """As `models plan --json` prints it; sizes in bytes."""
        plan = self.plan
        return {
            "kind": self.kind,
            "words": self.words("en"),
            "wishes": self.wishes,
            "more_free": self.more,
            "place": self.place,
            "model": self.model,
            "ready": self.ready,
            "precision": plan.precision,
            "device": plan.device,
            "gpu_layers": plan.gpu_layers,
            "context": plan.context,
            "kv_type": plan.kv_type,
            "batch": plan.batch,
            "total": plan.total,
            "fits": plan.fits,
        }


def thousands(count: int, language: Language) -> str:
    """8192 as people write it: '8,192', in Vietnamese '8.192'."""
    return f"{count:,}".replace(",", "." if language == "vi" else ",")


def alternatives(
    case: Case, found: MemoryPlan, others: Sequence[Variant] = ()
) -> tuple[Alternative, ...]:
    """What else is worth naming beside `found`, what is possible now first; `others` are files of the same model.

    Each fits under the condition it names.
    """
    if found.fits:
        choices = _richer(case, found, others)
    else:
        choices = _poorer(case, others)
    kept: list[Alternative] = []
    for one in choices:
        if not any(_same(one.plan, other) for other in (found, *(k.plan for k in kept))):
            kept.append(one)
    return tuple(sorted(kept, key=lambda one: one.more)[:MOST])


def _richer(case: Case, found: MemoryPlan, others: Sequence[Variant]) -> Iterator[Alternative]:
    """A longer context, everything on the GPU, an exact cache, a better file; then with more memory."""
    most = min(case.facts.context, 4 * found.context)
    longer = [context for context in CONTEXTS if found.context < context <= most]
    for context in reversed(longer):
        if (one := _now("context", case, context=context)) and _as_quick(one.plan, found):
            cache = {"kv_type": one.plan.kv_type} if one.plan.backend == "llama_cpp" else {}
            yield replace(one, wishes={"context": context, **cache})
            break
    if longer and found.device.endswith("+cpu"):
        fewer = _now("gpu_layers", case, context=longer[0])
        if fewer and 0 < fewer.plan.gpu_layers < found.gpu_layers:
            yield fewer
    if found.device.endswith("cpu"):
        yield from _wholly(case, found)
    if found.kv_type == "q8_0" and case.wishes.kv_type is None:
        exact = _now("kv_type", case, kv_type="f16", gpu_layers=found.gpu_layers)
        if exact and exact.plan.context >= ROOMY_CONTEXT // 2:
            yield exact
    yield from _files(case, found, others)
    yield from _with_memory(case, found, others, longer)


def _wholly(case: Case, found: MemoryPlan) -> Iterator[Alternative]:
    """The longest context with which every layer is on the GPU."""
    for context in reversed(CONTEXTS):
        if SMALLEST_CONTEXT <= context < found.context and (
            one := _now("gpu_layers", case, context=context, gpu_layers=-1)
        ):
            if not one.plan.device.endswith("cpu"):
                yield one
            return


def _with_memory(
    case: Case, found: MemoryPlan, others: Sequence[Variant], longer: Sequence[int]
) -> Iterator[Alternative]:
    """What other programs would have to give back for more layers on the GPU, context or exactness."""
    place: Place = "gpu" if case.hardware.gpus and found.gpu_layers else "ram"
    room = _could_be_freed(case.hardware, place)

    def as_quick(plan: MemoryPlan) -> bool:
        return _as_quick(plan, found)

    if found.device.endswith("+cpu"):
        goal = case.wishing(gpu_layers=-1, context=found.context)
        yield from _more("gpu_layers", goal, place, room, as_quick)
    elif longer:
        kv_type = "f16" if case.wishes.kv_type is None else case.wishes.kv_type
        goal = case.wishing(context=longer[0], kv_type=kv_type)
        yield from _more("context", goal, place, room, as_quick)
    for other in sorted(others, key=lambda other: other.facts.size):
        if other.facts.size > case.facts.size:
            goal = replace(case, facts=other.facts).wishing(
                context=found.context, precision=None, backend=None
            )
            for one in _more("file", goal, place, room, as_quick):
                yield replace(one, model=other.model, ready=other.ready)
                return


def _poorer(case: Case, others: Sequence[Variant]) -> Iterator[Alternative]:
    """What would make it fit, the least harm first."""
    changes: list[tuple[Kind, dict[str, Any]]] = [
        ("batch", {"batch": SMALL_BATCH}),
        ("kv_type", {"kv_type": "q8_0"}),
        ("gpu_layers", {"gpu_layers": None}),
        ("context", {"context": None}),
        ("context", {"context": None, "gpu_layers": None, "kv_type": None}),
    ]
    helps = [one for kind, wishes in changes if (one := _now(kind, case, **wishes))]
    yield from helps
    if not helps:
        wishes = {"context": None, "gpu_layers": None, "kv_type": "q4_0", "batch": SMALL_BATCH}
        if one := _now("kv_type", case, **wishes):
            yield one
    for other in sorted(others, key=lambda other: -other.facts.size):
        if other.facts.size < case.facts.size:
            of_file = replace(case, facts=other.facts).wishing(
                gpu_layers=None, precision=None, backend=None
            )
            if one := _now("file", of_file):
                yield replace(one, model=other.model, ready=other.ready)
                break
    place: Place = "gpu" if case.wishes.gpu_layers and case.hardware.gpus else "ram"
    yield from _more("memory", case, place, None, lambda plan: plan.fits)


def _files(case: Case, found: MemoryPlan, others: Sequence[Variant]) -> Iterator[Alternative]:
    """The most exact other file that runs as well now, and one that runs wholly on the GPU where this does not."""
    for other in sorted(others, key=lambda other: -other.facts.size):
        one = _now("file", replace(case, facts=other.facts).wishing(precision=None, backend=None))
        if one is None:
            continue
        larger = other.facts.size > case.facts.size and one.plan.context >= min(
            found.context, ROOMY_CONTEXT
        )
        quicker = found.device.endswith("cpu") and not one.plan.device.endswith("cpu")
        quicker = quicker or (found.backend == "transformers" and found.device == "cpu")
        if (larger and _as_quick(one.plan, found)) or quicker:
            yield replace(one, model=other.model, ready=other.ready)
            return


def _now(kind: Kind, case: Case, **wishes: Any) -> Alternative | None:
    """That choice, if it fits now."""
    plan = _plan(case.wishing(**wishes))
    return Alternative(kind, plan, wishes) if plan and plan.fits else None


def _more(
    kind: Kind, case: Case, place: Place, most: int | None, good: Callable[[MemoryPlan], bool]
) -> Iterator[Alternative]:
    """That choice with the least more memory with which it is good; nothing where `most` is not enough."""
    plan = _plan(case)
    if plan is None or good(plan):
        return  # impossible, or possible already
    low, high = 0, (plan.total + plan.growth) // STEP + 1
    if most is not None:
        high = min(high, most // STEP)

    def at(steps: int) -> MemoryPlan | None:
        made = _plan(case.with_more(place, steps * STEP))
        return made if made and good(made) else None

    found = at(high)
    if found is None:
        return
    while low + 1 < high:
        middle = (low + high) // 2
        if made := at(middle):
            high, found = middle, made
        else:
            low = middle
    chosen = {name: getattr(case.wishes, name) for name in ("context", "kv_type", "gpu_layers")}
    wishes = {name: wish for name, wish in chosen.items() if wish is not None}
    yield Alternative(kind, found, wishes, high * STEP, place)


def _plan(case: Case) -> MemoryPlan | None:
    try:
        return case.plan()
    except (ModelError, SettingsError):  # such a cache, or such layers, are not for this model
        return None


def _could_be_freed(hardware: Hardware, place: Place) -> int:
    """Bytes that other programs hold."""
    if place == "gpu" and not hardware.unified_memory:
        return max(gpu.total - gpu.free for gpu in hardware.gpus)
    return hardware.ram_total - hardware.ram_available


def _as_quick(plan: MemoryPlan, found: MemoryPlan) -> bool:
    return plan.fits and plan.gpu_layers >= found.gpu_layers


def _same(one: MemoryPlan, other: MemoryPlan) -> bool:
    """Whether a person would see no difference."""

    def seen(plan: MemoryPlan) -> tuple[Any, ...]:
        return plan.precision, plan.context, plan.kv_type, plan.gpu_layers, plan.batch

    return seen(one) == seen(other)
