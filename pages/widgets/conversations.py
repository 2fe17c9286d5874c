"""The sidebar's conversations: new, find, open, pin, rename, export, delete with undo."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from chatbot.chat.history import NEW_TITLE
from chatbot.i18n import N_
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Conversation
from widgets.message import scroll_to_question
from widgets.words import _, day, language, plural

_SHOWN = 40
_STOP_SECONDS = 2.0
_ACTIONS = {
    "pin": N_("Pin"),
    "unpin": N_("Unpin"),
    "rename": N_("Rename"),
    "export": N_("Export"),
    "delete": N_("Delete"),
    "forget": N_("Forget it now"),
}


def current() -> str | None:
    """The id of the conversation this tab looks at."""
    return st.session_state.get("conversation")


def open_conversation(conversation_id: str | None) -> None:
    """Look at a conversation (None: a new one) in this tab."""
    st.session_state["conversation"] = conversation_id
    st.session_state["shown_messages"] = None
    st.session_state["go_to_chat"] = True
    st.session_state.pop("deleted_conversation", None)  # the offer to undo has been seen
    scroll_to_question()


def show() -> None:
    """Draw the list."""
    st.button(
        _("New conversation"),
        icon=":material/edit_square:",
        width="stretch",
        key="new-conversation",
        on_click=open_conversation,
        args=(None,),
    )
    _undo_row()
    wanted = st.text_input(
        _("Search conversations"),
        key="conversation-search",
        placeholder=_("Search conversations"),
        label_visibility="collapsed",
        icon=":material/search:",
    )
    with st.container(key="conversations"):
        if wanted.strip():
            _found(wanted)
        else:
            _by_day()
    if st.session_state.pop("go_to_chat", False):
        st.switch_page("chat.py")


def _by_day() -> None:
    everything = services().history.conversations()
    everything = services().incognito.conversations() + everything
    shown = st.session_state.get("conversations_shown", _SHOWN)
    heading = None
    for conversation in everything[:shown]:
        label = _("Pinned") if conversation.pinned else day(conversation.updated_at)
        label = _("Incognito") if conversation.incognito else label
        if label != heading:
            st.caption(label)
            heading = label
        _row(conversation)
    if len(everything) > shown and st.button(
        _("Show more"), type="tertiary", key="more-conversations"
    ):
        st.session_state["conversations_shown"] = shown + _SHOWN
        st.rerun()
    if trash := services().history.conversations(deleted=True):
        label = _("Trash ({count})").format(count=len(trash))
        if st.button(label, type="tertiary", key="trash-conversations", icon=":material/delete:"):
            _trash()


def _found(wanted: str) -> None:
    found = services().history.search(wanted)
    if not found:
        st.caption(_("No conversation has these words."))
    for conversation, line in found:
        _row(conversation)
        if line != conversation.title:
            st.caption(literal(line))


def _row(conversation: Conversation) -> None:
    with st.container(
        horizontal=True,
        wrap=False,
        gap=None,
        vertical_alignment="center",
        key=f"conversation-{conversation.id}",
    ):
        st.button(
            literal(conversation.title) or _(NEW_TITLE),
            key=f"open-{conversation.id}",
            icon=":material/visibility_off:" if conversation.incognito else None,
            type="secondary" if conversation.id == current() else "tertiary",
            width="stretch",
            on_click=open_conversation,
            args=(conversation.id,),
        )
        offered = ["unpin" if conversation.pinned else "pin", "rename", "export", "delete"]
        if conversation.incognito:
            offered = ["export", "forget"]
        chosen = st.menu_button(
            _("More"),
            offered,
            key=f"menu-{conversation.id}",
            icon=":material/more_horiz:",
            type="tertiary",
            format_func=lambda action: _(_ACTIONS[action]),
            help=_("More"),
        )
        if chosen:
            _act(chosen, conversation)


def _act(action: str, conversation: Conversation) -> None:
    history = services().history_of(conversation.id)
    if action in ("pin", "unpin"):
        history.pin(conversation.id, action == "pin")
        st.rerun()
    elif action == "rename":
        _dialog(_("Rename the conversation"), _rename, conversation)
    elif action == "export":
        _dialog(_("Export the conversation"), _export, conversation)
    else:
        running = services().answers.running(conversation.id)
        if running:
            running.stop()
            running.wait(_STOP_SECONDS)
        if conversation.id == current():
            open_conversation(None)
        if action == "forget":
            history.purge(conversation.id)
        else:
            history.delete(conversation.id)
            st.session_state["deleted_conversation"] = conversation.id
        st.rerun()


def _dialog(title: str, draw: Callable[..., None], *values: object) -> None:
    st.dialog(title, width="small")(draw)(*values)


def _undo_row() -> None:
    deleted = st.session_state.get("deleted_conversation")
    if not deleted:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(_("Conversation deleted."))
        if st.button(_("Undo"), type="tertiary", key="undo-delete", icon=":material/undo:"):
            services().history.restore(deleted)
            del st.session_state["deleted_conversation"]
            open_conversation(deleted)
            st.rerun()


def _trash() -> None:
    _dialog(_("Trash"), _trash_content)


def _trash_content() -> None:
    history = services().history
    trash = history.conversations(deleted=True)
    if not trash:
        st.caption(_("The trash is empty."))
        return
    st.caption(_("They stay here for a month, or until you empty the trash."))
    for conversation in sorted(trash, key=lambda c: -(c.deleted_at or 0))[:_SHOWN]:
        with st.container(horizontal=True, vertical_alignment="center", wrap=False):
            st.markdown(literal(conversation.title) or _(NEW_TITLE), width="stretch")
            if st.button(
                _("Restore"),
                key=f"restore-{conversation.id}",
                type="tertiary",
                icon=":material/undo:",
            ):
                history.restore(conversation.id)
                open_conversation(conversation.id)
                st.rerun()
    if len(trash) > _SHOWN:
        hidden = len(trash) - _SHOWN
        st.caption(plural("and {count} more", "and {count} more", hidden))
    with st.popover(_("Empty the trash"), icon=":material/delete_forever:"):
        st.markdown(_("This cannot be undone."))
        if st.button(_("Erase for good"), type="primary", key="erase-conversations"):
            history.purge_trash()
            st.session_state.pop("deleted_conversation", None)
            st.rerun()


def _rename(conversation: Conversation) -> None:
    with st.form("rename-form", border=False):
        title = st.text_input(_("Title"), value=conversation.title)
        if st.form_submit_button(_("Save"), type="primary") and title.strip():
            services().history.rename(conversation.id, title)
            st.rerun()


def _export(conversation: Conversation) -> None:
    history = services().history_of(conversation.id)
    name = "-".join(conversation.title.split())[:40] or "hearth"
    st.download_button(
        _("Markdown, to read and print"),
        history.export_markdown(conversation.id, language()),
        f"{name}.md",
        icon=":material/description:",
        width="stretch",
    )
    st.download_button(
        _("JSON, with every branch and figure"),
        history.export_json(conversation.id),
        f"{name}.json",
        icon=":material/data_object:",
        width="stretch",
    )
