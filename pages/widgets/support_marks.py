"""What an answer says beyond its passages: underlined where it stands, listed with the reasons below."""

from __future__ import annotations

import re

import streamlit as st

from chatbot.chat.citations import split_thinking
from chatbot.chat.support import support_text
from chatbot.markup import HINT, Hint, literal
from chatbot.types import Message
from widgets.words import language, plural

# The hint of a pointer is the link's title; a finger or the keyboard's focus shows the same words below.
_STYLE = f"""
a[href="{HINT}"] {{ color: inherit !important; cursor: help; position: relative;
  text-decoration: underline dotted #b7791f 2px !important; text-underline-offset: 0.25em; }}
a[href="{HINT}"]:focus::after {{ content: attr(title); position: absolute; left: 0; top: 100%; z-index: 5;
  width: max-content; max-width: min(22rem, 80vw); padding: 0.35rem 0.6rem; border-radius: 0.5rem;
  font-size: 0.85rem; color: #fff; background: #4a3410; }}
"""


def hints(message: Message) -> list[Hint]:
    """The unsupported sentences of the answer, as `harmless` underlines them."""
    return [
        (verdict.start, verdict.end, support_text(verdict, language()))
        for verdict in message.support
        if not verdict.supported
    ]


def summary(message: Message) -> None:
    """One line that counts the unsupported sentences and opens to a list of them; nothing when there are none."""
    found = hints(message)
    if not found:
        return
    st.html(f"<style>{_STYLE}</style>")
    answer = split_thinking(message.text)[1]
    line = plural(
        "{count} sentence is not backed by the cited passages",
        "{count} sentences are not backed by the cited passages",
        len(found),
    )
    with st.expander(line, icon=":material/rule:"):
        for start, end, reason in found:
            st.markdown(f"- {literal(_plain(answer[start:end]))}  \n  :orange[{literal(reason)}]")


def _plain(sentence: str) -> str:
    return " ".join(re.sub(r"[*`~]+", "", sentence).split())
