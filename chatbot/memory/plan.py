"""How a model should run on this PC: one pure function of hardware now, model facts and wishes.

Transformers with 16-bit weights where a GPU has the free memory for it; a GGUF through llama.cpp
with as many layers on the GPUs as fit; else the CPU. The plan always says why, in numbers, and every
choice can be wished otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from chatbot.errors import MissingBackend, ModelError, SettingsError
from chatbot.hardware.detect import Installed
from chatbot.i18n import GB, N_
from chatbot.memory.explain import explain
from chatbot.memory.facts import ModelFacts
from chatbot.memory.footprint import KV_TYPES, PRECISIONS
from chatbot.memory.pickles import NOT_YET
from chatbot.memory.reading import read_per_token
from chatbot.memory.room import Beside, Room, room
from chatbot.memory.ways import Seat, Way, can_quantise_cache, most_layers
from chatbot.types import (
    Backend,
    CardShare,
    Evicted,
    Gpu,
    Hardware,
    MemoryPlan,
    Note,
    Tuned,
)

USUAL_CONTEXT = 8192
ROOMY_CONTEXT = (
    4096  # a question with its passages; below this, some layers on the CPU are the lesser evil
)
SMALLEST_CONTEXT = 1024
USUAL_BATCH = 512
BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")  # without one, torch computes BF16 slowly on a CPU
WORTH_SAYING = 500_000_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person chose; None leaves it to the plan. `gpu_layers` counts the output layer too.

    `measured` is no wish: what a measurement on this PC chose, where the person left it open.
    """

    context: int | None = None
    kv_type: str | None = None
    batch: int | None = None
    backend: Backend | None = None
    gpu_layers: int | None = None
    precision: str | None = None
    threads: int | None = None
    flash: bool | None = None
    measured: Tuned | None = None


@dataclass(frozen=True, slots=True)
class _Try:
    """A way, and the shortest and the longest context to try it with."""

    way: Way
    least: int
    most: int


def plan(
    hardware: Hardware,
    facts: ModelFacts,
    wishes: Wishes | None = None,
    installed: Installed | None = None,
    corrections: Mapping[str, float] | None = None,
    *,
    beside: Beside | None = None,
    evicts: Sequence[Evicted] = (),
) -> MemoryPlan:
    """The best way this PC can run the model now, or the least bad one with `fits` False.

    Without a wished context, it is the model's own up to 8,192 tokens, made shorter until it fits.
    `corrections` are what earlier loads here taught (`Calibration.factors`): 'llama_cpp/ram' → 1.04.
    `beside` is what Hearth's search will still take; what `evicts` holds is free in `hardware` already.
    Raises ModelError for a model that writes no text, MissingBackend, SettingsError for odd wishes.
    """
    wishes, installed = wishes or Wishes(), installed or Installed()
    _check(facts, wishes, installed)
    backend: Backend = "transformers" if facts.format == "hf" else "llama_cpp"
    learnt = {
        place: factor
        for key, factor in (corrections or {}).items()
        for of, _, place in (key.partition("/"),)
        if of == backend
    }
    space = room(hardware, beside)
    if backend == "transformers":
        seat = _first(_transformers(hardware, facts, wishes, installed, space, learnt))
    else:
        seat = _first(_llama_cpp(facts, wishes, installed, space, learnt))
    notes = _notes(seat, wishes, installed, space, beside)
    return _plan(seat, hardware, wishes, tuple(notes), tuple(evicts))


def to_dict(plan: MemoryPlan) -> dict[str, Any]:
    """The plan as `models plan --json` prints it; sizes in bytes."""
    told = asdict(plan)
    del told["notes"]  # they are in `reason`
    return told


# --- what may be wished ---------------------------------------------------------------------


