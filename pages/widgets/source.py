"""Source cards under an answer, and the dialog that shows a passage with its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from chatbot.errors import NotFoundError
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Passage, Source
from widgets.clipboard import copy_button
from widgets.words import _, decimal

_NEIGHBOUR_CHARACTERS = 700
_STRENGTHS = ((0.6, N_("strong match {score}")), (0.3, N_("fair match {score}")))
_FAINT = N_("faint match {score}")


def cards(sources: Sequence[Source], key: str) -> None:
    """One card a source; a click opens the passage."""
    if not sources:
        return
    with st.container(key=f"sources-{key}"):
        for source in sources:
            with st.container(border=True, gap=None, key=f"source-{key}-{source.number}"):
                if st.button(
                    f":primary-badge[{source.number}] {literal(source.document)}",
                    type="tertiary",
                    key=f"open-source-{key}-{source.number}",
                    help=_("Open the passage"),
                ):
                    show_passage(source)
                st.caption(" · ".join([*_place(source), _strength(source)]))


def _place(source: Source) -> list[str]:
    place = [_("page {page}").format(page=source.page)] if source.page else []
    return place + ([literal(source.path)] if source.path else [])


def _strength(source: Source) -> str:
    words = next((words for least, words in _STRENGTHS if source.score >= least), _FAINT)
    return _(words).format(score=decimal(source.score, 2))


def show_passage(source: Source) -> None:
    """Open a dialog named after the document."""
    st.dialog(literal(source.document), width="medium", icon=":material/menu_book:")(_passage)(
        source
    )


def _passage(source: Source) -> None:
    """The passage in its document, with what stands before and after it."""
    st.caption(" · ".join(_place(source)) or _("Without pages"))
    try:
        before, passage, after = services().store.neighbours(source.passage_id)
    except NotFoundError:
        st.info(_("This document has been removed since; here is the passage as it was quoted."))
        _set_off(source.text)
        _quote(source, source.text)
        return
    _neighbour("".join(p.text for p in before), end=True)
    _set_off(passage.text)
    _neighbour("".join(p.text for p in after), end=False)
    _quote(source, passage.text, passage)


def _set_off(text: str) -> None:
    with st.container(key="passage"):
        st.markdown(literal(text.strip()))


def _neighbour(text: str, *, end: bool) -> None:
    """What stands next to the passage: whole lines, the nearest ones."""
    text = text.strip()
    if len(text) > _NEIGHBOUR_CHARACTERS:
        if end:
            text = text[-_NEIGHBOUR_CHARACTERS:]
            text = "… " + text[max(text.find("\n"), text.find(" ")) + 1 :]
        else:
            text = text[:_NEIGHBOUR_CHARACTERS].rsplit("\n", 1)[0].rsplit(" ", 1)[0] + " …"
    if text:
        with st.container(key=f"neighbour-{'before' if end else 'after'}"):
            st.markdown(literal(text))


def _quote(source: Source, text: str, passage: Passage | None = None) -> None:
    """Copy it with its reference; open the document; say what the figure means."""
    reference = [source.document]
    reference += [_("page {page}").format(page=source.page)] if source.page else []
    reference += [source.path] if source.path else []
    quotation = f"“{text.strip()}”\n({', '.join(reference)})"
    with st.container(horizontal=True, vertical_alignment="center", key="quote"):
        copy_button(quotation, "copy-quotation", _("Copy with its source"))
        if passage:
            st.page_link(
                "documents.py",
                label=_("Open the document"),
                icon=":material/open_in_new:",
                query_params={"document": passage.document_id},
            )
    explained = _("How strongly the passage speaks to the question, between 0 and 1.")
    st.caption(f"{_strength(source).capitalize()} · {explained}")
