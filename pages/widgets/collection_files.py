"""A collection as a file: written as a job and offered, or read from an upload or a path."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from chatbot.errors import ChatbotError, NotFoundError
from chatbot.library.collections import Collection
from chatbot.library.documents import label
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Job
from widgets import job_row
from widgets.answer_settings import collection_name
from widgets.words import _, language, plural, size

_BYTES_PER_PASSAGE = 3_000
"""Its vector, and its share of the text."""
_MOST_DOWNLOADED = 300_000_000
"""A larger file would fill the browser's memory: it is saved to a path."""


def export_form(collection: Collection) -> None:
    """Ask where the collection's file should go, and begin to write it."""
    about = (
        services().store.collections.size(collection.name)
        + _BYTES_PER_PASSAGE * collection.passages
    )
    today = time.strftime("%Y-%m-%d")
    name = label(f"hearth-{collection_name(collection.name)}-{today}.zip")
    st.markdown(
        _(
            "One file with the originals, their text and what the search needs: another PC opens it"
            " without reading anything again. About {size}."
        ).format(size=size(about))
    )
    path = st.text_input(_("Save as"), value=str(_downloads() / name), key="export-path")
    with st.container(horizontal=True):
        if st.button(_("Save there"), type="primary", key="export-to-path") and path.strip():
            file = Path(path.strip().strip("\"'")).expanduser()
            if file.exists():
                st.error(_("There is a file of that name already."), icon=":material/error:")
            else:
                _begin(services().export_documents(file, collection.name))
        if about < _MOST_DOWNLOADED and st.button(
            _("Download instead"), icon=":material/download:", key="export-download"
        ):
            _begin(services().export_documents(services().paths.temporary / name, collection.name))


def import_form() -> None:
    """Take a collection's file by upload or path, and begin to read it."""
    st.markdown(f"**{_('Import a collection')}**")
    st.caption(_("A file that Hearth exported here or on another PC."))
    uploaded = st.file_uploader(
        _("Import a collection"), ["zip"], key="import-upload", label_visibility="collapsed"
    )
    with (
        st.form("import-path", border=False),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        path = st.text_input(_("Or its path on this PC"), placeholder="…/hearth-….zip")
        by_path = st.form_submit_button(_("Import"), icon=":material/upload_file:")
    if uploaded is not None:
        _take(uploaded)
    elif by_path and path.strip():
        file = Path(path.strip().strip("\"'")).expanduser()
        if file.is_file():
            _begin(services().import_documents(file))
        else:
            st.error(literal(NotFoundError(str(file)).text(language())), icon=":material/error:")


def _take(uploaded: UploadedFile) -> None:
    """Import what was uploaded, from a copy that ends with the job."""
    try:
        services().store.originals.require_room(uploaded.size)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    file = services().paths.temporary / f"import-{time.time_ns()}" / label(uploaded.name)
    file.parent.mkdir()
    with file.open("wb") as copy:
        shutil.copyfileobj(uploaded, copy)
    _begin(services().import_documents(file))


def outcome() -> None:
    """What became of the export or import begun in this tab."""
    job_id = st.session_state.get("file_job")
    job = next((j for j in services().jobs.list() if j.id == job_id), None) if job_id else None
    if job is None or job.state in ("waiting", "running"):
        return
    with st.container(
        border=True, horizontal=True, vertical_alignment="center", key="file-outcome"
    ):
        if job.state == "failed":
            st.markdown(f":red[:material/error: {literal(job_row.failure(job))}]", width="stretch")
        elif job.state == "cancelled":
            st.markdown(_("Cancelled."), width="stretch")
        elif job.kind == "export":
            _exported(job)
        else:
            st.markdown(f":green[:material/check:] {_imported(job)}", width="stretch")
        if st.button(_("Close"), key="close-outcome", type="tertiary", icon=":material/close:"):
            del st.session_state["file_job"]
            st.rerun()


def _begin(job: Job) -> None:
    st.session_state["file_job"] = job.id
    st.session_state.pop("collection_action", None)
    st.rerun()


def _exported(job: Job) -> None:
    file, done = Path(job.params["file"]), json.loads(job.message)
    count = plural("{count} document", "{count} documents", done["documents"])
    words = _("{count} exported, {size}.").format(count=count, size=size(done["size"]))
    if file.parent != services().paths.temporary:
        words += " " + _("The file is {path}").format(path=f"`{literal(str(file))}`")
        st.markdown(f":green[:material/check:] {words}", width="stretch")
        return
    st.markdown(f":green[:material/check:] {words}", width="stretch")
    if file.exists():
        st.download_button(
            _("Download"),
            file.read_bytes,
            file.name,
            "application/zip",
            icon=":material/download:",
            on_click="ignore",
            key="download-export",
        )


def _imported(job: Job) -> str:
    done = json.loads(job.message)
    words = [plural("{count} document imported", "{count} documents imported", done["documents"])]
    if done["doubles"]:
        words.append(
            plural("{count} was already here", "{count} were already here", done["doubles"])
        )
    if done["unread"]:
        words.append(
            plural("{count} is still to be read", "{count} are still to be read", done["unread"])
        )
    if done["without_vectors"]:
        words.append(_("another embedder made its vectors; they are made anew in the background"))
    return " · ".join(words)


def _downloads() -> Path:
    folder = Path.home() / "Downloads"
    return folder if folder.is_dir() else Path.home()
