"""One document in the list: its name, state and facts, and what can be done with it."""

from __future__ import annotations

import streamlit as st

from chatbot.i18n import N_
from chatbot.library.documents import failure_text, warning_text
from chatbot.markup import literal
from chatbot.types import Document, DocumentState, Language
from widgets import document_actions
from widgets.answer_settings import collection_name
from widgets.words import _, language, plural, size

_STATES: dict[DocumentState, tuple[str, str, str]] = {
    "waiting": (N_("Waiting"), ":material/schedule:", "gray"),
    "reading": (N_("Being read"), ":material/progress_activity:", "blue"),
    "ready": (N_("Ready"), ":material/check:", "green"),
    "failed": (N_("Not readable"), ":material/error:", "red"),
}
_WRITTEN_IN: dict[Language, str] = {"vi": N_("in Vietnamese"), "en": N_("in English")}
_ICONS = {"pdf": ":material/picture_as_pdf:", "html": ":material/html:"}


def show(document: Document) -> None:
    """Draw one document of the list."""
    with st.container(border=True, gap=None, key=f"document-{document.id}"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            document_actions.tick_box(document)
            if st.button(
                literal(document.name),
                key=f"open-{document.id}",
                type="tertiary",
                icon=_icon(document),
                width="stretch",
            ):
                open_document(document)
            badge(document)
            chosen = st.menu_button(
                _("More"),
                document_actions.actions(document),
                key=f"menu-{document.id}",
                icon=":material/more_horiz:",
                type="tertiary",
                format_func=document_actions.words,
                help=_("More"),
            )
        st.caption(" · ".join(facts(document)))
        _remarks(document)
        if chosen == "open":
            open_document(document)
        elif chosen:
            document_actions.begin(chosen, [document.id], document.id)
        document_actions.pending(document.id)


def open_document(document: Document) -> None:
    st.query_params["document"] = document.id
    st.rerun()


def badge(document: Document) -> None:
    """The state of the document as a badge."""
    words, icon, color = _STATES[document.state]
    if document.state == "ready" and not document.passages:
        words, icon, color = N_("Without text"), ":material/info:", "orange"
    elif document.state == "ready" and document.warning:
        icon, color = ":material/info:", "orange"
    st.badge(_(words), icon=icon, color=color)  # type: ignore[arg-type]


def _icon(document: Document) -> str:
    for part, icon in _ICONS.items():
        if part in document.media_type:
            return icon
    return ":material/description:"


def facts(document: Document) -> list[str]:
    """Where it is, how big, how long, in which language."""
    facts = [literal(collection_name(document.collection)), size(document.size)]
    if document.pages > 1:
        facts.append(plural("{count} page", "{count} pages", document.pages))
    if document.passages:
        facts.append(plural("{count} passage", "{count} passages", document.passages))
    if document.language:
        facts.append(_(_WRITTEN_IN[document.language]))
    return facts


def _remarks(document: Document) -> None:
    if error := failure_text(document, language()):
        st.markdown(f":small[:red[:material/error: {literal(error)}]]")
    if warning := warning_text(document, language()):
        st.markdown(f":small[:orange[:material/info: {literal(warning)}]]")
