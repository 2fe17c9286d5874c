"""The sidebar's view of this PC: processor, memory, graphics memory, what is loaded."""

from __future__ import annotations

from html import escape

import streamlit as st

from chatbot.i18n import LANGUAGES
from chatbot.markup import literal
from chatbot.services import services
from widgets.words import _, decimal, language, memory, plural

_NEARLY_FULL = 0.9
_MOST_CARDS = 2
"""More are shown as one; the page of this PC has each."""


def show() -> None:
    """Draw the live meters and the language switch."""
    with st.container(key="this-pc"):
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
    meters = _meter(_("Processor"), sample.cpu / 100, f"{decimal(sample.cpu, 0)} %")
    meters += _memory(_("Memory"), sample.ram_used, sample.ram_total)
    cards = [gpu for gpu in sample.gpus if gpu.kind != "mps"]  # whose memory is the RAM
    if len(cards) > _MOST_CARDS:
        label = plural("{count} graphics card", "{count} graphics cards", len(cards))
        used = sum(gpu.total - gpu.free for gpu in cards)
        meters += _memory(label, used, sum(gpu.total for gpu in cards))
    else:
        for gpu in cards:
            meters += _memory(gpu.name.removeprefix("NVIDIA "), gpu.total - gpu.free, gpu.total)
    st.html(f'<div class="hearth-meters">{meters}</div>')
    loaded = services().engines.loaded
    st.caption(
        _("Loaded: {model}").format(model=literal(loaded.spec.title))
        if loaded
        else _("No model loaded: answers quote your documents")
    )


def _memory(label: str, used: int, total: int) -> str:
    return _meter(label, used / max(total, 1), f"{memory(used)} / {memory(total)}")


def _meter(label: str, fraction: float, figure: str) -> str:
    percent = 100 * min(max(fraction, 0.0), 1.0)
    full = ' class="hearth-full"' if fraction >= _NEARLY_FULL else ""
    return (
        f'<div role="meter" aria-label="{escape(label)}" aria-valuenow="{percent:.0f}"'
        f' aria-valuetext="{escape(figure)}"{full}>'
        f"<span><em>{escape(label)}</em><b>{escape(figure)}</b></span>"
        f'<i><i style="width:{percent:.0f}%"></i></i></div>'
    )
