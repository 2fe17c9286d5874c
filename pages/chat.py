"""The chat page: one conversation, its answers with their sources, the input with its scope."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from chatbot.chat.reply import Reply
from chatbot.errors import ChatbotError
from chatbot.library.readers.kinds import FILE_TYPES
from chatbot.services import services
from chatbot.types import Conversation, ConversationSettings, Document, Message
from widgets import answer_settings, browser, conversations, first_run, live, message
from widgets.words import _, language, plural

_SHOWN = 30
SAMPLE_QUESTIONS = (  # in the languages of the sample documents, whatever the page speaks
    "Sinh viên bị cảnh báo học vụ khi nào?",
    "How many days of annual leave do I get?",
    "How long is the notice period?",
)


def main() -> None:
    """Draw the page."""
    conversation = _conversation()
    reply = services().answers.running(conversation.id) if conversation else None
    if conversation:
        _messages(conversation, reply)
    else:
        _welcome()
    with st.bottom:
        _input(conversation, reply)


def _conversation() -> Conversation | None:
    """The one this tab looks at; the address keeps it over a reload."""
    wanted = conversations.current()
    if wanted is None and "conversation" not in st.session_state:
        wanted = st.query_params.get("c")
    try:
        found = services().history_of(wanted).conversation(wanted) if wanted else None
    except ChatbotError:
        found = None  # deleted in another tab: begin anew
    if found and found.deleted_at:
        found = None
    st.session_state["conversation"] = found.id if found else None
    if found:
        st.query_params["c"] = found.id
        if found.title:
            st.set_page_config(page_title=f"{found.title} · Hearth")
    else:
        st.query_params.clear()
    return found


def _messages(conversation: Conversation, reply: Reply | None) -> None:
    scroller = st.container()  # first, so that its place never changes while messages are added
    history = services().history_of(conversation.id)
    branch = history.branch(conversation.id)
    versions = history.siblings(conversation.id)
    if reply and branch and branch[-1].id == reply.message.id:
        branch = branch[:-1]
    if conversation.incognito:
        st.caption(
            ":material/visibility_off: " + _("Incognito: nothing of this is written to the disk.")
        )
    shown = st.session_state.get("shown_messages") or _SHOWN
    hidden = len(branch) - shown
    if hidden > 0 and st.button(
        plural("Show {count} earlier message", "Show {count} earlier messages", hidden),
        type="tertiary",
        icon=":material/history:",
    ):
        st.session_state["shown_messages"] = shown + 100
        st.rerun()
    files = _files_by_question(conversation, branch)
    for one in branch[-shown:]:
        message.show(
            one,
            versions.get(one.id, [one.id]),
            busy=reply is not None,
            files=files.get(one.id, ()),
        )
    if reply:
        live.show(reply)
    questions = [one.id for one in branch if one.role == "user"]
    if questions:
        last = reply.message.id if reply else branch[-1].id
        # As tall as the window, so that the question can stand at its top from the first word on.
        st.html(f"<style>.st-key-answer-{last} {{ min-height: var(--hearth-room, 0) }}</style>")
        token = st.session_state.get("scroll", 0)
        with scroller:
            browser.follow(questions[-1], token, busy=reply is not None)


def _files_by_question(
    conversation: Conversation, branch: Sequence[Message]
) -> dict[str, list[Document]]:
    """The files attached to the conversation, each under the first question asked after it came."""
    files = services().store.list(conversation=conversation.id)
    found: dict[str, list[Document]] = {}
    for file in files:
        asked = (m for m in branch if m.role == "user" and m.created_at >= file.added_at)
        if question := next(asked, None):
            found.setdefault(question.id, []).append(file)
    return found


def _welcome() -> None:
    first_run.show()
    st.title(_("What would you like to know?"))
    tally = services().store.tally()
    if tally.ready < tally.documents:
        _reading(tally.ready)
    if tally.ready:
        count = plural("{count} document", "{count} documents", tally.ready)
        st.markdown(
            _("Answers come from {count} on this PC, with the exact passage beside them.").format(
                count=count
            )
        )
    elif not tally.documents:
        st.markdown(
            _("Add a document with the + below or on the Documents page, then ask about it.")
        )
    if services().store.tally("samples").ready:
        st.caption(_("Try one of these about the sample documents:"))
        with st.container(horizontal=True, gap="small", key="samples"):
            for question in SAMPLE_QUESTIONS:
                st.button(
                    question,
                    icon=":material/chat_bubble:",
                    key=f"try-{question}",
                    on_click=_ask,
                    args=(None, question),
                )


@st.fragment(run_every=1)
def _reading(ready_before: int) -> None:
    """Say what is being read; draw the page anew when a document has become ready."""
    tally = services().store.tally()
    if tally.ready != ready_before:
        st.rerun()
    if tally.unread:
        count = plural("{count} document", "{count} documents", tally.unread)
        st.caption(
            ":material/progress_activity: " + _("Still reading {count} …").format(count=count)
        )


def _input(conversation: Conversation | None, reply: Reply | None) -> None:
    incognito = conversation.incognito if conversation else _wants_incognito()
    with st.container(key="composer"):
        asked = st.chat_input(
            _("Ask about your documents") if not reply else _("Hearth is answering…"),
            key="question",
            # An attached file is stored on the disk, which an incognito conversation promises not to do.
            accept_file=False if incognito else "multiple",
            file_type=FILE_TYPES,
            disabled=reply is not None,
        )
        if reply:
            st.button(
                _("Stop"),
                icon=":material/stop:",
                type="primary",
                key="stop",
                help=_("Stop here and keep what was written"),
                on_click=reply.stop,
            )
    stored = conversation.settings if conversation else _draft()
    settings = answer_settings.scope_row(stored, conversation)
    if settings != stored:
        _store(conversation, settings)
        if not asked:
            st.rerun()  # the labels of the row say what was chosen
    if asked:
        text, files = (asked, []) if isinstance(asked, str) else (asked.text, asked.files)
        _ask(conversation, text, [(file.name, file.getvalue()) for file in files])
        st.rerun()


def _wants_incognito() -> bool:
    return bool(st.session_state.get("incognito-toggle", False))


def _draft() -> ConversationSettings:
    draft: ConversationSettings = st.session_state.setdefault("draft", ConversationSettings())
    return draft


def _store(conversation: Conversation | None, settings: ConversationSettings) -> None:
    if conversation:
        services().history_of(conversation.id).configure(conversation.id, settings)
    else:
        st.session_state["draft"] = settings


def _ask(
    conversation: Conversation | None, question: str, files: list[tuple[str, bytes]] | None = None
) -> None:
    """Ask in this conversation, or begin one; attached files join its scope."""
    try:
        if conversation is None:
            history = services().incognito if _wants_incognito() else services().history
            conversation = history.create(_draft())
        if files:
            services().add_documents(files, conversation=conversation.id)
        conversations.open_conversation(conversation.id)
        st.session_state["go_to_chat"] = False
        if question.strip():
            services().answers.ask(conversation.id, question)
        else:
            names = ", ".join(name for name, _content in files or [])
            services().answers.ask(conversation.id, _("What is in {names}?").format(names=names))
    except ChatbotError as error:
        st.toast(error.text(language()), icon=":material/error:")


main()
