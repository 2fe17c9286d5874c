"""How a model should run on this PC: one pure function of hardware now, model facts and wishes.

Transformers with 16-bit weights where a GPU has the free memory for it; a GGUF through llama.cpp
with as many layers on the GPU as fit; else the CPU. The plan always says why, in numbers, and every
choice can be wished otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from chatbot.errors import MissingBackend, ModelError, SettingsError
from chatbot.hardware.detect import Installed
from chatbot.i18n import N_, figure, translate
from chatbot.memory.facts import ModelFacts
from chatbot.memory.footprint import (
    KV_TYPES,
    PRECISIONS,
    Footprint,
    llama_cpp_footprint,
    transformers_footprint,
)
from chatbot.memory.pickles import NOT_YET
from chatbot.types import Backend, Gpu, Hardware, Language, MemoryPlan, Tuned

USUAL_CONTEXT = 8192
ROOMY_CONTEXT = (
    4096  # a question with its passages; below this, some layers on the CPU are the lesser evil
)
SMALLEST_CONTEXT = 1024
CONTEXT_STEP = 256
USUAL_BATCH = 512
BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")  # without one, torch computes BF16 slowly on a CPU

MIB = 1 << 20
GB = 10**9


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
class _Way:
    """One way of running the model, its context still open."""

    backend: Backend
    precision: str
    device: str
    gpu_layers: int
    kv_type: str
    footprint: Callable[[int], Footprint]
    batch: int
    threads: int | None = None
    threads_batch: int = 0
    flash: bool | None = None
    learnt: Mapping[str, float] = field(default_factory=dict)

    def at(self, context: int) -> Footprint:
        """What it takes with that context, corrected by what was learnt."""
        plain = self.footprint(context)
        return plain.corrected(self.learnt.get("ram", 1.0), self.learnt.get("gpu", 1.0))


def plan(
    hardware: Hardware,
    facts: ModelFacts,
    wishes: Wishes | None = None,
    installed: Installed | None = None,
    corrections: Mapping[str, float] | None = None,
) -> MemoryPlan:
    """The best way this PC can run the model now, or the least bad one with `fits` False.

    Without a wished context, it is the model's own up to 8,192 tokens, made shorter until it fits.
    `corrections` are what earlier loads here taught (`Calibration.factors`): 'llama_cpp/ram' → 1.04.
    Raises ModelError for a model that writes no text, MissingBackend, SettingsError for odd wishes.
    """
    wishes, installed = wishes or Wishes(), installed or Installed()
    _check(facts, wishes, installed)
    backend = "transformers" if facts.format == "hf" else "llama_cpp"
    learnt = {
        place: factor
        for key, factor in (corrections or {}).items()
        for of, _, place in (key.partition("/"),)
        if of == backend
    }
    ways = (
        _transformers_ways(hardware, facts, wishes, installed)
        if backend == "transformers"
        else _llama_cpp_ways(hardware, facts, wishes, installed, learnt.get("gpu", 1.0))
    )
    ways = [replace(way, learnt=learnt) for way in ways]
    for way in ways[:-1]:
        found = _with_context(way, hardware, facts, wishes, ROOMY_CONTEXT)
        if found.fits:
            return found
    return _with_context(ways[-1], hardware, facts, wishes, SMALLEST_CONTEXT)


def spare(hardware: Hardware) -> int:
    """Bytes of main memory left to other programs: a twentieth, between 256 MiB and 2 GiB."""
    return min(max(hardware.ram_total // 20, 256 * MIB), 2048 * MIB)


def spare_of(gpu: Gpu) -> int:
    """Bytes of a GPU left to the desktop and to rounding: a twentieth, at most 512 MiB."""
    return min(gpu.total // 20, 512 * MIB)


def explain(plan: MemoryPlan, language: Language) -> str:
    """Why, as sentences with numbers, in that language."""

    def say(text: str, **values: Any) -> str:
        return translate(text, language).format(**values)

    def gb(size: int) -> str:
        return figure(size / GB, language)

    sizes = {key: plan.parts.get(key, 0) + plan.parts.get(f"gpu_{key}", 0) for key in PART_NAMES}
    shown = {key: size for key, size in sizes.items() if size >= GB / 200} or {
        "weights": plan.total
    }
    parts = " + ".join(f"{translate(PART_NAMES[key], language)} {gb(shown[key])}" for key in shown)
    sentences = [
        say(WHERE[plan.backend, plan.device], layers=plan.gpu_layers, precision=plan.precision),
        say(
            N_("It needs {total} GB = {parts}; free {free} GB."),
            total=gb(plan.total),
            parts=parts,
            free=gb(plan.free),
        ),
    ]
    if plan.growth >= 50_000_000:
        sentences.append(
            say(N_("A full context of {context} tokens takes {growth} GB more."),
                context=plan.context, growth=gb(plan.growth))
        )  # fmt: skip
    if learnt := [factor for factor in plan.learnt.values() if abs(factor - 1) >= 0.005]:
        sentences.append(
            say(
                N_("Corrected by {percent} % after what earlier loads here measured."),
                percent=" / ".join(f"{100 * (factor - 1):+.0f}" for factor in learnt),
            )
        )
    if not plan.fits:
        sentences.append(
            say(N_("That does not fit: some memory must stay free for other programs."))
        )
    return " ".join(sentences)


def to_dict(plan: MemoryPlan) -> dict[str, Any]:
    """The plan as `models plan --json` prints it; sizes in bytes."""
    return asdict(plan)


PART_NAMES: Mapping[str, str] = {
    "weights": N_("weights"),
    "kv": N_("KV cache"),
    "buffers": N_("buffers"),
    "runtime": N_("runtime"),
    "loading": N_("converting while it loads"),
}
WHERE: Mapping[tuple[str, str], str] = {
    ("llama_cpp", "cpu"): N_("Runs on the CPU through llama.cpp ({precision})."),
    ("llama_cpp", "cuda"): N_("Runs on the GPU through llama.cpp ({precision}, all layers)."),
    ("llama_cpp", "mps"): N_("Runs on the Apple GPU through llama.cpp ({precision}, all layers)."),
    ("llama_cpp", "cuda+cpu"): N_(
        "Runs through llama.cpp ({precision}) with {layers} layers on the GPU and the rest on the CPU."
    ),
    ("llama_cpp", "mps+cpu"): N_(
        "Runs through llama.cpp ({precision}) with {layers} layers on the GPU and the rest on the CPU."
    ),
    ("transformers", "cpu"): N_("Runs on the CPU through transformers ({precision})."),
    ("transformers", "cuda"): N_("Runs on the GPU through transformers ({precision})."),
    ("transformers", "mps"): N_("Runs on the Apple GPU through transformers ({precision})."),
}


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
    if wishes.precision not in (None, *PRECISIONS):
        raise SettingsError(f"precision = {wishes.precision}")


def _in_range(name: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise SettingsError(f"{name} = {value}")


def _transformers_ways(
    hardware: Hardware, facts: ModelFacts, wishes: Wishes, installed: Installed
) -> list[_Way]:
    """GPU first, then the CPU in BF16 or FP32, the faster first."""
    batch = wishes.batch or USUAL_BATCH

    def way(device: str, precision: str) -> _Way:
        precision = wishes.precision or precision
        on_gpu = device != "cpu"
        return _Way(
            "transformers", precision, device, len(facts.layers) + 1 if on_gpu else 0,
            "f32" if precision == "fp32" else "f16",
            lambda context: transformers_footprint(facts, context, precision, batch, on_gpu=on_gpu),
            batch, wishes.threads,
        )  # fmt: skip

    ways = []
    gpu = _best_gpu(hardware)
    if gpu and installed.transformers_gpu and wishes.gpu_layers != 0:
        ways.append(way("cuda" if gpu.kind == "cuda" else "mps", "bf16" if gpu.bf16 else "fp16"))
    fast_bf16 = any(flag in BF16_UNITS for flag in hardware.cpu_flags)
    ways.extend(way("cpu", name) for name in (("bf16",) if fast_bf16 else ("fp32", "bf16")))
    return ways


def _llama_cpp_ways(
    hardware: Hardware, facts: ModelFacts, wishes: Wishes, installed: Installed, learnt: float
) -> list[_Way]:
    """Every layer on the GPU, then as many as fit, then none; a wished number of layers stands alone."""
    kv_type = wishes.kv_type or "f16"
    every = len(facts.layers) + 1
    gpu = _best_gpu(hardware) if installed.llama_cpp_gpu else None

    def way(layers: int) -> _Way:
        device = gpu.kind if gpu and layers else "cpu"
        measured = wishes.measured if not layers else None  # on the CPU alone
        batch = wishes.batch or (measured.batch if measured else USUAL_BATCH)
        flash = wishes.flash if measured is None or wishes.flash is not None else measured.flash
        if kv_type != "f16":
            flash = None  # a quantised cache needs it
        return _Way(
            "llama_cpp", facts.quantisation, device if layers in (0, every) else f"{device}+cpu",
            layers, kv_type,
            lambda context: llama_cpp_footprint(
                facts, context, kv_type, batch, layers, flash=flash
            ),
            batch, wishes.threads or (measured.threads if measured else None),
            measured.threads_batch if measured and not wishes.threads else 0, flash,
        )  # fmt: skip

    if gpu is None:
        return [way(0)]
    if wishes.gpu_layers is not None:
        return [way(min(wishes.gpu_layers, every) if wishes.gpu_layers >= 0 else every)]
    context = min(wishes.context or USUAL_CONTEXT, facts.context)
    low, high = 0, every - 1
    while low < high:  # the GPU's share only grows with its layers
        middle = (low + high + 1) // 2
        share = way(middle).footprint(context)
        if share.corrected(1.0, learnt).peak("gpu") <= gpu.free - spare_of(gpu):
            low = middle
        else:
            high = middle - 1
    return [way(layers) for layers in sorted({every, low, 0}, reverse=True)]


def _best_gpu(hardware: Hardware) -> Gpu | None:
    """The GPU with the most free memory; several at once come with a later step."""
    return max(
        (gpu for gpu in hardware.gpus if gpu.kind != "rocm"),
        key=lambda gpu: gpu.free,
        default=None,
    )


def _with_context(
    way: _Way, hardware: Hardware, facts: ModelFacts, wishes: Wishes, least: int
) -> MemoryPlan:
    """The plan of this way with the wished context, or the longest from `least` to the usual that fits."""
    longest = facts.context or USUAL_CONTEXT
    if wishes.context is not None:
        return _plan(way, min(wishes.context, longest), hardware, wishes)
    usual = min(longest, USUAL_CONTEXT)
    best = _plan(way, usual, hardware, wishes)
    if best.fits:
        return best
    low, high = min(least, usual) // CONTEXT_STEP, usual // CONTEXT_STEP
    while low < high:  # the need only grows with the context
        middle = (low + high + 1) // 2
        if _plan(way, middle * CONTEXT_STEP, hardware, wishes).fits:
            low = middle
        else:
            high = middle - 1
    return _plan(way, max(low * CONTEXT_STEP, min(usual, CONTEXT_STEP)), hardware, wishes)


def _plan(way: _Way, context: int, hardware: Hardware, wishes: Wishes) -> MemoryPlan:
    footprint = way.at(context)
    gpu = _best_gpu(hardware) if footprint.gpu else None
    free_ram = hardware.ram_available - spare(hardware)
    if gpu is None:
        fits, free = footprint.peak("ram") <= free_ram, hardware.ram_available
    elif hardware.unified_memory:
        both = footprint.peak("ram") + footprint.peak("gpu")
        fits = both <= free_ram and footprint.peak("gpu") <= gpu.free
        free = min(gpu.free, hardware.ram_available)
    else:
        fits = footprint.peak("ram") <= free_ram
        fits = fits and footprint.peak("gpu") <= gpu.free - spare_of(gpu)
        free = gpu.free + (hardware.ram_available if way.device.endswith("+cpu") else 0)
    parts = {**footprint.ram, **{f"gpu_{key}": size for key, size in footprint.gpu.items()}}
    found = MemoryPlan(
        backend=way.backend,
        precision=way.precision,
        device=way.device,
        gpu_layers=way.gpu_layers,
        context=context,
        kv_type=way.kv_type,
        batch=way.batch,
        threads=way.threads or hardware.cores_physical,
        parts={key: size for key, size in parts.items() if size},
        total=sum(parts.values()),
        free=free,
        fits=fits,
        reason="",
        growth=footprint.ram_growth + footprint.gpu_growth,
        learnt={
            place: factor for place, factor in way.learnt.items() if place == "ram" or footprint.gpu
        },
        flash="" if way.flash is None else "on" if way.flash else "off",
        threads_batch=way.threads_batch,
        steady=wishes.threads is not None,
    )
    return replace(found, reason=explain(found, "en"))
