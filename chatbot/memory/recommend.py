"""Which size of model this PC deserves, before any model is on disk: what the plan says of usual ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from chatbot.hardware.detect import Installed, installed
from chatbot.hardware.speeds import Speeds
from chatbot.i18n import GB, N_, translate
from chatbot.memory.facts import Layer, ModelFacts
from chatbot.memory.outline import LADDER, outlined
from chatbot.memory.plan import ROOMY_CONTEXT, Wishes, plan
from chatbot.memory.speed import of_weights
from chatbot.types import Backend, Hardware, Language, MemoryPlan

# Sizes in which instruct models are published, billions of parameters, with a usual geometry of that size:
# layers, width, heads, feed-forward width, vocabulary; eight heads of keys and values, 128 values each.
USUAL: dict[float, tuple[int, int, int, int, int]] = {
    70: (80, 8192, 64, 28672, 128256), 32: (64, 5120, 64, 25600, 151936),
    14: (40, 5120, 40, 17408, 151936), 8: (36, 4096, 32, 12288, 151936),
    4: (36, 2560, 32, 9728, 151936), 3: (28, 3072, 24, 8192, 128256),
    1.7: (28, 2048, 16, 6144, 151936), 0.6: (28, 1024, 16, 3072, 151936),
}  # fmt: skip
SMALL = 4.5
"""Up to so many billions the output is usually the table of words."""
HALF, FOUR_BIT = "BF16", "Q4_K_M"
COMFORTABLE = 8
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


def recommend(hardware: Hardware, libraries: Installed | None = None) -> Recommendation | None:
    """The best that fits what is free now; None when even the smallest does not.

    On a GPU up to eight billions, as exact as they fit; more only in 16 bits. On a CPU four bits, for it
    writes as fast as it reads. `libraries` None asks this PC.
    """
    here = libraries or installed()
    half = _largest(hardware, here, HALF, on_gpu=True)
    four = _largest(hardware, here, FOUR_BIT, on_gpu=True, most=COMFORTABLE)
    if half and (not four or half[0] >= four[0]):
        return _recommended(*half, "f16")
    if four:
        for kind in LADDER:
            found = _planned(hardware, here, four[0], kind, on_gpu=True)
            if found:
                return _recommended(four[0], found, kind)
    on_cpu = _largest(hardware, here, FOUR_BIT, on_gpu=False, most=COMFORTABLE)
    return _recommended(*on_cpu, FOUR_BIT) if on_cpu else None


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
        needs=f"{best.needs / GB:.1f}".replace(".", decimal),
        free=f"{best.free / GB:.1f}".replace(".", decimal),
        device=best.device,
    )


def writing_speeds(hardware: Hardware, speeds: Speeds) -> list[tuple[float, float]]:
    """For each usual size that fits this PC now, smallest first: billions of parameters, tokens a second.

    In the precision and on the device of the recommendation; empty where nothing fits or was measured.
    """
    best = recommend(hardware)
    if best is None:
        return []
    exact = best.precision == "f16"
    sizes = {
        b: usual(b, HALF if exact else best.precision).size for b in USUAL if b <= best.billions
    }
    found = [
        (
            billions,
            of_weights(
                sizes[billions], speeds, hardware.cores_physical,
                exact=exact, on_gpu=best.device != "RAM",
            ),
        )
        for billions in reversed(sizes)
    ]  # fmt: skip
    return [(billions, speed) for billions, speed in found if speed is not None]


@cache
def usual(billions: float, kind: str) -> ModelFacts:
    """The facts of a usual model of that size, in that type."""
    count, width, heads, feed_forward, vocabulary = USUAL[billions]
    return outlined(
        ModelFacts(
            format="hf", path="", files=(), name=f"{billions:g}B", architecture="llama",
            writes_text=True, quantisation="", context=32768, vocabulary=vocabulary, width=width,
            feed_forward=feed_forward, layers=(Layer(heads, 8, 128, 128),) * count, tensors=(),
            chat_template=True, tokenizer=True, tied=billions < SMALL,
        ),
        kind,
    )  # fmt: skip


def _largest(
    hardware: Hardware, here: Installed, kind: str, *, on_gpu: bool, most: float = 1000
) -> tuple[float, MemoryPlan] | None:
    for billions in USUAL:
        if billions <= most:
            found = _planned(hardware, here, billions, kind, on_gpu=on_gpu)
            if found:
                return billions, found
    return None


def _planned(
    hardware: Hardware, here: Installed, billions: float, kind: str, *, on_gpu: bool
) -> MemoryPlan | None:
    """How it would run with a roomy context; None where it does not, or not wholly on a GPU as asked."""
    facts = usual(billions, kind)
    library = here.transformers_gpu and here.transformers if kind == HALF else here.llama_cpp_gpu
    if on_gpu and not (library and hardware.device != "cpu"):
        return None
    if facts.format == "gguf" and not here.llama_cpp:
        return None
    found = plan(hardware, facts, Wishes(gpu_layers=-1 if on_gpu else 0), here)
    roomy = found.fits and found.context >= ROOMY_CONTEXT
    return found if roomy and bool(found.cards) == on_gpu else None


def _recommended(billions: float, found: MemoryPlan, precision: str) -> Recommendation:
    device = ", ".join(card.name for card in found.cards) or "RAM"
    needs = found.total + found.growth
    return Recommendation(found.backend, precision, billions, needs, found.free, device)
