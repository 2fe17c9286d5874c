"""One document: its state, what can be done with it, and what was read of it."""

from __future__ import annotations

import streamlit as st

from chatbot.errors import NotFoundError
from chatbot.library.documents import failure_text, warning_text
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Document
from widgets import document_actions, document_row, source, validity
from widgets.words import _, language, moment

_PASSAGES_PER_PAGE = 10


def show(document: Document) -> None:
    """Draw one document."""
    if st.button(_("All documents"), icon=":material/arrow_back:", type="tertiary"):
        st.query_params.clear()
        st.rerun()
    st.header(literal(document.name), anchor=False)
    reading = document.state in ("waiting", "reading")
    st.fragment(_state, run_every=1.0 if reading else None)(document.id, reading)
    validity.show(document)
    with st.container(horizontal=True):
        for action, icon in (
            ("again", ":material/refresh:"),
            ("move", ":material/drive_file_move:"),
            ("delete", ":material/delete:"),
        ):
            if action in document_actions.actions(document) and st.button(
                document_actions.words(action), icon=icon, key=f"do-{action}"
            ):
                document_actions.begin(action, [document.id], document.id)
        if document_actions.has_original(document):
            st.download_button(
                _("Original file"),
                lambda: services().store.file(document.id).read_bytes(),
                document.name,
                icon=":material/download:",
                on_click="ignore",
            )
    document_actions.pending(document.id)
    _passages(document)


def find(document_id: str) -> Document | None:
    """The document of that id; None when it is gone or in the trash."""
    try:
        document = services().store.get(document_id)
    except NotFoundError:
        return None
    return None if document.deleted_at else document


def _state(document_id: str, was_reading: bool) -> None:
    document = services().store.get(document_id)
    if was_reading and document.state not in ("waiting", "reading"):
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        document_row.badge(document)
        st.caption(" · ".join(document_row.facts(document)))
    added = _("Added {time}").format(time=moment(document.added_at))
    if document.origin:
        added += " · " + _("from {path}").format(path=literal(document.origin))
    st.caption(added)
    if error := failure_text(document, language()):
        st.error(literal(error), icon=":material/error:")
    if warning := warning_text(document, language()):
        st.warning(literal(warning), icon=":material/info:")


def _passages(document: Document) -> None:
    if not document.passages:
        return
    st.subheader(_("What Hearth read"), anchor=False)
    st.caption(_("These are the passages that answers quote, exactly as they are searched."))
    passages = services().store.contents.passages(document.id)
    pages = max(-(-len(passages) // _PASSAGES_PER_PAGE), 1)
    page = st.pagination(pages, key=f"passages-{document.id}") if pages > 1 else 1
    for passage in passages[(page - 1) * _PASSAGES_PER_PAGE : page * _PASSAGES_PER_PAGE]:
        with st.container(border=True, gap="small"):
            place = [str(passage.ordinal + 1)]
            place += [_("page {page}").format(page=passage.page)] if passage.page else []
            place += [literal(passage.path)] if passage.path else []
            with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                st.caption(" · ".join(place), width="stretch")
                if st.button(
                    _("Show in the document"),
                    icon=":material/menu_book:",
                    type="tertiary",
                    key=f"show-{passage.id}",
                    help=_("Open the passage"),
                ):
                    source.show_stored(passage, document.name)
            st.markdown(literal(passage.text.strip()))
