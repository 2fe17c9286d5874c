"""Whether a model fits in this PC's memory, with the numbers, in the person's language."""

from __future__ import annotations

import streamlit as st

from chatbot.markup import literal
from chatbot.memory.explain import explain
from chatbot.memory.speed import tokens_per_second
from chatbot.services import services
from chatbot.types import MemoryPlan, ModelArtifact
from widgets.words import _, decimal, language

_TIGHT = 0.85
"""Above this share of the free memory a model fits, but little is left for other programs."""


def show(plan: MemoryPlan) -> None:
    """The verdict as a badge, and the sentences that give its reason."""
    with st.container(horizontal=True, vertical_alignment="top", wrap=False):
        _badge(plan)
        words = literal(explain(plan, language()))
        st.caption(" ".join([words, *_speed(plan)]), width="stretch")


def brief(plan: MemoryPlan, what: str) -> None:
    """The verdict and its two numbers on one line; the parts come with the pointer."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _badge(plan, help_=literal(explain(plan, language())))
        words = _("{what} needs {total} GB; {free} GB are free").format(
            what=what, total=decimal(plan.total / 1e9), free=decimal(plan.free / 1e9)
        )
        st.caption(" · ".join([words, *_speed(plan)]), width="stretch")


def _speed(plan: MemoryPlan) -> list[str]:
    """About how fast it will write; nothing before this PC was measured."""
    found = tokens_per_second(plan, services().speeds())
    if found is None:
        return []
    return [_("≈ {speed} tokens/s").format(speed=decimal(found, 1 if found < 10 else 0))]


def _badge(plan: MemoryPlan, help_: str | None = None) -> None:
    if not plan.fits:
        words, icon, color = _("Does not fit"), ":material/close:", "red"
    elif plan.total + plan.growth > plan.free * _TIGHT:
        words, icon, color = _("Tight"), ":material/warning:", "orange"
    else:
        words, icon, color = _("Fits"), ":material/check:", "green"
    st.badge(words, icon=icon, color=color, help=help_)  # type: ignore[arg-type]


def precision(model: ModelArtifact) -> str:
    """Its quantisation or precision, such as Q4_K_M or BF16; empty where the headers do not tell."""
    return str(model.manifest.get("quantisation", ""))
