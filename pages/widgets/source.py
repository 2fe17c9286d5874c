"""Source cards under an answer, and the dialog that shows a passage in its document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import streamlit as st

from chatbot.chat.quoted import quoted_spans
from chatbot.errors import NotFoundError
from chatbot.i18n import N_
from chatbot.library.page_view import View
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Passage, Source
from widgets import document_actions, page_view, validity
from widgets.clipboard import copy_button
from widgets.words import _, decimal

_NEIGHBOUR_CHARACTERS = 700
_MOST_HINTS = 2
_UNCITED = 0
"""The number of a passage that no answer cites."""
_STRENGTHS = ((0.6, N_("strong match {score}")), (0.3, N_("fair match {score}")))
_FAINT = N_("faint match {score}")


def cards(
    sources: Sequence[Source],
    key: str,
    answer: str = "",
    on_open: Callable[[int], None] | None = None,
) -> None:
    """One card a source; a click opens the passage, with what the answer quotes of it, and tells its number."""
    if not sources:
        return
    standings = services().register.standing([source.document_id for source in sources])
    with st.container(key=f"sources-{key}"):
        for source in sources:
            standing = standings.get(source.document_id)
            with st.container(border=True, gap=None, key=f"source-{key}-{source.number}"):
                if st.button(
                    f":primary-badge[{source.number}] {literal(source.document)}",
                    type="tertiary",
                    key=f"open-source-{key}-{source.number}",
                    help=_("Open the passage"),
                    on_click=on_open,
                    args=(source.number,),
                ):
                    show_passage(source, answer)
                if said := validity.line(standing):
                    st.caption(literal(said))
                st.caption(" · ".join([*_place(source), _strength(source)]))
                for hint in validity.hints(standing)[:_MOST_HINTS]:
                    st.markdown(f":small[:orange[:material/edit_note: {hint}]]")


def _place(source: Source, view: View | None = None) -> list[str]:
    return [part for part in (_pages(source, view), literal(source.path)) if part]


def _strength(source: Source) -> str:
    words = next((words for least, words in _STRENGTHS if source.score >= least), _FAINT)
    return _(words).format(score=decimal(source.score, 2))


def show_passage(source: Source, answer: str = "") -> None:
    """Open a dialog named after the document, at the passage."""
    page_view.begin()
    st.dialog(literal(source.document), width="medium", icon=":material/menu_book:")(_passage)(
        source, answer
    )


def show_stored(passage: Passage, document: str) -> None:
    """The same for a passage as it is stored, which no answer cites."""
    show_passage(
        Source(
            number=_UNCITED,
            passage_id=passage.id,
            document_id=passage.document_id,
            document=document,
            page=passage.page,
            path=passage.path,
            text=passage.text,
            score=0.0,
        )
    )


def _passage(source: Source, answer: str) -> None:
    """The passage in its document: the page as it looks, and the text with what stands around it."""
    quotes = quoted_spans(answer, source.number, source.text)
    try:
        view = services().page_view.open(source, quotes)
    except NotFoundError:
        st.caption(" · ".join(_place(source)) or _("Without pages"))
        st.info(_("This document has been removed since; here is the passage as it was quoted."))
        _set_off(source.text)
        _quote(source, None)
        return
    st.caption(" · ".join(_place(source, view)) or _("Without pages"))
    if view.passage is None:
        st.info(
            _(
                "The document has changed since and no longer holds these words in exactly one place, so"
                " nothing is highlighted. This is how they were quoted:"
            )
        )
        _set_off(source.text)
    elif view.drawn and not view.anchored:
        _offer_reading(view)
    page_view.show(view, partial(_in_text, source))
    _quote(source, view)


def _offer_reading(view: View) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="offer-reading"):
        st.caption(
            _("An older Hearth read this document; to highlight passages it must be read again.")
        )
        if st.button(_("Read again"), icon=":material/refresh:", type="tertiary"):
            services().ingest.read_again(view.document.id)
            document_actions.start_reading()
            st.toast(_("Being read; open the passage again in a moment."))


def _in_text(source: Source) -> None:
    """The passage as it was read, between its neighbours."""
    try:
        before, passage, after = services().store.contents.neighbours(source.passage_id)
    except NotFoundError:
        passage = None
    if passage is None or passage.text != source.text:  # read again since
        _set_off(source.text)
        return
    _neighbour("".join(p.text for p in before), end=True)
    _set_off(passage.text)
    _neighbour("".join(p.text for p in after), end=False)


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


def _quote(source: Source, view: View | None) -> None:
    """Copy it with its reference; save the original, open the document; say what the figure means."""
    with st.container(horizontal=True, vertical_alignment="center", key="quote"):
        quotation = f"“{source.text.strip()}”\n({_reference(source, view)})"
        copy_button(quotation, "copy-quotation", _("Copy with its source"))
        if view:
            st.download_button(
                _("Original file"),
                lambda: services().store.file(view.document.id).read_bytes(),
                view.document.name,
                icon=":material/download:",
                type="tertiary",
                on_click="ignore",
                key="save-original",
            )
        if view and source.number != _UNCITED:
            st.page_link(
                "documents.py",
                label=_("Open the document"),
                icon=":material/open_in_new:",
                query_params={"document": view.document.id},
            )
    if source.number != _UNCITED:
        explained = _("How strongly the passage speaks to the question, between 0 and 1.")
        st.caption(f"{_strength(source).capitalize()} · {explained}")


def _reference(source: Source, view: View | None) -> str:
    """'Điều 16, Quy chế đào tạo.pdf, Thông tư 06/2024/TT-BLĐTBXH, trang 6'."""
    standing = services().register.standing([source.document_id]).get(source.document_id)
    number = f"{standing.kind} {standing.number}".strip() if standing else ""
    return ", ".join(filter(None, (source.path, source.document, number, _pages(source, view))))


def _pages(source: Source, view: View | None = None) -> str:
    """The page of the passage, or both where it runs over two; "" where pages mean nothing."""
    numbers = [view.sheets[n].number for n in view.lit] if view else []
    if numbers and numbers[0] != numbers[-1]:
        return _("pages {first}–{last}").format(first=numbers[0], last=numbers[-1])
    return _("page {page}").format(page=source.page) if source.page else ""
