"""The documents page: add files, watch them being read, look into them, keep them in order."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st
from streamlit import config

from chatbot.errors import ChatbotError, NotFoundError
from chatbot.i18n import N_
from chatbot.library.readers.kinds import FILE_TYPES
from chatbot.library.store import DocumentStore
from chatbot.markup import literal
from chatbot.services import services
from chatbot.text import fold
from chatbot.types import Document, DocumentState, Language
from widgets import job_row
from widgets.answer_settings import collection_name
from widgets.words import _, language, plural, size

_DOCUMENTS_PER_PAGE = 20
_PASSAGES_PER_PAGE = 10

_STATES: dict[DocumentState, tuple[str, str, str]] = {
    "waiting": (N_("Waiting"), ":material/schedule:", "gray"),
    "reading": (N_("Being read"), ":material/progress_activity:", "blue"),
    "ready": (N_("Ready"), ":material/check:", "green"),
    "failed": (N_("Not readable"), ":material/error:", "red"),
}
_WRITTEN_IN: dict[Language, str] = {"vi": N_("in Vietnamese"), "en": N_("in English")}
_SHOWN = {
    "all": N_("All"),
    "unread": N_("Not read yet"),
    "noted": N_("With a remark"),
    "failed": N_("Not readable"),
}
_ICONS = {"pdf": ":material/picture_as_pdf:", "html": ":material/html:"}

_ACTIONS: dict[str, str] = {
    "open": N_("Open"),
    "again": N_("Read again"),
    "move": N_("Move to another collection"),
    "delete": N_("Delete"),
}


def main() -> None:
    """Draw the page: one document when the address names it, else all of them."""
    _style()
    opened = st.query_params.get("document")
    document = _find(opened) if opened else None
    if document:
        _details(document)
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
    _add()
    _undo_row()
    reading = bool(services().jobs.list(active=True, kind="ingest"))
    st.fragment(_list, run_every=1.0 if reading else None)(reading)
    _trash()


def _documents() -> list[Document]:
    return [d for d in services().store.list() if d.conversation is None]


def _add() -> None:
    uploads = st.session_state.setdefault("uploads", 0)
    files = st.file_uploader(
        _("Drop files here"),
        FILE_TYPES,
        accept_multiple_files=True,
        key=f"upload-{uploads}",
        label_visibility="collapsed",
    )
    with st.expander(
        _("Choose a collection, or add a folder of this PC"), icon=":material/tune:", key="add"
    ):
        collection = _collection_picker(_("Into the collection"), "add-collection")
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
    st.session_state["added"] = " · ".join(words) or _("Nothing to add was found there.")
    st.rerun()


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
        _row(document)
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
            _read()
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
            format_func=lambda action: _(_ACTIONS[action]),
            disabled=not found,
        )
    if chosen:
        _begin(chosen, found)
    if len(found) != 1:
        _pending(found, "bulk")


def _row(document: Document) -> None:
    with st.container(border=True, gap=None, key=f"document-{document.id}"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            if st.button(
                literal(document.name),
                key=f"open-{document.id}",
                type="tertiary",
                icon=_icon(document),
                width="stretch",
            ):
                _open(document)
            _badge(document)
            chosen = st.menu_button(
                _("More"),
                _actions(document),
                key=f"menu-{document.id}",
                icon=":material/more_horiz:",
                type="tertiary",
                format_func=lambda action: _(_ACTIONS[action]),
                help=_("More"),
            )
        st.caption(" · ".join(_facts(document)))
        _remarks(document)
        if chosen == "open":
            _open(document)
        elif chosen:
            _begin(chosen, [document])
        _pending([document], document.id)


def _actions(document: Document) -> list[str]:
    return list(_ACTIONS) if _kept(document) else ["open", "delete"]


def _open(document: Document) -> None:
    st.query_params["document"] = document.id
    st.rerun()


def _badge(document: Document) -> None:
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


def _facts(document: Document) -> list[str]:
    facts = [literal(collection_name(document.collection)), size(document.size)]
    if document.pages > 1:
        facts.append(plural("{count} page", "{count} pages", document.pages))
    if document.passages:
        facts.append(plural("{count} passage", "{count} passages", document.passages))
    if document.language:
        facts.append(_(_WRITTEN_IN[document.language]))
    return facts


def _remarks(document: Document) -> None:
    if error := DocumentStore.error_text(document, language()):
        st.markdown(f":small[:red[:material/error: {literal(error)}]]")
    if warning := DocumentStore.warning_text(document, language()):
        st.markdown(f":small[:orange[:material/info: {literal(warning)}]]")


# --- doing something with documents ---------------------------------------------------------


def _begin(action: str, documents: Sequence[Document]) -> None:
    """Reading again needs no question; moving and deleting are asked about below the row."""
    chosen = documents if action == "delete" else [d for d in documents if _kept(d)]
    if action == "again":
        _do(lambda: _read_again([d.id for d in chosen]))
    st.session_state["pending"] = (action, tuple(d.id for d in chosen))


def _kept(document: Document) -> bool:
    """Whether its original lies in the data folder; a file refused at sight was never copied."""
    return document.sha256 != ""


def _pending(documents: Sequence[Document], key: str) -> None:
    action, ids = st.session_state.get("pending", ("", ()))
    documents = [d for d in documents if action == "delete" or _kept(d)]
    if not documents or ids != tuple(d.id for d in documents):
        return
    count = plural("{count} document", "{count} documents", len(ids))
    align = "bottom" if action == "move" else "center"
    with st.container(horizontal=True, vertical_alignment=align, key=f"pending-{key}"):
        if action == "move":
            collection = _collection_picker(_("Move {count} to").format(count=count), f"to-{key}")
            done = st.button(_("Move"), key=f"yes-{key}", type="primary")
        else:
            st.markdown(_("Move {count} to the trash?").format(count=count))
            done = st.button(_("Delete"), key=f"yes-{key}", type="primary")
        kept = st.button(_("Cancel"), key=f"no-{key}")
    if done and action == "move":
        _do(lambda: _move(documents, collection))
    elif done:
        st.session_state["deleted_documents"] = ids
        st.query_params.clear()
        _do(lambda: services().ingest.remove(*ids))
    elif kept:
        del st.session_state["pending"]
        st.rerun()


def _do(work: Callable[[], object]) -> None:
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
    _read()


def _read() -> None:
    services().jobs.submit("ingest", N_("Reading documents"))


def _undo_row() -> None:
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
            _do(lambda: services().ingest.restore(*deleted))


def _collection_picker(label: str, key: str) -> str:
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


def _trash() -> None:
    trash = [d for d in services().store.trash()[::-1] if d.conversation is None]
    if not trash:
        return
    count = _("Trash ({count})").format(count=len(trash))
    with st.expander(count, icon=":material/delete:", key="trash"):
        st.caption(_("Nothing here is searched. Emptying the trash erases it from the disk."))
        for document in trash[:_DOCUMENTS_PER_PAGE]:
            with st.container(horizontal=True, vertical_alignment="center", wrap=False):
                st.markdown(literal(document.name), width="stretch")
                st.caption(_moment(document.deleted_at or 0))
                if st.button(
                    _("Restore"),
                    key=f"restore-{document.id}",
                    type="tertiary",
                    icon=":material/undo:",
                ):
                    _do(lambda document=document: services().ingest.restore(document.id))
        if (hidden := len(trash) - _DOCUMENTS_PER_PAGE) and hidden > 0:
            st.caption(plural("and {count} more", "and {count} more", hidden))
        with st.popover(_("Empty the trash"), icon=":material/delete_forever:"):
            st.markdown(_("This cannot be undone."))
            if st.button(_("Erase for good"), type="primary", key="empty-trash"):
                st.session_state.pop("deleted_documents", None)
                _do(lambda: services().ingest.purge(*(d.id for d in trash)))


# --- one document ---------------------------------------------------------------------------


def _find(document_id: str) -> Document | None:
    try:
        document = services().store.get(document_id)
    except NotFoundError:
        return None
    return None if document.deleted_at else document


def _details(document: Document) -> None:
    if st.button(_("All documents"), icon=":material/arrow_back:", type="tertiary"):
        st.query_params.clear()
        st.rerun()
    st.header(literal(document.name), anchor=False)
    reading = document.state in ("waiting", "reading")
    st.fragment(_state, run_every=1.0 if reading else None)(document.id, reading)
    with st.container(horizontal=True):
        for action, icon in (
            ("again", ":material/refresh:"),
            ("move", ":material/drive_file_move:"),
            ("delete", ":material/delete:"),
        ):
            if action in _actions(document) and st.button(
                _(_ACTIONS[action]), icon=icon, key=f"do-{action}"
            ):
                _begin(action, [document])
        if _kept(document):
            st.download_button(
                _("Original file"),
                lambda: services().store.file(document.id).read_bytes(),
                document.name,
                icon=":material/download:",
                on_click="ignore",
            )
    _pending([document], document.id)
    _passages(document)


def _state(document_id: str, was_reading: bool) -> None:
    document = services().store.get(document_id)
    if was_reading and document.state not in ("waiting", "reading"):
        st.rerun()
    with st.container(horizontal=True, vertical_alignment="center"):
        _badge(document)
        st.caption(" · ".join(_facts(document)))
    added = _("Added {time}").format(time=_moment(document.added_at))
    if document.origin:
        added += " · " + _("from {path}").format(path=literal(document.origin))
    st.caption(added)
    if error := DocumentStore.error_text(document, language()):
        st.error(literal(error), icon=":material/error:")
    if warning := DocumentStore.warning_text(document, language()):
        st.warning(literal(warning), icon=":material/info:")


def _passages(document: Document) -> None:
    if not document.passages:
        return
    st.subheader(_("What Hearth read"), anchor=False)
    st.caption(_("These are the passages that answers quote, exactly as they are searched."))
    passages = services().store.passages(document.id)
    pages = max(-(-len(passages) // _PASSAGES_PER_PAGE), 1)
    page = st.pagination(pages, key=f"passages-{document.id}") if pages > 1 else 1
    for passage in passages[(page - 1) * _PASSAGES_PER_PAGE : page * _PASSAGES_PER_PAGE]:
        with st.container(border=True, gap="small"):
            place = [str(passage.ordinal + 1)]
            place += [_("page {page}").format(page=passage.page)] if passage.page else []
            place += [literal(passage.path)] if passage.path else []
            st.caption(" · ".join(place))
            st.markdown(literal(passage.text.strip()))


def _moment(seconds_since_epoch: float) -> str:
    layout = "%d/%m/%Y %H:%M" if language() == "vi" else "%Y-%m-%d %H:%M"
    return time.strftime(layout, time.localtime(seconds_since_epoch))


def _style() -> None:
    """Names of documents to the left; the uploader's own English words in the person's language."""
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
          font-size: 0.875rem; content: {json.dumps(_("Add files"), ensure_ascii=False)}; }}
        [data-testid="stFileUploaderDropzoneInstructions"] span::after {{
          font-size: 0.875rem; content: {json.dumps(kinds.format(size=limit), ensure_ascii=False)}; }}
        </style>
        """
    )


main()
