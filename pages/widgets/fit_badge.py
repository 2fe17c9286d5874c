"""Whether a model fits in this PC's memory, with the numbers, in the person's language."""

from __future__ import annotations

import streamlit as st

from chatbot.markup import literal
from chatbot.memory.plan import explain
from chatbot.types import MemoryPlan, ModelArtifact
from widgets.words import _, language

_TIGHT = 0.85
"""Above this share of the free memory a model fits, but little is left for other programs."""


def show(plan: MemoryPlan) -> None:
    """The verdict as a badge, and the sentence that gives its reason."""
    if not plan.fits:
        words, icon, color = _("Does not fit"), ":material/close:", "red"
    elif plan.total + plan.growth > plan.free * _TIGHT:
        words, icon, color = _("Tight"), ":material/warning:", "orange"
    else:
        words, icon, color = _("Fits"), ":material/check:", "green"
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(words, icon=icon, color=color)  # type: ignore[arg-type]
        st.caption(literal(explain(plan, language())), width="stretch")


def precision(model: ModelArtifact) -> str:
    """Its quantisation or precision, such as Q4_K_M or BF16; empty where the headers do not tell."""
    return str(model.manifest.get("quantisation", ""))
