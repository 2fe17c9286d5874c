"""One message: its text, what it rests on, what it cost, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from chatbot.chat.answer import NOT_FOUND
from chatbot.chat.citations import cited_numbers, numbers_of, split_thinking
from chatbot.chat.history import error_text
from chatbot.engines.openai import ESTIMATED
from chatbot.errors import ChatbotError
from chatbot.i18n import N_
from chatbot.library.documents import failure_text
from chatbot.markup import harmless, literal
from chatbot.services import services
from chatbot.types import Document, Message
from widgets import out_of_memory, source, support_marks
from widgets.clipboard import copy_button
from widgets.words import _, decimal, language, plural, seconds

if TYPE_CHECKING:
    from chatbot.memory.relief import Cure

_WORTH_SAYING = 0.05
"""Seconds; quotations are often there at once."""

_STATES = {"stopped": N_("Stopped"), "failed": N_("Not finished")}


def show(
    message: Message, versions: list[str], *, busy: bool, files: Sequence[Document] = ()
) -> None:
    """Draw a finished message; `versions` are the ids at its place, `busy` switches actions off."""
    if message.role == "user":
        with (
            st.container(key=f"question-{message.id}"),
            st.chat_message("user", avatar=":material/person:"),
        ):
            _question(message, versions, files, busy=busy)
        return
    with answer(message.id):
        body(message)
        if ran_out := out_of_memory.told(message.error):
            again = partial(_answer_again, message)
            over = message.id != versions[-1]
            out_of_memory.show(ran_out, message.id, again, over=over, disabled=busy)
        _sources(message)
        footer(message)
        _actions(message, versions, busy=busy)


def answer(message_id: str) -> DeltaGenerator:
    """The room of one answer, the same while it is written and afterwards."""
    room = st.container(key=f"answer-{message_id}")
    return room.chat_message("assistant", avatar=":material/local_fire_department:")


def body(message: Message, *, cursor: str = "") -> None:
    """The text of an answer so far, thinking folded, with what the person must know about it."""
    thinking, answer = split_thinking(message.text)
    if thinking:
        with st.expander(_("Thinking"), icon=":material/psychology:", expanded=False):
            st.markdown(harmless(thinking))
    if answer or cursor:
        marks = support_marks.hints(message)
        st.markdown(harmless(answer, numbers_of(message.sources), marks) + cursor)
        support_marks.summary(message)
    for notice in message.notices:
        if _(notice) != answer:
            st.caption(f":material/info: {literal(_(notice))}")
    if message.error:
        if not out_of_memory.told(message.error):  # which stands below, with the ways to go on
            st.error(literal(error_text(message, language())), icon=":material/error:")
    elif message.state in _STATES:
        st.caption(f":material/stop_circle: {_(_STATES[message.state])}")


def _question(
    message: Message, versions: list[str], files: Sequence[Document], *, busy: bool
) -> None:
    if files:
        with st.container(horizontal=True, horizontal_alignment="right", gap="small"):
            for file in files:
                failed = file.state == "failed"
                st.badge(
                    literal(file.name),
                    icon=":material/error:" if failed else ":material/attach_file:",
                    color="red" if failed else "gray",
                )
        for file in files:
            if error := failure_text(file, language()):
                st.error(literal(error), icon=":material/error:")
    if st.session_state.get("editing") != message.id:
        with st.container(horizontal_alignment="right", gap=None):
            with st.container(key=f"bubble-{message.id}", width="content"):
                st.markdown(literal(message.text))
            with st.container(
                horizontal=True,
                horizontal_alignment="right",
                gap="small",
                vertical_alignment="center",
                key=f"actions-{message.id}",
            ):
                _version_switch(message, versions, busy=busy)
                copy_button(message.text, f"copy-{message.id}")
                st.button(
                    _("Edit"),
                    icon=":material/edit:",
                    type="tertiary",
                    key=f"edit-{message.id}",
                    help=_("Edit and ask again; the old version is kept"),
                    disabled=busy,
                    on_click=st.session_state.update,
                    args=({"editing": message.id},),
                )
        return
    with st.form(f"edit-form-{message.id}", border=False):
        text = st.text_area(_("Your question"), value=message.text, label_visibility="collapsed")
        with st.container(horizontal=True):
            send = st.form_submit_button(_("Ask again"), type="primary")
            cancel = st.form_submit_button(_("Cancel"))
    if send and text.strip():
        try:
            services().answers.edit(message.conversation_id, message.id, text)
        except ChatbotError as error:
            st.toast(error.text(language()), icon=":material/error:")
        scroll_to_question()
    if send or cancel:
        st.session_state["editing"] = None
        st.rerun()


def _sources(message: Message) -> None:
    if not message.sources:
        return
    cited = cited_numbers(message.text)
    opened = partial(services().history_of(message.conversation_id).opened, message.id)
    if NOT_FOUND in message.notices:
        with st.expander(_("Nearest passages"), icon=":material/travel_explore:"):
            source.cards(message.sources, message.id, message.text, opened)
        return
    used = [s for s in message.sources if s.number in cited]
    others = [s for s in message.sources if s.number not in cited]
    source.cards(used, message.id, message.text, opened)
    if others:
        count = plural("{count} more passage", "{count} more passages", len(others))
        with st.expander(count, icon=":material/library_books:"):
            source.cards(others, f"{message.id}-more", on_open=opened)


def footer(message: Message) -> None:
    """Speed, time to first token, tokens, model, context used."""
    stats = message.stats
    if stats is None:
        return
    parts = []
    if stats.context:
        parts.append(_("{speed} tokens/s").format(speed=decimal(stats.tokens_per_second)))
        parts.append(
            _("first token after {time}").format(time=seconds(stats.seconds_to_first_token))
        )
        tokens = stats.prompt_tokens + stats.answer_tokens
        parts.append(_("context {used} of {context}").format(used=tokens, context=stats.context))
        if stats.cached_tokens:
            parts.append(_("{count} tokens reused").format(count=stats.cached_tokens))
        if stats.drafted:
            guessed = _("{kept} of {count} guessed tokens kept")
            parts.append(guessed.format(kept=stats.accepted, count=stats.drafted))
    else:
        parts += [seconds(stats.seconds)] if stats.seconds >= _WORTH_SAYING else []
    name = message.model if message.engine != "extractive" else _("Quoted from your documents")
    parts.append(literal(name))
    if message.engine != "extractive":
        tokens = plural("{count} token", "{count} tokens", stats.answer_tokens)
        parts.insert(0, f"~{tokens}" if ESTIMATED in message.notices else tokens)
    st.caption(f":small[{' · '.join(parts)}]")


def _actions(message: Message, versions: list[str], *, busy: bool) -> None:
    with st.container(
        horizontal=True, gap="small", vertical_alignment="center", key=f"actions-{message.id}"
    ):
        _version_switch(message, versions, busy=busy)
        copy_button(split_thinking(message.text)[1], f"copy-{message.id}")
        st.button(
            _("Answer again"),
            icon=":material/refresh:",
            type="tertiary",
            key=f"again-{message.id}",
            help=_("Answer again; this version is kept"),
            disabled=busy,
            on_click=_regenerate,
            args=(message,),
        )
        _thumb(message, 1, ":material/thumb_up:", _("Good answer"))
        _thumb(message, -1, ":material/thumb_down:", _("Bad answer"))
        noting = st.session_state.get("noting") == message.id
        st.button(
            _("Note"),
            icon=":material/edit_note:" if message.note else ":material/note_add:",
            type="tertiary",
            key=f"{'thumbed' if message.note else 'add'}-note-{message.id}",
            help=_("Your note on this answer"),
            on_click=st.session_state.update,
            args=({"noting": None if noting else message.id},),
        )
    if noting:
        st.text_area(
            _("Your note on this answer"),
            value=message.note,
            key=f"note-{message.id}",
            on_change=_keep_note,
            args=(message,),
        )
    elif message.note:
        st.caption(f":material/sticky_note_2: {literal(message.note)}")


def _keep_note(message: Message) -> None:
    note = st.session_state[f"note-{message.id}"].strip()
    services().history_of(message.conversation_id).judge(message.id, note=note)
    st.session_state["noting"] = None


def _thumb(message: Message, value: int, icon: str, words: str) -> None:
    chosen = message.thumb == value
    st.button(
        words,
        icon=icon,
        type="tertiary",
        key=f"{'thumbed' if chosen else 'thumb'}-{value}-{message.id}",
        help=words,
        on_click=_judge,
        args=(message, 0 if chosen else value),
    )


def _judge(message: Message, thumb: int) -> None:
    services().history_of(message.conversation_id).judge(message.id, thumb=thumb)


def _version_switch(message: Message, versions: list[str], *, busy: bool) -> None:
    if len(versions) < 2:
        return
    at = versions.index(message.id)
    select = services().history_of(message.conversation_id).select
    st.button(
        "‹",
        type="tertiary",
        key=f"previous-{message.id}",
        disabled=busy or at == 0,
        help=_("Previous version"),
        on_click=select,
        args=(message.conversation_id, versions[at - 1]),
    )
    st.caption(f"{at + 1}/{len(versions)}", width="content")
    st.button(
        "›",
        type="tertiary",
        key=f"next-{message.id}",
        disabled=busy or at == len(versions) - 1,
        help=_("Next version"),
        on_click=select,
        args=(message.conversation_id, versions[(at + 1) % len(versions)]),
    )


def scroll_to_question() -> None:
    """Bring the last question to the top at the next drawing."""
    st.session_state["scroll"] = st.session_state.get("scroll", 0) + 1


def _answer_again(message: Message, cure: Cure) -> None:
    scroll_to_question()
    services().answer_again(message, cure)


def _regenerate(message: Message) -> None:
    scroll_to_question()
    try:
        services().answers.regenerate(message.conversation_id, message.id)
    except ChatbotError as error:
        st.toast(error.text(language()), icon=":material/error:")
