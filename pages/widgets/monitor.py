"""The sidebar's view of this PC: processor, memory, graphics memory, what is loaded."""

from __future__ import annotations

import streamlit as st

from chatbot.i18n import LANGUAGES
from chatbot.markup import literal
from chatbot.services import services
from widgets.words import _, language, size


def show() -> None:
    """Draw the language switch and the live meters."""
    st.divider()
    _meters()
    # Set before the widget: a tab opened earlier must follow, not put its own old choice back.
    st.session_state["language-switch"] = language()
    st.segmented_control(
        _("Language"),
        list(LANGUAGES),
        required=True,
        format_func=LANGUAGES.__getitem__,
        label_visibility="collapsed",
        key="language-switch",
        width="stretch",
        on_change=_switch_language,
    )


def _switch_language() -> None:
    services().change_settings(language=st.session_state["language-switch"])


@st.fragment(run_every=2)
def _meters() -> None:
    for reply in services().answers.all_running():
        reply.watch()  # an open tab anywhere in Hearth keeps the answers going
    sample = services().monitor.latest()
    _meter(_("Processor"), sample.cpu / 100, f"{sample.cpu:.0f} %")
    ram = f"{size(sample.ram_used)} / {size(sample.ram_total)}"
    _meter(_("Memory"), sample.ram_used / max(sample.ram_total, 1), ram)
    for gpu in sample.gpus:
        used = gpu.total - gpu.free
        _meter(literal(gpu.name), used / max(gpu.total, 1), f"{size(used)} / {size(gpu.total)}")
    loaded = services().engines.loaded
    st.caption(
        _("Loaded: {model}").format(model=literal(loaded.spec.title))
        if loaded
        else _("No model loaded: answers quote your documents")
    )


def _meter(label: str, fraction: float, figure: str) -> None:
    st.progress(min(max(fraction, 0.0), 1.0), text=f":small[{label} · {figure}]")
