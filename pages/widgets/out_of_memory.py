"""What to do when memory ran out: what happened, what came back, and the ways to go on, the least harm first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import streamlit as st

from chatbot.errors import ChatbotError, OutOfMemory
from chatbot.markup import literal
from chatbot.services import services
from widgets.words import _, language, memory

if TYPE_CHECKING:
    from chatbot.memory.relief import Cure


def told(stored: str | None) -> OutOfMemory | None:
    """The error, where the stored one says that memory ran out."""
    error = ChatbotError.from_json(stored) if stored else None
    return error if isinstance(error, OutOfMemory) else None


def show(
    error: OutOfMemory,
    key: str,
    begin: Callable[[Cure], None],
    *,
    loading: bool = False,
    over: bool = False,
    disabled: bool = False,
) -> None:
    """Draw the error with its ways on; `begin` is called with the one chosen.

    `loading` leaves out quotations, for nothing was asked; `over` is set when the person went on already.
    """
    from chatbot.memory.relief import cures_of  # rarely needed, and starting should not pay for it

    cures = [cure for cure in cures_of(error) if not (loading and cure.kind == "quotes")]
    with st.container(border=True, key=f"memory-{key}", gap="small"):
        happened, *freed = error.sentences(language())
        st.markdown(f":material/memory_alt: **{literal(happened)}**")
        if freed:
            st.caption(literal(" ".join(freed)))
        if not cures:
            st.caption(_(error.next_step))
            return
        first, *others = cures
        _way(first, key, begin, primary=not over, disabled=disabled)
        if others:
            with st.popover(_("Other ways"), type="tertiary", disabled=disabled):
                for cure in others:
                    _way(cure, key, begin, disabled=disabled)


def _way(
    cure: Cure,
    key: str,
    begin: Callable[[Cure], None],
    *,
    primary: bool = False,
    disabled: bool = False,
) -> None:
    icons = {"quotes": ":material/format_quote:", "make": ":material/compress:"}
    st.button(
        literal(cure.label(language())),
        key=f"cure-{cure.kind}-{key}",
        type="primary" if primary else "secondary",
        icon=icons.get(cure.kind, ":material/replay:"),
        disabled=disabled,
        on_click=_begin,
        args=(cure, begin),
    )
    st.caption(literal(_cost(cure)))


def _begin(cure: Cure, begin: Callable[[Cure], None]) -> None:
    try:
        if cure.kind == "make":
            services().make_smaller(cure)
            st.toast(
                _("It is being made; the Models page shows how far it is."), icon=":material/info:"
            )
        else:
            begin(cure)
    except ChatbotError as error:
        st.toast(literal(error.text(language())), icon=":material/error:")


def _cost(cure: Cure) -> str:
    """How much it needs, how much less that is, and what it costs the person."""
    if not cure.needs:
        return cure.price(language())
    change = ""
    if cure.values.get("new"):  # after the colon: what will be, instead of what was
        words = cure.text(language()).partition(": ")[2]
        change = f"{words[:1].upper()}{words[1:]}. "
    numbers = _("Needs {needs}, {saves} less.")
    numbers = numbers.format(needs=memory(cure.needs), saves=memory(cure.saves))
    return f"{change}{numbers} {cure.price(language())}"
