"""The words of a plan: why it is as it is, in numbers, in the person's language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatbot.i18n import GB, N_, figure, translate
from chatbot.types import Language, MemoryPlan, Note

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


def explain(plan: MemoryPlan, language: Language) -> str:
    """Why, as sentences with numbers, in that language."""
    return " ".join(sentences(plan, language))


def sentences(plan: MemoryPlan, language: Language) -> list[str]:
    """The same one by one: where it runs, what it needs, and then what else there is to say."""

    def say(text: str, **values: Any) -> str:
        return translate(text, language).format(**values)

    def gb(size: int) -> str:
        return figure(size / GB, language)

    shown = sizes(plan)
    parts = " + ".join(f"{translate(PART_NAMES[key], language)} {gb(shown[key])}" for key in shown)
    found = [
        say(WHERE[plan.backend, plan.device], layers=plan.gpu_layers, precision=plan.precision),
        say(
            N_("It needs {total} GB = {parts}; free {free} GB."),
            total=gb(plan.total),
            parts=parts,
            free=gb(plan.free),
        ),
    ]
    if plan.growth >= 50_000_000:
        found.append(
            say(N_("A full context of {context} tokens takes {growth} GB more."),
                context=plan.context, growth=gb(plan.growth))
        )  # fmt: skip
    if len(plan.cards) > 1:
        shares = [
            f"{card.name} {card.layers} ({gb(sum(card.parts.values()))} / {gb(card.free)} GB)"
            for card in plan.cards
        ]
        found.append(say(N_("Layers on each GPU: {shares}."), shares=", ".join(shares)))
    found += [told(note, language) for note in plan.notes]
    for gone in plan.evicts:
        found.append(
            say(
                N_("{name} makes room for it and gives back {size} GB."),
                name=gone.name,
                size=gb(gone.ram + gone.gpu),
            )
        )
    if learnt := [factor for factor in plan.learnt.values() if abs(factor - 1) >= 0.005]:
        found.append(
            say(
                N_("Corrected by {percent} % after what earlier loads here measured."),
                percent=" / ".join(f"{100 * (factor - 1):+.0f}" for factor in learnt),
            )
        )
    if plan.threads_batch:  # only a measurement tells them apart
        found.append(
            say(
                WITHOUT_FLASH if plan.flash == "off" else WITH_FLASH,
                threads=plan.threads,
                reading=plan.threads_batch,
                batch=plan.batch,
            )
        )
    if not plan.fits:
        found.append(say(N_("That does not fit: some memory must stay free for other programs.")))
    return found


WITH_FLASH = N_(
    "Measured on this PC: {threads} threads write, {reading} read {batch} tokens at once, with flash attention."
)
WITHOUT_FLASH = N_(
    "Measured on this PC: {threads} threads write, {reading} read {batch} tokens at once, without flash attention."
)


def sizes(plan: MemoryPlan) -> dict[str, int]:
    """Bytes by purpose, main memory and GPUs together, without what is too small to be seen."""
    found = {key: plan.parts.get(key, 0) + plan.parts.get(f"gpu_{key}", 0) for key in PART_NAMES}
    return {key: size for key, size in found.items() if size >= GB / 200} or {"weights": plan.total}


def fullness(plan: MemoryPlan) -> float:
    """The share of the fullest place's free memory that a full context takes.

    GPUs that share a model with the CPU are filled on purpose, so there main memory decides.
    """
    needs, free = plan.total + plan.growth, plan.free
    if plan.cards and plan.device != "mps":
        taken = [(sum(card.parts.values()), card.free) for card in plan.cards]
        if not plan.device.endswith("+cpu"):
            growth = plan.growth if plan.backend == "transformers" else 0
            return max((size + growth) / max(room, 1) for size, room in taken)
        if not plan.device.startswith("mps"):
            needs -= sum(size for size, _ in taken)
            free -= sum(room for _, room in taken)
    return needs / max(free, 1)


def told(note: Note, language: Language) -> str:
    """The note as a sentence."""
    values = {
        key: figure(value, language) if isinstance(value, float) else value
        for key, value in note.values.items()
    }
    return translate(note.text, language).format(**values)
