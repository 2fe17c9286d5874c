"""What is in memory now, how it runs, and the button that frees it."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import streamlit as st

from chatbot.engines.host import LoadedModel
from chatbot.errors import ChatbotError
from chatbot.hardware.monitor import Sample
from chatbot.markup import literal
from chatbot.services import services
from widgets.words import _, language, memory, plural, seconds

_SHOW_FREED_SECONDS = 60
_BACKENDS = {"llama_cpp": "llama.cpp", "transformers": "transformers", "openai": "OpenAI API"}


def show(key: str) -> None:
    """Draw the loaded model, or that there is none."""
    loaded = services().engines.loaded
    if loaded is None:
        st.markdown(
            f":material/deployed_code: {_('No model loaded: answers quote your documents')}"
        )
        _freed()
        return
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        with st.container(gap=None):
            st.markdown(f":material/deployed_code: **{literal(loaded.spec.title)}**")
            st.caption(" · ".join(facts(loaded)))
        if st.button(
            _("Unload"),
            key=f"unload-{key}",
            icon=":material/eject:",
            disabled=services().engines.busy,
        ):
            unload()
            st.rerun()
    if loaded.info.template == "built-in":
        st.caption(
            ":material/info: "
            + _("This model brings no chat template, so Hearth's built-in one is used.")
        )


def facts(loaded: LoadedModel) -> list[str]:
    """How the model runs: library, device, context, precision, time it took to load."""
    info = loaded.info
    words = [_BACKENDS.get(info.backend, info.backend), info.device.upper()]
    precision = loaded.spec.precision or info.precision
    words += [literal(precision)] if precision else []
    if info.context:
        words.append(plural("context of {count} token", "context of {count} tokens", info.context))
    words.append(_("loaded in {time}").format(time=seconds(loaded.load_seconds)))
    if resident := _resident(loaded.pid):
        words.append(_("its process uses {size}").format(size=memory(resident)))
    return words


def _resident(pid: int) -> int:
    """Bytes of main memory that process holds; 0 when it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def unload() -> None:
    """Free the model's memory; what it was before is kept, to be shown beside what it is then."""
    _free(services().engines.unload)


def free_memory() -> None:
    """The same with everything else that Hearth can do without for a while."""
    _free(services().free_memory)


def _free(work: Callable[[], None]) -> None:
    before = services().monitor.latest()
    try:
        work()
    except ChatbotError as error:
        st.toast(literal(error.text(language())), icon=":material/error:")
        return
    st.session_state["before_unload"] = before


def _freed() -> None:
    before: Sample | None = st.session_state.get("before_unload")
    now = services().monitor.latest()
    if before is None or not 0 < now.at - before.at < _SHOW_FREED_SECONDS:
        return
    words = [
        _("Memory in use: {before} → {after}").format(
            before=memory(before.ram_used), after=memory(now.ram_used)
        )
    ]
    for old, new in zip(before.gpus, now.gpus, strict=False):
        words.append(
            f"{literal(old.name)}: {memory(old.total - old.free)} → {memory(new.total - new.free)}"
        )
    st.caption(" · ".join(words))
