"""Folders of this PC that the library keeps in step with: link one, see how it stands, review what is gone."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from chatbot.errors import ChatbotError
from chatbot.i18n import N_
from chatbot.library.links import FolderState, LinkedFolder, MissingFile
from chatbot.markup import literal
from chatbot.services import services
from widgets import document_actions
from widgets.answer_settings import collection_name
from widgets.words import _, language, moment, plural

_POLL_SECONDS = 2.0
_NAMES_SHOWN = 8
_STYLE = """
<style>
[class*="st-key-folder-"] { padding: 0.5rem 1rem; }
[class*="st-key-review-"], [class*="st-key-unlinking-"] { padding: 0.5rem 0; }
[class*="st-key-missing-"] p { margin: 0; }
[class*="st-key-missing-"] [data-testid="stCaptionContainer"] { margin: 0; }
[class*="st-key-missing-"] button { min-height: 1.5rem; padding: 0; }
</style>
"""

_STATES: dict[FolderState, tuple[str, str, str]] = {
    "looking": (N_("Being compared"), ":material/sync:", "blue"),
    "current": (N_("Up to date"), ":material/check:", "green"),
    "paused": (N_("Paused"), ":material/pause:", "gray"),
    "unreachable": (N_("Out of reach"), ":material/link_off:", "orange"),
    "failed": (N_("Not up to date"), ":material/error:", "red"),
}
_ACTIONS = {
    "look": N_("Sync now"),
    "pause": N_("Pause"),
    "resume": N_("Go on watching"),
    "unlink": N_("End the link"),
}


def show() -> None:
    """Draw every linked folder, and a place to link another."""
    linked = services().folders.list()
    if linked:
        st.html(_STYLE)
        st.fragment(_folders, run_every=_POLL_SECONDS)(_library_now())
    links = st.session_state.setdefault("links", 0)
    with st.expander(
        _("Link another folder") if linked else _("Link a folder and keep it in step"),
        icon=":material/drive_folder_upload:",
        key=f"link-{links}",  # closed and empty again once a folder is linked
    ):
        _form(links)


def _form(links: int) -> None:
    st.caption(
        _(
            "New and changed files are read by themselves; a file that is gone stays in the library until"
            " you decide. Browsers do not let a page look through this PC, so paste the folder’s path."
        )
    )
    with st.form(f"link-form-{links}", border=False):
        path = st.text_input(
            _("Folder on this PC"),
            placeholder=str(Path.home() / _("Regulations")),
            help=_(
                "Windows: hold Shift, right-click the folder, choose Copy as path. macOS: select the folder"
                " and press ⌥⌘C. Linux: copy the folder in the file manager and paste it here."
            ),
            key=f"link-path-{links}",
        )
        collection = document_actions.collection_picker(
            _("Into the collection"), f"link-collection-{links}"
        )
        done = st.form_submit_button(_("Link"), icon=":material/add_link:")
    if not (done and path.strip()):
        return
    try:
        services().folders.link(Path(path.strip().strip("\"'")), collection)
    except ChatbotError as error:
        st.error(literal(error.text(language())), icon=":material/error:")
        return
    services().folders.look()
    st.session_state["links"] = links + 1
    st.session_state["said"] = _("The folder is linked; what is in it is read now.")
    st.rerun()


def _library_now() -> tuple[object, bool]:
    reading = bool(services().jobs.list(active=True, kind="ingest"))
    return None if reading else services().store.tally(), reading


def _folders(drawn: tuple[object, bool]) -> None:
    if _library_now() != drawn:
        st.rerun()  # the list below shows what has come in
    for folder in services().folders.list():
        _folder(folder)


def _folder(folder: LinkedFolder) -> None:
    with st.container(border=True, gap=None, key=f"folder-{folder.id}"):
        with st.container(horizontal=True, wrap=False, vertical_alignment="center", gap="small"):
            name = literal(Path(folder.path).name or folder.path)
            st.markdown(f":material/folder_managed: **{name}**", width="stretch")
            _badge(folder)
            chosen = st.menu_button(
                _("More"),
                ["resume", "unlink"] if folder.paused else ["look", "pause", "unlink"],
                key=f"menu-folder-{folder.id}",
                icon=":material/more_horiz:",
                type="tertiary",
                format_func=lambda action: _(_ACTIONS[action]),
                help=_("More"),
            )
        facts = [literal(folder.path)]
        facts.append(_("into “{name}”").format(name=literal(collection_name(folder.collection))))
        facts.append(plural("{count} file", "{count} files", folder.files))
        if folder.synced_at:
            facts.append(_("compared {time}").format(time=moment(folder.synced_at)))
        st.caption(" · ".join(facts))
        _remarks(folder)
        if chosen:
            _begin(chosen, folder)
        if st.session_state.get("unlinking") == folder.id:
            _ask_about_documents(folder)
        else:
            _review(folder)


def _badge(folder: LinkedFolder) -> None:
    if folder.state == "reading":
        words = plural("Reading {count} file", "Reading {count} files", folder.unread)
        st.badge(words, icon=":material/progress_activity:", color="blue")
        return
    words, icon, color = _STATES[folder.state]
    st.badge(_(words), icon=icon, color=color)  # type: ignore[arg-type]


def _remarks(folder: LinkedFolder) -> None:
    if folder.state == "unreachable":
        words = _(
            "The folder is not there now; perhaps its disk is not connected. Its documents stay as they"
            " are, and Hearth goes on when the folder is back."
        )
        st.markdown(f":small[:orange[:material/info: {words}]]")
    elif folder.error:
        st.markdown(f":small[:red[:material/error: {literal(folder.error.text(language()))}]]")


def _review(folder: LinkedFolder) -> None:
    """What is gone from the folder, and the question what becomes of it here."""
    if not folder.missing:
        return
    missing = services().folders.missing(folder.id)
    with st.container(key=f"review-{folder.id}", gap="xsmall"):
        words = plural(
            "{count} file is gone from the folder. Answers still draw on its document.",
            "{count} files are gone from the folder. Answers still draw on their documents.",
            len(missing),
        )
        st.markdown(f":orange[:material/rule:] {words}")
        for file in missing[:_NAMES_SHOWN]:
            _missing_row(folder, file, alone=len(missing) == 1)
        if (hidden := len(missing) - _NAMES_SHOWN) > 0:
            st.caption(plural("and {count} more", "and {count} more", hidden))
        with st.container(horizontal=True):
            trash, keep = _("Move to the trash"), _("Keep in the library")
            if len(missing) > 1:
                trash, keep = _("Move all to the trash"), _("Keep all in the library")
            if st.button(trash, key=f"accept-{folder.id}", icon=":material/delete:"):
                document_actions.do(lambda: _accept(folder))
            if st.button(keep, key=f"keep-{folder.id}"):
                document_actions.do(lambda: services().folders.keep_missing(folder.id))


def _missing_row(folder: LinkedFolder, file: MissingFile, *, alone: bool) -> None:
    key = file.documents[0]
    with st.container(
        horizontal=True, wrap=False, vertical_alignment="center", key=f"missing-{key}"
    ):
        name = str(Path(file.path).relative_to(folder.path))
        st.caption(literal(name), width="stretch")
        if not alone and st.button(_("Keep this one"), key=f"keep-{key}", type="tertiary"):
            document_actions.do(lambda: services().folders.keep_missing(folder.id, file.path))


def _accept(folder: LinkedFolder) -> None:
    document_actions.deleted(services().folders.remove_missing(folder.id))


def _begin(action: str, folder: LinkedFolder) -> None:
    folders = services().folders
    if action == "look":
        folders.look()
        st.toast(_("The folder is compared with the library now."), icon=":material/sync:")
    elif action == "pause":
        document_actions.do(lambda: folders.pause(folder.id))
    elif action == "resume":
        document_actions.do(lambda: folders.resume(folder.id))
    else:
        st.session_state["unlinking"] = folder.id


def _ask_about_documents(folder: LinkedFolder) -> None:
    with st.container(gap="small", key=f"unlinking-{folder.id}"):
        st.markdown(_("Hearth will no longer watch this folder. What becomes of its documents?"))
        with st.container(horizontal=True):
            kept = st.button(_("Keep in the library"), key=f"unlink-{folder.id}", type="primary")
            removed = st.button(_("Move to the trash"), key=f"unlink-remove-{folder.id}")
            cancelled = st.button(_("Cancel"), key=f"unlink-cancel-{folder.id}")
    if kept or removed or cancelled:
        st.session_state.pop("unlinking")
    if cancelled:
        st.rerun()
    elif kept or removed:
        document_actions.do(lambda: _unlink(folder, remove=removed))


def _unlink(folder: LinkedFolder, *, remove: bool) -> None:
    if gone := services().folders.unlink(folder.id, remove=remove):
        document_actions.deleted(gone)
