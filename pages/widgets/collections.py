"""Collections in order: made, renamed, deleted, written into a file and read from one."""

from __future__ import annotations

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.i18n import N_
from chatbot.library.collections import Collection
from chatbot.markup import literal
from chatbot.services import services
from widgets import collection_files, document_actions
from widgets.answer_settings import collection_name
from widgets.words import _, language, plural

BUILT_IN = ("documents", "samples")
_ACTIONS = {
    "export": N_("Export to a file"),
    "rename": N_("Rename"),
    "delete": N_("Delete with its documents"),
}


def button() -> None:
    """The button that opens the collections."""
    if st.button(_("Collections"), icon=":material/folder_copy:", key="collections"):
        st.session_state.pop("collection_action", None)
        st.dialog(_("Collections"), width="medium", icon=":material/folder_copy:")(_dialog)()


def _dialog() -> None:
    with st.container(gap=None, key="collections-list"):
        for one in sorted(
            services().store.collections.all(), key=lambda c: collection_name(c.name)
        ):
            if one.documents or one.name != "samples":
                _row(one)
    with (
        st.form("new-collection", border=False, clear_on_submit=True),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        name = st.text_input(
            _("New collection"), placeholder=_("For example: contracts"), max_chars=100
        )
        if st.form_submit_button(_("Add"), icon=":material/add:") and name.strip():
            services().store.collections.add(name)
            st.rerun(scope="fragment")
    st.divider()
    collection_files.import_form()


def _row(collection: Collection) -> None:
    name = collection.name
    with st.container(
        horizontal=True, wrap=False, vertical_alignment="center", key=f"collection-{name}"
    ):
        st.markdown(f"**{literal(collection_name(name))}**", width="stretch")
        st.caption(
            plural("{count} document", "{count} documents", collection.documents), width="content"
        )
        chosen = st.menu_button(
            _("More"),
            ["export"] if name in BUILT_IN else list(_ACTIONS),
            key=f"menu-collection-{name}",
            icon=":material/more_horiz:",
            type="tertiary",
            format_func=lambda action: _(_ACTIONS[action]),
            help=_("More"),
        )
    if chosen:
        st.session_state["collection_action"] = (chosen, name)
    action, wanted = st.session_state.get("collection_action", ("", ""))
    if wanted == name:
        with st.container(border=True, key="collection-action"):
            {"export": _export, "rename": _rename, "delete": _delete}[action](collection)


def _export(collection: Collection) -> None:
    collection_files.export_form(collection)


def _rename(collection: Collection) -> None:
    new = st.text_input(_("New name"), value=collection.name, max_chars=100, key="collection-name")
    with st.container(horizontal=True):
        if st.button(_("Rename"), type="primary", key="rename-collection"):
            try:
                services().rename_collection(collection.name, new)
            except ChatbotError as error:
                st.error(literal(error.text(language())), icon=":material/error:")
            else:
                _close()
        _cancel()


def _delete(collection: Collection) -> None:
    count = plural("{count} document", "{count} documents", collection.documents)
    st.markdown(
        _("Delete the collection and move {count} to the trash?").format(count=count)
        if collection.documents
        else _("Delete the empty collection?")
    )
    with st.container(horizontal=True):
        if st.button(_("Delete"), type="primary", key="delete-collection"):
            ids = services().ingest.remove_collection(collection.name)
            if ids:
                document_actions.deleted(ids)
            _close()
        _cancel()


def _cancel() -> None:
    if st.button(_("Cancel"), key="cancel-collection"):
        st.session_state.pop("collection_action", None)
        st.rerun(scope="fragment")


def _close() -> None:
    st.session_state.pop("collection_action", None)
    st.rerun()
