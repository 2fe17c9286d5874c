"""Chains of steps: what has to be done to get a model ready, and the room on the disk that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from chatbot.i18n import N_
from chatbot.types import JobStep

Keep = Literal["result", "checkable", "all"]
"""Which models of a chain stay: its result, also what the result is checked against, or every one."""

WEIGHTS = {
    "download": 6.0,
    "import": 1.0,
    "unpack": 1.0,
    "merge": 2.0,
    "prepare": 2.0,
    "convert": 2.0,
    "quantise": 3.0,
    "measure_importance": 3.0,
    "verify": 2.0,
    "package": 1.0,
    "push": 6.0,
    "bench": 1.0,
}
"""How long a step takes beside the others, roughly: its share of a job's progress."""

MAKES = ("download", "import", "unpack", "merge", "prepare", "convert", "quantise")
"""Steps that end with a model on the list."""

CHECKED = tuple(step for step in MAKES if step != "import")
"""Steps after which the model is checked; what a person brings along is only read."""

DOCUMENTS_LEFT = N_(
    "Documents travel along in the zip and were left there. To take them in, add it again and tick “With its"
    " documents”."
)
"""What the step `unpack` says last where nobody asked for them."""

FP16 = "fp16"

BITS = {
    "F32": 32.0, "F16": 16.0, "BF16": 16.0, "Q8_0": 8.5, "Q6_K": 6.57, "Q5_K_M": 5.7, "Q5_K_S": 5.54,
    "Q4_K_M": 4.9, "Q4_K_S": 4.6, "IQ4_XS": 4.3, "Q3_K_L": 4.3, "Q3_K_M": 3.95, "Q3_K_S": 3.5,
    "Q2_K": 3.0,
}  # fmt: skip
"""Bits a parameter takes in a GGUF of that type, with its embedding kept finer (usual Llama shapes)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a chain and its parameters; without a `source` it takes what the stage before made."""

    do: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What a chain begins with: parameters of the model, bytes still to fetch, bytes of weights as they are."""

    parameters: int
    to_download: int = 0
    size: int = 0


def checked(stages: Sequence[Stage]) -> list[Stage]:
    """The stages with a check after each one that makes or fetches a model."""
    found = []
    for stage in stages:
        apart = stage.params.get("beside")  # an adapter: held against its base when it is merged
        found += [stage, Stage("verify")] if stage.do in CHECKED and not apart else [stage]
    return found


def ready_chain(
    first: Sequence[Stage], *, adapter: str | None, type_: str, runs: bool = False
) -> list[Stage]:
    """From what `first` fetches to the GGUF that runs: merge, FP16, GGUF, quantise, each checked.

    `type_` is a GGUF type, 'auto' (the best that fits when its turn comes), or 'fp16': the folder that a
    graphics card runs through transformers. What `runs` as it is fetched, a GGUF or an embedder, needs
    none of it.
    """
    stages = list(first)
    if not runs:
        stages += [Stage("merge", {"adapter": adapter})] if adapter is not None else []
        stages += [Stage("prepare")]
        if type_.lower() != FP16:
            stages += [Stage("convert"), Stage("quantise", {"type": type_})]
    return checked(stages)


def disk_need(stages: Sequence[Stage], begins: Ingredients, keep: Keep) -> int:
    """Bytes the chain needs at its fullest: what stays, and each model beside the one it is made from."""
    half = begins.parameters * 2
    size, sizes = begins.size, []
    for stage in stages:
        if stage.do not in MAKES or stage.params.get("beside"):
            continue
        if stage.do == "download":
            size = begins.to_download
        elif stage.do in ("prepare", "convert"):
            size = half
        elif stage.do == "quantise":
            bits = BITS.get(str(stage.params.get("type", "")).upper(), BITS["Q8_0"])
            size = int(begins.parameters * bits / 8)
        elif stage.do == "import" and stage.params.get("link", True):
            size = 0
        sizes.append(size)
    if keep == "all" or len(sizes) < 2:
        return sum(sizes)
    return max(one + other for one, other in pairwise(sizes))


def steps(stages: Sequence[Stage]) -> list[JobStep]:
    """The stages as a job lists them."""
    return [JobStep(stage.do, weight=WEIGHTS.get(stage.do, 1.0)) for stage in stages]
