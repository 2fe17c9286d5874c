"""Which size of model this PC deserves, before any model is on disk."""

from __future__ import annotations

from dataclasses import dataclass

from chatbot.hardware.detect import installed
from chatbot.hardware.speeds import Speeds
from chatbot.i18n import N_, translate
from chatbot.memory.speed import of_weights
from chatbot.types import Backend, Hardware, Language

# Sizes in which instruct models are published, billions of parameters, with the bytes of KV cache that
# 8,192 tokens take in a usual model of that size (grouped-query attention, f16).
USUAL_SIZES = ((32, 2.15e9), (14, 1.61e9), (8, 1.07e9), (4, 1.21e9), (3, 0.94e9), (1.7, 0.94e9), (0.6, 0.94e9))  # fmt: skip
# Bytes a parameter takes: Q4_K_M files of these sizes average 4.9 bits, with the embedding kept at Q6_K.
FOUR_BIT, HALF = 0.61, 2.0
BUFFERS = 0.5e9
KEPT_FREE = 0.15
_COMFORTABLE = 8
"""A CPU reads a whole model for each word: above this many billions people wait."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The largest usual model that runs well here: billions of parameters, precision, bytes."""

    backend: Backend
    precision: str
    billions: float
    needs: int
    free: int
    device: str


def recommend(hardware: Hardware) -> Recommendation | None:
    """The best that fits what is free now; None when even the smallest does not."""
    here = installed()
    gpu = max(hardware.gpus, key=lambda g: g.free, default=None)
    if gpu is not None and hardware.device != "cpu":
        free = gpu.free if not hardware.unified_memory else hardware.ram_available
        half = _largest(free, HALF) if here.transformers_gpu else None
        four = _largest(free, FOUR_BIT) if here.llama_cpp_gpu else None
        if half and (half[0] >= _COMFORTABLE / 2 or not four):
            return Recommendation("transformers", "f16", half[0], half[1], free, gpu.name)
        if four:
            return Recommendation("llama_cpp", "Q4_K_M", four[0], four[1], free, gpu.name)
    free = hardware.ram_available
    found = _largest(free, FOUR_BIT, most=_COMFORTABLE)
    if found is None:
        return None
    return Recommendation("llama_cpp", "Q4_K_M", found[0], found[1], free, "RAM")


def recommend_text(hardware: Hardware, language: Language) -> str:
    """The recommendation as a sentence with its numbers."""
    best = recommend(hardware)
    if best is None:
        return translate(
            N_("This PC has too little free memory for a model now; quoting documents works."),
            language,
        )
    sentence = translate(
        N_(
            "Recommended for this PC: a model of about {billions} billion parameters in {precision}"
            " (needs {needs} GB; {device} has {free} GB free)."
        ),
        language,
    )
    decimal = "," if language == "vi" else "."
    return sentence.format(
        billions=f"{best.billions:g}".replace(".", decimal),
        precision=best.precision,
        needs=f"{best.needs / 1e9:.1f}".replace(".", decimal),
        free=f"{best.free / 1e9:.1f}".replace(".", decimal),
        device=best.device,
    )


def writing_speeds(hardware: Hardware, speeds: Speeds) -> list[tuple[float, float]]:
    """For each usual size that fits this PC now, smallest first: billions of parameters, tokens a second.

    In the precision and on the device of the recommendation; empty where nothing fits or was measured.
    """
    best = recommend(hardware)
    if best is None:
        return []
    bytes_ = HALF if best.precision == "f16" else FOUR_BIT
    found = [
        (billions, of_weights(billions * 1e9 * bytes_, speeds, on_gpu=best.device != "RAM"))
        for billions, _cache in reversed(USUAL_SIZES)
        if billions <= best.billions
    ]
    return [(billions, speed) for billions, speed in found if speed is not None]


def _largest(free: int, bytes_per_parameter: float, most: float = 1000) -> tuple[float, int] | None:
    for billions, cache in USUAL_SIZES:
        needs = int(billions * 1e9 * bytes_per_parameter + cache + BUFFERS)
        if billions <= most and needs <= free * (1 - KEPT_FREE):
            return billions, needs
    return None
