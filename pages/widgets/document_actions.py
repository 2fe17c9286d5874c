"""Doing something with documents: reading again, moving, deleting, and taking it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Document
from widgets.answer_settings import collection_name
from widgets.words import _, language, plural

ACTIONS: dict[str, str] = {
    "open": N_("Open"),
    "again": N_("Read again"),
    "move": N_("Move to another collection"),
    "delete": N_("Delete"),
}


def begin(action: str, documents: Sequence[Document]) -> None:
    """Reading again needs no question; moving and deleting are asked about below the row."""
    chosen = documents if action == "delete" else [d for d in documents if has_original(d)]
    if action == "again":
        do(lambda: _read_again([d.id for d in chosen]))
    st.session_state["pending"] = (action, tuple(d.id for d in chosen))


def has_original(document: Document) -> bool:
    """Whether its original lies in the data folder; a file refused at sight was never copied."""
    return document.sha256 != ""


def actions(document: Document) -> list[str]:
    """What can be done with this document."""
    return list(ACTIONS) if has_original(document) else ["open", "delete"]


def pending(documents: Sequence[Document], key: str) -> None:
    """Ask about what was begun with exactly these documents, if anything was."""
    action, ids = st.session_state.get("pending", ("", ()))
    documents = [d for d in documents if action == "delete" or has_original(d)]
    if not documents or ids != tuple(d.id for d in documents):
        return
    count = plural("{count} document", "{count} documents", len(ids))
    align = "bottom" if action == "move" else "center"
    with st.container(horizontal=True, vertical_alignment=align, key=f"pending-{key}"):
        if action == "move":
            collection = collection_picker(_("Move {count} to").format(count=count), f"to-{key}")
            done = st.button(_("Move"), key=f"yes-{key}", type="primary")
        else:
            st.markdown(_("Move {count} to the trash?").format(count=count))
            done = st.button(_("Delete"), key=f"yes-{key}", type="primary")
        kept = st.button(_("Cancel"), key=f"no-{key}")
    if done and action == "move":
        do(lambda: _move(documents, collection))
    elif done:
        st.session_state["deleted_documents"] = ids
        st.query_params.clear()
        do(lambda: services().ingest.remove(*ids))
    elif kept:
        del st.session_state["pending"]
        st.rerun()


def do(work: Callable[[], object]) -> None:
    """Do it and draw the page anew, or say why it cannot be done."""
    st.session_state.pop("pending", None)
    try:
        work()
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    st.rerun()


def _move(documents: Sequence[Document], collection: str) -> None:
    """Take the stored originals into the other collection; they are read anew there."""
    for document in documents:
        if document.collection != collection:
            content = services().store.file(document.id).read_bytes()
            services().add_documents([(document.name, content)], collection)
            services().ingest.purge(document.id)
    st.query_params.clear()


def _read_again(document_ids: Sequence[str]) -> None:
    services().ingest.read_again(*document_ids)
    start_reading()


def start_reading() -> None:
    """Begin to read what waits."""
    services().jobs.submit("ingest", N_("Reading documents"))


def undo_row() -> None:
    """Offer to bring back what was deleted last."""
    deleted = st.session_state.get("deleted_documents")
    if not deleted:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="undo-row"):
        st.caption(
            plural(
                "{count} document is in the trash.",
                "{count} documents are in the trash.",
                len(deleted),
            )
        )
        if st.button(_("Undo"), type="tertiary", key="undo-documents", icon=":material/undo:"):
            del st.session_state["deleted_documents"]
            do(lambda: services().ingest.restore(*deleted))


def collection_picker(label: str, key: str) -> str:
    """A collection that is there, or the name of a new one."""
    names = {collection_name(n): n for n in ["documents", *_collections()]}
    chosen = st.selectbox(
        label,
        list(names),
        accept_new_options=True,
        key=f"{key}-{language()}",  # drawn anew when its words change
        help=_("Choose one or type a new name"),
    )
    return names.get(chosen, chosen.strip() or "documents")


def _collections() -> list[str]:
    found = services().store.collections()
    return [c.name for c in found if c.documents or c.name != "samples"]
