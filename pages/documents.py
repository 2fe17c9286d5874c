"""The documents page: add files, watch them being read, look into them, keep them in order."""

from __future__ import annotations

import streamlit as st

from chatbot.library.listing import Listing
from chatbot.services import services
from widgets import (
    add_documents,
    collection_files,
    collections,
    document_actions,
    document_details,
    document_filter,
    document_row,
    document_trash,
    job_row,
    linked_folders,
)
from widgets.words import _, plural

_DOCUMENTS_PER_PAGE = 20
_JOBS = ("ingest", "export", "import_documents")


def main() -> None:
    """Draw the page: one document when the address names it, else all of them."""
    add_documents.style()
    opened = st.query_params.get("document")
    document = document_details.find(opened) if opened else None
    if document:
        document_details.show(document)
    else:
        _library()


def _library() -> None:
    with st.container(horizontal=True, vertical_alignment="center", wrap=False, key="title-row"):
        st.title(_("Documents"), width="stretch")
        collections.button()
    st.markdown(
        _(
            "Hearth answers from what is here. Files are copied into the data folder, read on this PC"
            " and never leave it."
        )
    )
    add_documents.show()
    linked_folders.show()
    document_actions.undo_row()
    collection_files.outcome()
    busy = any(job.kind in _JOBS for job in services().jobs.list(active=True))
    st.fragment(_list, run_every=1.0 if busy else None)(busy)
    document_trash.show()


def _list(was_busy: bool) -> None:
    jobs = [job for job in services().jobs.list(active=True) if job.kind in _JOBS]
    if was_busy and not jobs:
        st.rerun()
    if said := st.session_state.pop("said", None):
        st.toast(said, icon=":material/task_alt:")
    for job in jobs:
        job_row.show(job)
    tally = services().store.tally()
    if not tally.documents:
        _empty()
        return
    _resume(tally.unread, busy=any(job.kind == "ingest" for job in jobs))
    wanted = document_filter.show()
    found = services().store.count(wanted)
    _bulk_row(wanted, found, tally.documents)
    pages = max(-(-found // _DOCUMENTS_PER_PAGE), 1)
    page = min(st.session_state.get("documents-page", 1), pages)
    offset = (page - 1) * _DOCUMENTS_PER_PAGE
    for document in services().store.page(wanted, _DOCUMENTS_PER_PAGE, offset):
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


def _resume(unread: int, *, busy: bool) -> None:
    if busy or not unread:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            plural("{count} document waits unread.", "{count} documents wait unread.", unread)
        )
        if st.button(_("Go on reading"), icon=":material/play_arrow:", type="tertiary"):
            document_actions.start_reading()
            st.rerun()


def _bulk_row(wanted: Listing, found: int, total: int) -> None:
    """How many there are, and what can be done with those ticked, or with all of them."""
    ticked = document_actions.ticked()
    with st.container(horizontal=True, vertical_alignment="center", key="bulk-row"):
        count = plural("{count} document", "{count} documents", found)
        if found < total:
            count = _("{found} of {total}").format(found=count, total=total)
        st.caption(count, width="stretch")
        if ticked and st.button(_("Untick all"), type="tertiary", key="untick"):
            document_actions.untick()
            st.rerun()
        label = plural("{count} selected", "{count} selected", len(ticked))
        chosen = st.menu_button(
            label if ticked else _("All of these"),
            document_actions.BULK,
            key="bulk",
            type="tertiary",
            format_func=document_actions.words,
            disabled=not (found or ticked),
        )
    if chosen:
        document_actions.begin(chosen, ticked or services().store.ids(wanted), "bulk")
    document_actions.pending("bulk")


main()
