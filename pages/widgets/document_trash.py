"""What was deleted: brought back one by one, or erased for good."""

from __future__ import annotations

import streamlit as st

from chatbot.markup import literal
from chatbot.services import services
from widgets import document_actions
from widgets.words import _, moment, plural

_SHOWN = 20


def show() -> None:
    """Draw the trash where there is any."""
    ids = services().store.trash.ids(library_only=True)
    if not ids:
        return
    with st.expander(
        _("Trash ({count})").format(count=len(ids)), icon=":material/delete:", key="trash"
    ):
        st.caption(_("Nothing here is searched. Emptying the trash erases it from the disk."))
        for document in services().store.trash.documents(limit=_SHOWN):
            with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                st.markdown(literal(document.name), width="stretch")
                st.caption(moment(document.deleted_at or 0))
                if st.button(
                    _("Restore"),
                    key=f"restore-{document.id}",
                    type="tertiary",
                    icon=":material/undo:",
                ):
                    document_actions.do(
                        lambda document=document: services().ingest.restore(document.id)
                    )
        if (hidden := len(ids) - _SHOWN) > 0:
            st.caption(plural("and {count} more", "and {count} more", hidden))
        with st.container(horizontal=True):
            if st.button(_("Restore all"), key="restore-all", icon=":material/undo:"):
                document_actions.do(lambda: services().ingest.restore(*ids))
            with st.popover(_("Empty the trash"), icon=":material/delete_forever:"):
                st.markdown(_("This cannot be undone."))
                if st.button(_("Erase for good"), type="primary", key="empty-trash"):
                    st.session_state.pop("deleted_documents", None)
                    bar = st.progress(0.0)
                    document_actions.do(
                        lambda: services().ingest.purge(*ids, on_progress=bar.progress)
                    )
