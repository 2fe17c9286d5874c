"""An answer while it is being written: its phase, a running clock, the text so far.

The answer lives in Services; this fragment only looks at it a few times a second, so leaving the page,
reloading it or closing the tab does not end it.
"""

from __future__ import annotations

import time

import streamlit as st

from chatbot.chat.citations import split_thinking
from chatbot.chat.reply import Reply
from widgets import message
from widgets.words import _, decimal, plural, seconds

_POLL_SECONDS = 0.25


@st.fragment(run_every=_POLL_SECONDS)
def show(reply: Reply) -> None:
    """Draw the answer so far; the page is drawn anew once it is finished."""
    reply.watch()
    if reply.done:
        st.rerun()
    with message.answer(reply.message.id):
        _thinking, answer = split_thinking(reply.text)
        if reply.text:
            message.body(reply.message, cursor=" ▍" if answer else "")
        with st.container(key=f"phase-{reply.message.id}"):
            icon = "" if answer else ":material/progress_activity: "
            st.caption(icon + _phase(reply, thinking=bool(reply.text and not answer)))


def _phase(reply: Reply, *, thinking: bool) -> str:
    words = {
        "queued": _("Waiting"),
        "adding": _("Reading the attached files"),
        "searching": _("Searching your documents"),
        "loading": _("Getting the model ready"),
        "reading": _("Reading the prompt"),
        "writing": _("Writing"),
        "done": "",
    }[reply.phase]
    if thinking and reply.phase == "writing":
        words = _("The model is thinking")
    if reply.stopped:
        words = _("Stopping")
    elif reply.queue_place:
        words += " · " + plural(
            "{count} question before this one",
            "{count} questions before this one",
            reply.queue_place,
        )
    if reply.progress is not None and reply.phase == "reading":
        words += f" {decimal(reply.progress * 100, 0)} %"
    return f"{words} · {seconds(time.time() - reply.started_at)}"
