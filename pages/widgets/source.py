"""Source cards under an answer, and the dialog that shows a passage with its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from chatbot.errors import NotFoundError
from chatbot.markup import literal
from chatbot.services import services
from chatbot.types import Source
from widgets.words import _, decimal


def cards(sources: Sequence[Source], key: str) -> None:
    """One card a source; a click opens the passage."""
    if not sources:
        return
    columns = st.columns(2, gap="small")
    for index, source in enumerate(sources):
        with (
            columns[index % 2],
            st.container(border=True, gap=None, key=f"source-{key}-{source.number}"),
        ):
            if st.button(
                f"{source.number} · {literal(source.document)}",
                type="tertiary",
                key=f"open-source-{key}-{source.number}",
                help=_("Open the passage"),
            ):
                show_passage(source)
            st.caption(" · ".join(_place(source)))


def _place(source: Source) -> list[str]:
    place = [_("page {page}").format(page=source.page)] if source.page else []
    place += [literal(source.path)] if source.path else []
    place.append(_("score {score}").format(score=decimal(source.score, 2)))
    return place


@st.dialog(" ", width="large")
def show_passage(source: Source) -> None:
    """The passage in its document, with what stands before and after it."""
    st.subheader(literal(source.document))
    st.caption(" · ".join(_place(source)))
    try:
        before, passage, after = services().store.neighbours(source.passage_id)
    except NotFoundError:
        st.info(_("This document has been removed since; here is the passage as it was quoted."))
        st.markdown(literal(source.text))
        return
    for neighbour in before:
        st.markdown(f":gray[{literal(neighbour.text.strip())}]")
    with st.container(border=True, key="passage"):
        st.markdown(literal(passage.text.strip()))
    for neighbour in after:
        st.markdown(f":gray[{literal(neighbour.text.strip())}]")
