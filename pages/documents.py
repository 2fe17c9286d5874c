"""The documents page: add files, watch them being read, look into them, keep them in order."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from chatbot.i18n import N_
from chatbot.services import services
from chatbot.text import fold
from chatbot.types import Document
from widgets import (
    add_documents,
    document_actions,
    document_details,
    document_row,
    document_trash,
    job_row,
)
from widgets.answer_settings import collection_name
from widgets.words import _, language, plural

_DOCUMENTS_PER_PAGE = 20
_SHOWN = {
    "all": N_("All"),
    "unread": N_("Not read yet"),
    "noted": N_("With a remark"),
    "failed": N_("Not readable"),
}


def main() -> None:
    """Draw the page: one document when the address names it, else all of them."""
    add_documents.style()
    opened = st.query_params.get("document")
    document = document_details.find(opened) if opened else None
    if document:
        document_details.show(document)
    else:
        _library()


# --- all documents --------------------------------------------------------------------------


def _library() -> None:
    st.title(_("Documents"))
    st.markdown(
        _(
            "Hearth answers from what is here. Files are copied into the data folder, read on this PC"
            " and never leave it."
        )
    )
    add_documents.show()
    document_actions.undo_row()
    reading = bool(services().jobs.list(active=True, kind="ingest"))
    st.fragment(_list, run_every=1.0 if reading else None)(reading)
    document_trash.show()


def _documents() -> list[Document]:
    return [d for d in services().store.list() if d.conversation is None]


def _list(was_reading: bool) -> None:
    jobs = services().jobs.list(active=True, kind="ingest")
    if was_reading and not jobs:
        st.rerun()
    if added := st.session_state.pop("added", None):
        st.toast(added, icon=":material/add_task:")
    for job in jobs:
        job_row.show(job)
    documents = _documents()
    if not documents:
        _empty()
        return
    _resume(documents, busy=bool(jobs))
    found = _filtered(documents)
    _bulk_row(found, len(documents))
    pages = max(-(-len(found) // _DOCUMENTS_PER_PAGE), 1)
    page = min(st.session_state.get("documents-page", 1), pages)
    for document in found[(page - 1) * _DOCUMENTS_PER_PAGE : page * _DOCUMENTS_PER_PAGE]:
        document_row.show(document)
    if pages > 1:
        with st.container(horizontal_alignment="center"):
            st.pagination(pages, key="documents-page")


def _empty() -> None:
    with st.container(border=True, horizontal_alignment="center", key="no-documents"):
        st.markdown(f"### :material/folder_open: {_('Nothing here yet')}")
        st.markdown(
            _(
                "Drop a regulation, a contract or your notes above. A minute later you can ask about"
                " them, and every answer shows the passage it rests on, with page and article."
            )
        )


def _resume(documents: Sequence[Document], *, busy: bool) -> None:
    waiting = sum(d.state in ("waiting", "reading") for d in documents)
    if busy or not waiting:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            plural("{count} document waits unread.", "{count} documents wait unread.", waiting)
        )
        if st.button(_("Go on reading"), icon=":material/play_arrow:", type="tertiary"):
            document_actions.start_reading()
            st.rerun()


def _filtered(documents: Sequence[Document]) -> list[Document]:
    """The documents that the filters leave, the latest first."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="filters"):
        words = fold(
            st.text_input(
                _("Filter"),
                placeholder=_("Filter by name"),
                label_visibility="collapsed",
                icon=":material/search:",
                key="documents-filter",
                width="stretch",
            )
            or ""
        ).split()
        collections = sorted({d.collection for d in documents}, key=collection_name)
        collection = st.selectbox(
            _("Collection"),
            ["", *collections],
            format_func=lambda name: collection_name(name) if name else _("All collections"),
            label_visibility="collapsed",
            key=f"documents-collection-{language()}",
            width=190,
        )
        shown = st.selectbox(
            _("State"),
            list(_SHOWN),
            format_func=lambda name: _(_SHOWN[name]),
            label_visibility="collapsed",
            key=f"documents-state-{language()}",
            width=150,
        )
    keep = {
        "all": lambda _d: True,
        "unread": lambda d: d.state in ("waiting", "reading"),
        "noted": lambda d: d.warning is not None,
        "failed": lambda d: d.state == "failed",
    }[shown]
    found = [
        d
        for d in documents
        if keep(d)
        and collection in ("", d.collection)
        and all(word in fold(d.name) for word in words)
    ]
    return sorted(found, key=lambda d: (-d.added_at, d.name))


def _bulk_row(found: Sequence[Document], total: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center", wrap=False):
        count = plural("{count} document", "{count} documents", len(found))
        if len(found) < total:
            count = _("{found} of {total}").format(found=count, total=total)
        st.caption(count, width="stretch")
        chosen = st.menu_button(
            _("All of these"),
            ["again", "move", "delete"],
            key="bulk",
            type="tertiary",
            format_func=lambda action: _(document_actions.ACTIONS[action]),
            disabled=not found,
        )
    if chosen:
        document_actions.begin(chosen, found)
    if len(found) != 1:
        document_actions.pending(found, "bulk")


main()