def _check(facts: ModelFacts, wishes: Wishes, installed: Installed) -> None:
    name = facts.name
    if facts.format == "pt":
        raise ModelError(NOT_YET, name=name)
    if not facts.writes_text:
        raise ModelError(N_("it is not a model that writes text."), name=name)
    if facts.quantised_by:
        raise ModelError(
            N_("its weights are quantised with {part}; choose the plain model or a GGUF file."),
            name=name,
            part=facts.quantised_by,
        )
    backend: Backend = "transformers" if facts.format == "hf" else "llama_cpp"
    if wishes.backend not in (None, backend):
        raise ModelError(
            N_("GGUF files run through llama.cpp, model folders through transformers."), name=name
        )
    if backend == "transformers" and not installed.transformers:
        raise MissingBackend("transformers, torch", name=name)
    if backend == "llama_cpp" and not installed.llama_cpp:
        raise MissingBackend("llama-cpp-python", name=name)
    _in_range("context", wishes.context, 1, 1 << 24)
    _in_range("batch", wishes.batch, 1, 1 << 16)
    _in_range("gpu_layers", wishes.gpu_layers, -1, 1 << 16)
    _in_range("threads", wishes.threads, 1, 1 << 12)
    if wishes.kv_type not in (None, *KV_TYPES):
        raise SettingsError(f"kv_type = {wishes.kv_type}")
    if wishes.kv_type not in (None, "f16") and backend == "transformers":
        raise ModelError(
            N_("its KV cache can only be quantised after it was converted to GGUF."), name=name
        )
    if wishes.kv_type not in (None, "f16") and not can_quantise_cache(facts):
        raise ModelError(
            N_("its KV cache cannot be quantised: its heads do not fit whole blocks."), name=name
        )
    if wishes.precision is not None:
        possible = PRECISIONS if backend == "transformers" else (facts.quantisation,)
        if wishes.precision.lower() not in (kind.lower() for kind in possible):
            raise SettingsError(f"precision = {wishes.precision}")


