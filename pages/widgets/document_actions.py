"""Doing something with documents, one or ten thousand: reading again, moving, deleting, and taking it back."""

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
BULK = ["again", "move", "delete"]


def words(action: str) -> str:
    """The action in the person's language."""
    return _(ACTIONS[action])


def actions(document: Document) -> list[str]:
    """What can be done with this document."""
    return list(ACTIONS) if has_original(document) else ["open", "delete"]


def has_original(document: Document) -> bool:
    """Whether its original lies in the data folder; a file refused at sight was never copied."""
    return document.sha256 != ""


# --- ticking --------------------------------------------------------------------------------


def tick_box(document: Document) -> None:
    """The box that puts a document among those chosen; its choice outlives the page of the list."""
    key = f"tick-{document.id}"
    st.session_state[key] = document.id in st.session_state.get("ticked", ())
    st.checkbox(
        literal(document.name),
        key=key,
        label_visibility="collapsed",
        on_change=_tick,
        args=(document.id,),
    )


def _tick(document_id: str) -> None:
    chosen = dict.fromkeys(st.session_state.get("ticked", ()))
    chosen.pop(document_id, None)
    if st.session_state[f"tick-{document_id}"]:
        chosen[document_id] = None
    st.session_state["ticked"] = tuple(chosen)


def ticked() -> tuple[str, ...]:
    """The ids of the documents chosen, those that are gone left out."""
    chosen = st.session_state.get("ticked", ())
    return tuple(services().store.named(chosen)) if chosen else ()


def untick() -> None:
    """Choose none."""
    st.session_state.pop("ticked", None)


# --- doing ----------------------------------------------------------------------------------


def begin(action: str, ids: Sequence[str], key: str) -> None:
    """Reading again needs no question; moving and deleting are asked about at the place called `key`."""
    if action == "again":
        do(lambda: _read_again(ids))
    st.session_state["pending"] = (action, tuple(ids), key)


def pending(key: str) -> None:
    """Ask about what was begun at this place, if anything was."""
    action, ids, place = st.session_state.get("pending", ("", (), ""))
    if place != key or not ids:
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
        do(lambda: _move(ids, collection))
    elif done:
        do(lambda: _delete(ids))
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


def deleted(ids: Sequence[str]) -> None:
    """Remember what went to the trash, so that it can be brought back at once."""
    st.session_state["deleted_documents"] = tuple(ids)
    st.query_params.clear()
    untick()


def _delete(ids: Sequence[str]) -> None:
    services().ingest.remove(*ids)
    deleted(ids)


def _move(ids: Sequence[str], collection: str) -> None:
    doubles = services().ingest.move(ids, collection)
    words = [plural("{count} document moved", "{count} documents moved", len(ids) - len(doubles))]
    if doubles:
        there = plural("{count} was already there", "{count} were already there", len(doubles))
        words.append(there)
        deleted(doubles)
    untick()
    st.query_params.clear()
    st.session_state["said"] = " · ".join(words)


def _read_again(ids: Sequence[str]) -> None:
    services().ingest.read_again(*ids)
    untick()
    start_reading()


def start_reading() -> None:
    """Begin to read what waits."""
    services().jobs.submit("ingest", N_("Reading documents"))


def undo_row() -> None:
    """Offer to bring back what was deleted last."""
    ids = st.session_state.get("deleted_documents")
    if not ids:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="undo-row"):
        st.caption(
            plural(
                "{count} document is in the trash.",
                "{count} documents are in the trash.",
                len(ids),
            )
        )
        if st.button(_("Undo"), type="tertiary", key="undo-documents", icon=":material/undo:"):
            del st.session_state["deleted_documents"]
            do(lambda: services().ingest.restore(*ids))


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
    found = services().store.collections.all()
    return [c.name for c in found if c.documents or c.name != "samples"]
