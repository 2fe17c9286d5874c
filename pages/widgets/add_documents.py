"""Adding documents: dropped, chosen, or named by their path on this PC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit import config

from chatbot.errors import ChatbotError, NotFoundError
from chatbot.library.readers.kinds import FILE_TYPES
from chatbot.markup import literal
from chatbot.services import services
from widgets.document_actions import collection_picker
from widgets.words import _, language, plural, size


def show() -> None:
    """Draw the uploader and what may be chosen about it."""
    uploads = st.session_state.setdefault("uploads", 0)
    folder = st.session_state.get("add-folder", False)
    files = st.file_uploader(
        _("Drop files here"),
        FILE_TYPES,
        accept_multiple_files="directory" if folder else True,
        key=f"upload-{uploads}-{folder}",
        label_visibility="collapsed",
    )
    st.toggle(_("A whole folder"), key="add-folder")
    with st.expander(
        _("Choose a collection, or add a folder of this PC"), icon=":material/tune:", key="add"
    ):
        collection = collection_picker(_("Into the collection"), "add-collection")
        with (
            st.form("by-path", border=False, clear_on_submit=True),
            st.container(horizontal=True, vertical_alignment="bottom"),
        ):
            path = st.text_input(
                _("A file or folder on this PC"),
                placeholder=str(Path.home() / _("Regulations")),
                help=_("A folder is read with everything below it. The originals stay untouched."),
            )
            by_path = st.form_submit_button(_("Add"), icon=":material/create_new_folder:")
    if files:
        st.session_state["uploads"] = uploads + 1  # a fresh, empty uploader
        _keep([(f.name, f.getvalue()) for f in files], collection)
    elif by_path and path:
        _keep_path(path, collection)


def _keep_path(text: str, collection: str) -> None:
    path = Path(text.strip().strip("\"'")).expanduser()  # Windows copies paths in quotes
    if path.exists():
        _keep([path], collection)
    else:
        st.error(literal(NotFoundError(str(path)).text(language())), icon=":material/error:")


def _keep(files: Sequence[Path | tuple[str, bytes]], collection: str) -> None:
    try:
        with st.spinner(_("Copying the files")):
            found = services().add_documents(files, collection)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    added = {d.id: d for d in found}.values()
    new = sum(d.state in ("waiting", "reading") for d in added)
    there = sum(d.state == "ready" for d in added)
    words = [plural("{count} document added", "{count} documents added", new)] if new else []
    if there:
        words.append(
            plural("{count} was already here", "{count} were already here", there),
        )
    if refused := len(added) - new - there:
        words.append(plural("{count} cannot be read", "{count} cannot be read", refused))
    st.session_state["said"] = " · ".join(words) or _("Nothing to add was found there.")
    st.rerun()


def style() -> None:
    """Names of documents to the left; the uploader's own English words in the person's language."""
    words = _("Add a folder") if st.session_state.get("add-folder") else _("Add files")
    limit = size(config.get_option("server.maxUploadSize") * 1_000_000)
    kinds = _("or drop them here: PDF, Office, web, mail, text, pictures, up to {size} each")
    st.html(
        f"""
        <style>
        [class*="st-key-document-"] {{ padding: 0.5rem 1rem; }}
        [class*="st-key-document-"] [class*="st-key-open-"] button {{ padding: 0; min-height: 1.75rem; }}
        [class*="st-key-document-"] [class*="st-key-open-"] button > div {{ justify-content: flex-start; }}
        [class*="st-key-document-"] [class*="st-key-open-"] button p {{ text-align: left; font-weight: 600;
          overflow-wrap: anywhere; }}
        [class*="st-key-pending-"] {{ padding-top: 0.5rem; }}
        [data-testid="stFileUploaderDropzone"] button p,
        [data-testid="stFileUploaderDropzoneInstructions"] span {{ font-size: 0; white-space: normal; }}
        [data-testid="stFileUploaderDropzone"] > span button p::after {{
          font-size: 0.875rem; content: {json.dumps(words, ensure_ascii=False)}; }}
        [data-testid="stFileUploaderDropzoneInstructions"] span::after {{
          font-size: 0.875rem; content: {json.dumps(kinds.format(size=limit), ensure_ascii=False)}; }}
        [role="dialog"] [data-testid="stFileUploaderDropzoneInstructions"] span::after {{
          content: {json.dumps(_("or drop it here"), ensure_ascii=False)}; }}
        [role="dialog"] [data-testid="stFileUploaderDropzone"] > span button p::after {{
          content: {json.dumps(_("Choose the file"), ensure_ascii=False)}; }}
        @media (max-width: 640px) {{ .st-key-title-row {{ padding-top: 0.8rem; }} }}
        </style>
        """
    )