def _in_range(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise SettingsError(f"{name} = {value}")


# --- what could be done ---------------------------------------------------------------------


def _contexts(facts: ModelFacts, wishes: Wishes) -> tuple[int, int, int]:
    """The smallest, the roomy and the usual context; all the same where one is wished."""
    longest = facts.context or USUAL_CONTEXT
    if wishes.context is not None:
        return (min(wishes.context, longest),) * 3
    usual = min(longest, USUAL_CONTEXT)
    return min(SMALLEST_CONTEXT, usual), min(ROOMY_CONTEXT, usual), usual


def _transformers(
    hardware: Hardware,
    facts: ModelFacts,
    wishes: Wishes,
    installed: Installed,
    space: Room,
    learnt: Mapping[str, float],
) -> Iterator[_Try]:
    """The roomiest GPU first, then the CPU in BF16 or FP32, the faster first."""
    smallest, roomy, usual = _contexts(facts, wishes)
    every = len(facts.layers) + 1

    def way(precision: str, layers: int) -> Way:
        precision = wishes.precision.lower() if wishes.precision else precision
        kv_type = "f32" if precision == "fp32" else "f16"
        batch = wishes.batch or USUAL_BATCH
        return Way(
            "transformers", precision, kv_type, layers, facts, batch, space, learnt, wishes.threads
        )

    ways = []
    if space.cards and installed.transformers_gpu and wishes.gpu_layers != 0:
        ways.append(way("bf16" if space.cards[0][0].bf16 else "fp16", every))
    if not (ways and wishes.gpu_layers):
        fast_bf16 = any(flag in BF16_UNITS for flag in hardware.cpu_flags)
        ways += [way(name, 0) for name in (("bf16",) if fast_bf16 else ("fp32", "bf16"))]
    for least, most in ((roomy, usual), (smallest, roomy)):
        for one in ways:
            yield _Try(one, least, most)


def _llama_cpp(
    facts: ModelFacts,
    wishes: Wishes,
    installed: Installed,
    space: Room,
    learnt: Mapping[str, float],
) -> Iterator[_Try]:
    """Every layer on the GPUs, then as many as fit, then none; a wished number of layers stands alone.

    The cache is quantised only where f16 would push the context below a roomy one, or the wished one, or
    layers off the GPUs; on a CPU it makes reading slower, so there after everything else.
    """
    smallest, roomy, usual = _contexts(facts, wishes)
    every = len(facts.layers) + 1
    quantisable = wishes.kv_type is None and can_quantise_cache(facts)

    def way(layers: int, kv_type: str = "") -> Way:
        kv_type = kv_type or wishes.kv_type or "f16"
        measured = wishes.measured if not layers else None  # on the CPU alone
        batch = wishes.batch or (measured.batch if measured else USUAL_BATCH)
        flash = wishes.flash if measured is None or wishes.flash is not None else measured.flash
        return Way(
            "llama_cpp", facts.quantisation, kv_type, layers, facts, batch, space, learnt,
            wishes.threads or (measured.threads if measured else None),
            measured.threads_batch if measured and not wishes.threads else 0,
            flash if kv_type == "f16" else None,  # a quantised cache needs it
        )  # fmt: skip

    wished = wishes.gpu_layers
    if not (space.cards and installed.llama_cpp_gpu):
        counts = [0]
    elif wished is not None:
        counts = [every if wished < 0 else min(wished, every)]
    else:
        counts = [every]
    if counts == [every]:
        yield _Try(way(every), roomy, usual)
        if quantisable:
            yield _Try(way(every, "q8_0"), roomy, roomy)
        if wished is None:
            counts += sorted({most_layers(way(1), usual), 0}, reverse=True)
    for layers in counts:
        if layers != every:
            yield _Try(way(layers), roomy, usual)
    for layers in counts:
        yield _Try(way(layers, "q8_0" if quantisable else ""), smallest, roomy)


# --- what is done ---------------------------------------------------------------------------


def _first(tries: Iterator[_Try]) -> Seat:
    """The first that fits, else the one that lacks the least."""
    tried = []
    for one in tries:
        if found := one.way.longest(one.least, one.most):
            return found
        tried.append(one)
    return min((one.way.at(one.least) for one in tried), key=lambda seat: seat.over)


def _notes(
    seat: Seat, wishes: Wishes, installed: Installed, space: Room, beside: Beside | None
) -> Iterator[Note]:
    """What decided besides the bytes themselves."""
    way = seat.way
    if seat.fits and way.kv_type == "q8_0" and wishes.kv_type is None:
        exact = replace(way, kv_type="f16").longest(1, seat.context)
        text = (
            N_("KV cache in q8_0: in f16 only {context} tokens would fit.")
            if exact
            else N_("KV cache in q8_0: in f16 it would not fit.")
        )
        yield Note(text, {"context": exact.context} if exact else {})
        if not way.whole:
            yield Note(N_("On the CPU that makes reading a prompt about a third slower."))
    usable = (
        installed.transformers_gpu if way.backend == "transformers" else installed.llama_cpp_gpu
    )
    if usable and space.cards and not way.layers and wishes.gpu_layers is None:
        gpu = space.cards[0][0]
        yield Note(
            N_("{name} has only {free} of {total} GB free."),
            {"name": gpu.name, "free": gpu.free / GB, "total": gpu.total / GB},
        )
        if way.backend == "transformers" and len(space.cards) > 1:
            yield Note(
                N_("transformers uses one GPU here; a GGUF is shared by the {count} of this PC."),
                {"count": len(space.cards)},
            )
    total = sum(gpu.total for gpu in seat.cards)
    taken = total - sum(gpu.free for gpu in seat.cards)
    if taken >= WORTH_SAYING and not space.unified:
        yield Note(
            N_("Other programs hold {taken} of the {total} GB on the GPU."),
            {"taken": taken / GB, "total": total / GB},
        )
    if beside and beside.ram + beside.gpu >= WORTH_SAYING // 10:
        yield Note(
            N_("{size} GB are kept for searching your documents ({names})."),
            {"size": (beside.ram + beside.gpu) / GB, "names": ", ".join(beside.names)},
        )


def _plan(
    seat: Seat, hardware: Hardware, wishes: Wishes, notes: tuple[Note, ...],
    evicts: tuple[Evicted, ...],
) -> MemoryPlan:  # fmt: skip
    way, footprint = seat.way, seat.footprint
    device = _device(way, seat.cards)
    free = sum(gpu.free for gpu in seat.cards) or hardware.ram_available
    if hardware.unified_memory:
        free = min(free, hardware.ram_available)
    elif device.endswith("+cpu"):
        free += hardware.ram_available
    parts = {**footprint.ram, **{f"gpu_{key}": size for key, size in footprint.gpu.items()}}
    width = PRECISIONS[way.precision] if way.backend == "transformers" else None
    found = MemoryPlan(
        backend=way.backend,
        precision=way.precision,
        device=device,
        gpu_layers=way.layers,
        context=seat.context,
        kv_type=way.kv_type,
        batch=way.batch,
        threads=way.threads or hardware.cores_physical,
        parts={key: size for key, size in parts.items() if size},
        total=sum(parts.values()),
        free=free,
        fits=seat.fits,
        reason="",
        growth=footprint.ram_growth + footprint.gpu_growth,
        learnt={
            place: factor for place, factor in way.learnt.items() if place == "ram" or footprint.gpu
        },
        layers=len(way.facts.layers) + 1,
        cards=tuple(
            CardShare(gpu.index, gpu.name, layers, dict(parts), gpu.free)
            for gpu, layers, parts in zip(seat.cards, seat.split, footprint.cards, strict=True)
        ),
        evicts=evicts,
        reads=read_per_token(way.facts, way.layers, width),
        notes=notes,
        flash="" if way.flash is None else "on" if way.flash else "off",
        threads_batch=way.threads_batch,
        steady=wishes.threads is not None,
    )
    return replace(found, reason=explain(found, "en"))


def _device(way: Way, cards: Sequence[Gpu]) -> str:
    if not cards:
        return "cpu"
    return cards[0].kind if way.whole else f"{cards[0].kind}+cpu"
