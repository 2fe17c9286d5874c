"""The first steps: the model this PC deserves, or on without one."""

from __future__ import annotations

import streamlit as st

from chatbot.memory.recommend import recommend_text
from chatbot.services import services
from widgets.words import _, language


def show() -> None:
    """A card until the person has chosen; nothing afterwards."""
    if services().settings.first_run_done:
        return
    with st.container(border=True):
        st.markdown(f"**{_('Welcome to Hearth')}**")
        st.markdown(
            _(
                "Everything stays on this PC. Without a model Hearth answers by quoting your documents;"
                " with one it also writes."
            )
        )
        st.caption(recommend_text(services().hardware(), language()))
        with st.container(horizontal=True):
            if st.button(_("Choose a model"), type="primary", icon=":material/deployed_code:"):
                services().change_settings(first_run_done=True)
                st.switch_page("models.py")
            if st.button(_("Go on without one")):
                services().change_settings(first_run_done=True)
                st.rerun()
