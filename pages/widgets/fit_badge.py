"""Whether a model fits in this PC's memory, with the numbers, in the person's language."""

from __future__ import annotations

import streamlit as st

from chatbot.i18n import GB
from chatbot.markup import literal
from chatbot.memory.explain import explain, fullness
from chatbot.memory.speed import tokens_per_second
from chatbot.services import services
from chatbot.types import MemoryPlan, ModelArtifact
from widgets.words import _, decimal, language, memory

_TIGHT = 0.85
"""Above this share of the free memory a model fits, but little is left for other programs."""
_WORTH_SAYING = 0.85
"""A full context that leaves more than this share of the speed is not worth a second figure."""
_DEVICES = {
    "cpu": "CPU",
    "cuda": "GPU",
    "mps": "GPU",
    "cuda+cpu": "GPU + CPU",
    "mps+cpu": "GPU + CPU",
}


def show(plan: MemoryPlan) -> None:
    """The verdict and its numbers, with where it runs and how fast."""
    words = [_needs(plan), _DEVICES.get(plan.device, plan.device)]
    words.append(_("context of {count} tokens").format(count=decimal(plan.context, 0)))
    _line(plan, [*words, speed(plan)])


def brief(plan: MemoryPlan, what: str) -> None:
    """The verdict and its two numbers on one line; the parts come with the pointer."""
    words = _("{what} needs {total} GB; {free} GB are free").format(
        what=what, total=decimal(plan.total / GB), free=decimal(plan.free / GB)
    )
    _line(plan, [words, speed(plan)])


def speed(plan: MemoryPlan) -> str:
    """About how fast it will write, and at the end of a long conversation; "" before this PC was measured."""
    speeds = services().speeds()
    found, full = tokens_per_second(plan, speeds), tokens_per_second(plan, speeds, 1.0)
    if found is None or full is None:
        return ""
    words = _("≈ {speed} tokens/s").format(speed=_figure(found))
    if full < found * _WORTH_SAYING:
        words += _(", ≈ {speed} with a full context").format(speed=_figure(full))
    return words


def badge(plan: MemoryPlan, help_: str | None = None) -> None:
    """Fits, tight, or does not fit."""
    if not plan.fits:
        words, icon, color = _("Does not fit"), ":material/close:", "red"
    elif fullness(plan) > _TIGHT:
        words, icon, color = _("Tight"), ":material/warning:", "orange"
    else:
        words, icon, color = _("Fits"), ":material/check:", "green"
    st.badge(words, icon=icon, color=color, help=help_)  # type: ignore[arg-type]


def precision(model: ModelArtifact) -> str:
    """Its quantisation or precision, such as Q4_K_M or BF16; empty where the headers do not tell."""
    return str(model.manifest.get("quantisation", ""))


def _line(plan: MemoryPlan, words: list[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        badge(plan, help_=literal(explain(plan, language())))
        st.caption(" · ".join(filter(None, words)), width="stretch")


def _needs(plan: MemoryPlan) -> str:
    if plan.cards and not plan.device.endswith("+cpu"):
        needed = sum(sum(card.parts.values()) for card in plan.cards)
        words = _("Needs {total}; {free} are free on the GPU")
        return words.format(
            total=memory(needed), free=memory(sum(card.free for card in plan.cards))
        )
    return _("Needs {total}; {free} are free").format(
        total=memory(plan.total), free=memory(plan.free)
    )


def _figure(number: float) -> str:
    return decimal(number, 1 if number < 10 else 0)
